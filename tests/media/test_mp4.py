import re
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.frames import fake_ffmpeg, noise
from wan_core import export_to_video
from wan_core.errors import InputError, VideoError
from wan_core.media.ffmpeg import find_ffmpeg
from wan_core.media.mp4 import check_output, write_mp4
from wan_core.media.read import read_metadata, read_video


def probe(path):
    """What ffmpeg says about a file."""
    return subprocess.run([find_ffmpeg(), "-hide_banner", "-i", str(path)], capture_output=True, text=True).stderr


@pytest.mark.parametrize("fps", [16, 24, 29.97])
def test_frames_size_and_rate(tmp_path, fps):
    path = tmp_path / "clip.mp4"
    assert write_mp4(iter([noise(1), noise(4), noise(4)]), path, fps) == 9
    assert read_video(path).shape == (9, 64, 96, 3)
    described = probe(path)
    assert "h264" in described and "yuv420p" in described and "bt709" in described and f"{fps:g} fps" in described
    assert list(tmp_path.iterdir()) == [path]


def test_colours_survive(tmp_path):
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [20, 90, 160]], np.uint8)
    frames = np.repeat(np.repeat(colours[:, None, None], 64, 1), 64, 2)
    write_mp4([frames], tmp_path / "clip.mp4", 16)
    assert np.abs(read_video(tmp_path / "clip.mp4")[:, 32, 32].astype(int) - colours).max() <= 6


def test_odd_sizes_are_padded(tmp_path):
    export_to_video(noise(3, 31, 47), tmp_path / "clip.mp4", fps=8)
    assert read_video(tmp_path / "clip.mp4").shape == (3, 32, 48, 3)


@pytest.mark.parametrize(
    "frames",
    [
        np.random.rand(5, 32, 32, 3),
        torch.rand(5, 32, 32, 3),
        list(np.random.rand(5, 32, 32, 3)),
        [Image.new("RGB", (32, 32), "red")] * 5,
        noise(5, 32, 32),
        torch.rand(5, 32, 32, 3).bfloat16(),
        [torch.rand(32, 32, 3).half()] * 5,
        (frame for frame in noise(5, 32, 32)),
    ],
)
def test_export_takes_what_people_have(tmp_path, frames):
    assert export_to_video(frames, tmp_path / "clip.mp4", fps=16) == str(tmp_path / "clip.mp4")
    assert len(read_video(tmp_path / "clip.mp4")) == 5


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((0, 32, 32, 3)),
        np.zeros((5, 32, 32)),
        np.full((2, 32, 32, 3), np.nan),
        [],
        None,
        [noise(1)[0], noise(1, 32, 32)[0]],
        "clip.mp4",
        np.full((2, 32, 32, 3), 128),
        np.full((2, 32, 32, 3), 255.0),
        np.full((2, 32, 32, 3), -1.0),
    ],
)
def test_export_refuses_what_is_no_clip(tmp_path, frames):
    with pytest.raises(InputError, match="frames"):
        export_to_video(frames, tmp_path / "clip.mp4")
    assert not list(tmp_path.iterdir())


def test_encoding_goes_on_while_frames_are_still_made(tmp_path):
    sizes = []

    def chunks():
        for i in range(40):
            yield noise(8, seed=i)
            sizes.extend(part.stat().st_size for part in tmp_path.glob("*.part"))

    write_mp4(chunks(), tmp_path / "clip.mp4", 16)
    assert sizes[0] < 10_000 and sizes[-1] > 100_000


def test_an_existing_file_is_replaced_only_by_a_complete_one(tmp_path):
    path = tmp_path / "clip.mp4"
    write_mp4([noise(3)], path, 16)

    def broken():
        yield noise(4)
        raise RuntimeError("decoder failed")

    with pytest.raises(RuntimeError, match="decoder failed"):
        write_mp4(broken(), path, 16)
    assert len(read_video(path)) == 3 and list(tmp_path.iterdir()) == [path]
    write_mp4([noise(5)], path, 16)
    assert len(read_video(path)) == 5


def test_two_writers_of_one_path_do_not_mix(tmp_path):
    path, errors = tmp_path / "clip.mp4", []

    def write(value):
        try:
            write_mp4((np.full((1, 64, 64, 3), value, np.uint8) for _ in range(40)), path, 16)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(value,)) for value in (10, 240)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    frames = read_video(path)
    assert not errors and len(frames) == 40 and list(tmp_path.iterdir()) == [path]
    assert frames.std() < 3


@pytest.mark.parametrize(
    "action, message",
    [
        ("head -c 20000 >/dev/null; echo 'encoder exploded' >&2; exit 3", "encoder exploded"),
        ("head -c 20000 >/dev/null; kill -9 $$", "killed by SIGKILL"),
        ("head -c 20000 >/dev/null; echo 'No space left on device' >&2; exit 1", "No space left.*Free some space"),
        ("cat >/dev/null; exit 5", "exit code 5"),
    ],
)
def test_a_failing_ffmpeg_is_an_error_and_leaves_nothing(tmp_path, monkeypatch, action, message):
    fake_ffmpeg(tmp_path, monkeypatch, action)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(VideoError, match=message):
        write_mp4((noise(4, seed=i) for i in range(50)), out / "clip.mp4", 16)
    assert not list(out.iterdir())


def test_an_encoder_that_loses_frames_is_an_error(tmp_path, monkeypatch):
    real = imageio_ffmpeg.get_ffmpeg_exe()
    out = tmp_path / "out"
    out.mkdir()
    write_mp4([noise(3)], tmp_path / "short.mp4", 16)
    action = f"""case "$*" in
*rawvideo*) cat >/dev/null; for last; do :; done; cp {tmp_path}/short.mp4 "${{last#file:}}";;
*) exec {real} "$@";; esac"""
    fake_ffmpeg(tmp_path, monkeypatch, action)
    with pytest.raises(VideoError, match="holds 3 of 8 frames"):
        write_mp4([noise(8)], out / "clip.mp4", 16)
    assert not list(out.iterdir())


def run_python(code, *arguments, **options):
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)], **options)


@pytest.mark.slow
def test_a_full_disk_is_said(tmp_path):
    """A limit on the file size stands in for the full disk: the same write fails."""
    code = """
        import sys, numpy as np
        from wan_core.video import write_mp4
        from wan_core.errors import VideoError
        rng = np.random.default_rng(0)
        try:
            write_mp4((rng.integers(0, 256, (4, 64, 96, 3), np.uint8) for _ in range(100)), sys.argv[1], 16)
        except VideoError as error:
            print(error)
    """
    limit = 200_000
    process = run_python(
        code,
        tmp_path / "clip.mp4",
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    said, _ = process.communicate(timeout=120)
    assert "ffmpeg stopped after" in said and "Free some space" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_killed_while_writing_leaves_a_playable_part(tmp_path):
    code = """
        import sys, numpy as np
        from wan_core.video import write_mp4
        rng = np.random.default_rng(0)
        write_mp4((rng.integers(0, 256, (4, 64, 96, 3), np.uint8) for _ in iter(int, 1)), sys.argv[1], 16)
    """
    process = run_python(code, tmp_path / "clip.mp4")
    deadline = time.monotonic() + 60
    while sum(part.stat().st_size for part in tmp_path.glob("*.part")) < 2_000_000 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.5)
    (part,) = tmp_path.iterdir()
    assert part.name == "clip.mp4.part"
    shutil.copy(part, tmp_path / "rescued.mp4")
    assert len(read_video(tmp_path / "rescued.mp4")) >= 16


@pytest.mark.parametrize("name", ["clip.avi", "clip", "missing/clip.mp4", "a" * 300 + ".mp4"])
def test_paths_that_cannot_be_written(tmp_path, name):
    with pytest.raises(InputError):
        check_output(tmp_path / name)


def test_hardly_any_space_is_said_before_any_work(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(VideoError, match="MiB free"):
        check_output(tmp_path / "clip.mp4", raw_bytes=free * 20)


@pytest.mark.parametrize("fps", [0, -16, float("nan"), float("inf"), 10**9])
def test_rates_out_of_range(tmp_path, fps):
    with pytest.raises(InputError, match="fps"):
        write_mp4([noise(2)], tmp_path / "clip.mp4", fps)


def test_sound_is_cut_to_the_clip(tmp_path):
    tone = torch.sin(torch.arange(3 * 24000) * 0.1)[None].repeat(2, 1)
    write_mp4([noise(32)], tmp_path / "clip.mp4", 16, audio=(tone, 24000))
    described = probe(tmp_path / "clip.mp4")
    assert "Audio: aac" in described and "24000 Hz, stereo" in described
    assert 2 <= float(re.search(r"Duration: 00:00:(\d+\.\d+)", described)[1]) < 2.15, (
        "two seconds, and the blocks of 43 ms that AAC adds"
    )
    assert len(read_video(tmp_path / "clip.mp4")) == 32


@pytest.mark.parametrize("channels, name", [(1, "mono"), (2, "stereo")])
def test_sound_that_ends_early_is_filled_with_silence(tmp_path, channels, name):
    tone = torch.sin(torch.arange(8000) * 0.3)[None].repeat(channels, 1)
    write_mp4([noise(32)], tmp_path / "clip.mp4", 16, {"seed": "7"}, audio=(tone, 16000))
    described = probe(tmp_path / "clip.mp4")
    assert f"16000 Hz, {name}" in described and read_metadata(tmp_path / "clip.mp4")["seed"] == "7"
    command = [find_ffmpeg(), "-v", "error", "-i", str(tmp_path / "clip.mp4"), "-f", "f32le", "-ac", "1", "-"]
    sound = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.float32)
    assert len(sound) >= 2 * 16000 and np.abs(sound[:7000]).max() > 0.5 and np.abs(sound[10000:]).max() < 0.01


def test_sound_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    action = (
        f"""case "$*" in *f32le*) echo no aac >&2; exit 1;; *) exec {imageio_ffmpeg.get_ffmpeg_exe()} "$@";; esac"""
    )
    fake_ffmpeg(tmp_path, monkeypatch, action)
    with pytest.raises(VideoError, match="after 8 frames: no aac"):
        write_mp4([noise(8)], out / "clip.mp4", 16, audio=(torch.zeros(1, 100), 16000))
    assert not list(out.iterdir())
