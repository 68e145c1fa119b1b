"""An ffmpeg that hangs: every wait ends in a VideoError, and nothing of it stays."""

import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc

import imageio_ffmpeg
import numpy as np
import pytest
import torch

from tests.support.frames import fake_ffmpeg, noise
from tests.support.processes import left_behind
from wan_core.errors import VideoError
from wan_core.media import program
from wan_core.media.ffmpeg import feed, find_ffmpeg
from wan_core.media.images import clip_info, load_video
from wan_core.media.mp4 import check_output, write_mp4
from wan_core.media.program import PATIENCE
from wan_core.media.read import count_frames, iter_video, read_metadata, read_video, video_info

pytestmark = pytest.mark.slow  # a hang takes as long as the patience with it
REAL = imageio_ffmpeg.get_ffmpeg_exe()
SOUND = (torch.zeros(1, 16000), 16000)


def hanging(task):
    """A fake that is the real ffmpeg but for `task`, a word of its arguments."""
    return f"""case "$*" in *{task}*) sleep 1000;; *) exec {REAL} "$@";; esac"""


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(program, "PATIENCE", 2)


@pytest.fixture
def nothing_left(tmp_path):
    threads = set(threading.enumerate())
    yield
    assert left_behind(tmp_path) == []
    assert set(threading.enumerate()) <= threads


def clips(frames=200, size=(256, 256)):
    return (noise(4, *size, seed=0) for _ in range(frames // 4))


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mp4"
    write_mp4([noise(9)], path, 16, {"seed": "7"})
    return path


@pytest.mark.parametrize(
    "action",
    [
        "sleep 1000",
        "cat >/dev/null; sleep 1000",
        "exec <&-; sleep 1000",
        "while :; do echo words; done >&2",
        "cat /dev/zero >&2",
        "trap '' TERM INT HUP; sleep 1000 & wait",
        "(sleep 1000 &); cat >/dev/null; exit 1",
        hanging("rawvideo"),
        hanging("f32le"),
        hanging("null"),
    ],
)
def test_writing(tmp_path, monkeypatch, impatient, nothing_left, action):
    fake_ffmpeg(tmp_path, monkeypatch, action)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(VideoError, match=r"hangs while|exit code 1"):
        write_mp4(clips(), out / "clip.mp4", 16, audio=SOUND)
    assert not list(out.iterdir())


def test_no_wait_takes_half_a_minute(tmp_path, monkeypatch, nothing_left):
    fake_ffmpeg(tmp_path, monkeypatch, "cat >/dev/null; sleep 1000")
    start = time.monotonic()
    with pytest.raises(VideoError, match=f"nothing has moved for {PATIENCE} s"):
        feed(["out.mp4"], [bytes(2**16)] * 64)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("action", ["sleep 1000", "yes", "yes >&2", "cat /dev/zero"])
def test_the_first_probe(tmp_path, monkeypatch, impatient, nothing_left, action):
    fake = tmp_path / "ffmpeg"
    fake.write_text(f"#!/bin/sh\n{action}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))
    for ask in (find_ffmpeg, lambda: check_output(tmp_path / "clip.mp4")):
        with pytest.raises(VideoError, match=r"hangs while it lists its encoders.*IMAGEIO_FFMPEG_EXE"):
            ask()


@pytest.mark.parametrize(
    "read",
    [
        read_video,
        video_info,
        count_frames,
        read_metadata,
        clip_info,
        lambda path: load_video(path, 5, 64, 96),
    ],
)
def test_reading(tmp_path, monkeypatch, impatient, nothing_left, clip, read):
    fake_ffmpeg(tmp_path, monkeypatch, "sleep 1000")
    with pytest.raises(VideoError, match=r"hangs while it .*clip\.mp4"):
        read(clip)


@pytest.mark.parametrize("read", [clip_info, lambda path: load_video(path, 5, 64, 96)])
def test_reading_that_hangs_when_the_frames_are_counted(tmp_path, monkeypatch, impatient, nothing_left, clip, read):
    fake_ffmpeg(tmp_path, monkeypatch, hanging("null"))
    with pytest.raises(VideoError, match="hangs while it counts"):
        read(clip)


def test_reading_that_hangs_between_frames(tmp_path, monkeypatch, impatient, nothing_left, clip):
    fake_ffmpeg(tmp_path, monkeypatch, r"printf 'P6\n2 1\n255\nabcdefP6\n2'; sleep 1000")
    frames = iter_video(clip)
    assert next(frames).tobytes() == b"abcdef"
    with pytest.raises(VideoError, match="hangs while it reads"):
        next(frames)


def test_metadata_without_end(tmp_path, monkeypatch, impatient, nothing_left, clip):
    fake_ffmpeg(tmp_path, monkeypatch, "yes")
    with pytest.raises(VideoError):
        read_metadata(clip)


@pytest.mark.parametrize("flood", ["cat /dev/zero >&2", "yes >&2"])
def test_a_log_without_end_is_not_kept(tmp_path, monkeypatch, impatient, flood):
    fake_ffmpeg(tmp_path, monkeypatch, flood)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    tracemalloc.start()
    with pytest.raises(VideoError, match="hangs"):
        feed(["out.mp4"], [b"frames"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20 and not list(temporary.iterdir())


def test_the_end_of_a_long_log_is_told(tmp_path, monkeypatch):
    fake_ffmpeg(tmp_path, monkeypatch, "cat >/dev/null; yes | head -c 1000000 >&2; echo the cause >&2; exit 1")
    reason = feed(["out.mp4"], [b"frames"])
    assert reason.endswith("the cause") and len(reason) < 4096


def test_a_slow_encoder_that_moves_is_waited_for(tmp_path, monkeypatch, nothing_left):
    monkeypatch.setattr(program, "PATIENCE", 4)
    code = r"""
        import sys, time
        while sys.stdin.buffer.raw.read(65536):
            time.sleep(0.3)
        for frame in range(6):
            print(f"frame={frame + 1}", file=sys.stderr, flush=True)
            time.sleep(1)
    """
    (tmp_path / "slow.py").write_text(textwrap.dedent(code))
    fake_ffmpeg(tmp_path, monkeypatch, f"exec {sys.executable} {tmp_path}/slow.py")
    start = time.monotonic()
    assert feed(["out.mp4"], [bytes(2**20)] * 2) == ""
    assert time.monotonic() - start > 12


def test_time_that_the_caller_takes_does_not_count(tmp_path, monkeypatch, nothing_left):
    monkeypatch.setattr(program, "PATIENCE", 1)
    fake_ffmpeg(tmp_path, monkeypatch, "cat >/dev/null")

    def slowly():
        yield b"one"
        time.sleep(4)
        yield b"two"

    assert feed(["out.mp4"], slowly()) == ""


class Stopped(BaseException):
    """What ComfyUI raises when its queue is stopped is no Exception either."""


def test_an_interrupted_caller_leaves_no_process(tmp_path, monkeypatch, nothing_left):
    fake_ffmpeg(tmp_path, monkeypatch, "cat >/dev/null; sleep 1000")
    out = tmp_path / "out"
    out.mkdir()

    def stopped():
        yield noise(1)
        raise Stopped

    with pytest.raises(Stopped):
        write_mp4(stopped(), out / "clip.mp4", 16)
    assert not list(out.iterdir())


@pytest.mark.parametrize("action", ["sleep 1000", "cat >/dev/null; sleep 1000"])
def test_a_key_ends_the_wait(tmp_path, monkeypatch, action):
    fake_ffmpeg(tmp_path, monkeypatch, action)
    out = tmp_path / "out"
    out.mkdir()
    code = """
        import sys, numpy as np
        from wan_core.video import write_mp4
        print("ready", flush=True)
        write_mp4(np.zeros((200, 4, 64, 96, 3), np.uint8), sys.argv[1], 16)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(out / "clip.mp4")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    while not list(out.iterdir()):
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=15)
    assert re.search(r"^KeyboardInterrupt", said, re.MULTILINE)
    assert left_behind(tmp_path) == [] and not list(out.iterdir())


def test_frames_that_change_their_size(tmp_path, monkeypatch, nothing_left, clip):
    fake_ffmpeg(tmp_path, monkeypatch, r"printf 'P6\n1 1\n255\nabcP6\n2 1\n255\nabcdef'")
    frames = iter_video(clip)
    assert np.array_equal(next(frames), [[[97, 98, 99]]])
    with pytest.raises(VideoError, match="change their size"):
        next(frames)
