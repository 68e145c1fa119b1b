import pytest

from tests.support.frames import fake_ffmpeg
from wan_core.errors import VideoError
from wan_core.media.ffmpeg import feed, find_ffmpeg, options
from wan_core.media.mp4 import check_output


@pytest.mark.parametrize("script", ["exit 127", "echo broken >&2; exit 1", "exit 0"])
def test_a_broken_ffmpeg_is_found_before_any_work(tmp_path, monkeypatch, script):
    fake = tmp_path / "ffmpeg"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))
    with pytest.raises(VideoError, match=r"ffmpeg.*IMAGEIO_FFMPEG_EXE"):
        check_output(tmp_path / "clip.mp4")


def test_a_missing_ffmpeg_is_found_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "nothing"))
    with pytest.raises(VideoError, match="no ffmpeg can be run"):
        check_output(tmp_path / "clip.mp4")


def test_a_working_ffmpeg_is_tried_once(tmp_path, monkeypatch):
    fake = tmp_path / "ffmpeg"
    fake.write_text(f"#!/bin/sh\necho libx264\necho tried >>{tmp_path}/tries\n")
    fake.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))
    assert find_ffmpeg() == find_ffmpeg() == str(fake)
    assert (tmp_path / "tries").read_text() == "tried\n"
    fake.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(VideoError, match="exit code 1"):
        find_ffmpeg()  # another program has taken its place


def test_an_ffmpeg_that_lies_on_the_path_alone_is_found(tmp_path, monkeypatch):
    real = find_ffmpeg()
    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE", raising=False)
    monkeypatch.setattr("imageio_ffmpeg.__file__", str(tmp_path / "imageio_ffmpeg" / "__init__.py"))
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    with pytest.raises(VideoError, match="no ffmpeg can be run"):
        find_ffmpeg()
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "ffmpeg").symlink_to(real)
    assert find_ffmpeg() == str(tmp_path / "programs" / "ffmpeg")


def test_options_are_spelled_as_ffmpeg_wants_them():
    assert options({"c:v": "libx264", "crf": 10}) == ("-c:v", "libx264", "-crf", "10")


@pytest.mark.parametrize(
    "action, reason",
    [
        ("cat >/dev/null; exit 0", ""),
        ("cat >/dev/null; exit 3", "exit code 3"),
        ("exec <&-; echo one >&2; echo two >&2; exit 3", "one / two"),
        ("echo words >&2; kill -TERM $$", "words / killed by SIGTERM"),
    ],
)
def test_why_ffmpeg_ended(tmp_path, monkeypatch, action, reason):
    fake_ffmpeg(tmp_path, monkeypatch, action)
    assert feed(["out.mp4"], [bytes(2**20)] * 4) == reason
