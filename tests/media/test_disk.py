"""Disks that are full and names that are refused: typed, and a clip that is whole is kept."""

import errno
import os
import re
from pathlib import Path

import pytest
import torch

from tests.support.disks import immutable, small_disk
from tests.support.frames import noise
from wan_core.errors import VideoError
from wan_core.media.mp4 import write_mp4
from wan_core.media.read import read_metadata, read_video

LONG = {"prompt": "words " * 40_000}
SOUND = (torch.rand(2, 96_000) * 2 - 1, 48_000)


def told(error) -> Path:
    return Path(re.search(r"The clip is kept.* as (.*): rename it", str(error))[1])


def full(folder):
    (folder / "other").write_bytes(bytes(os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize))
    return folder


def missing(folder):
    return folder / "nothing"


@pytest.mark.parametrize("unusable", [full, missing])
@pytest.mark.parametrize("audio", [None, SOUND])
def test_temporary_files_have_no_room(tmp_path, monkeypatch, unusable, audio):
    out = tmp_path / "out"
    out.mkdir()
    with small_disk(tmp_path / "temporary", 1 << 16) as disk:
        monkeypatch.setattr("tempfile.tempdir", str(unusable(disk)))
        assert write_mp4([noise(9)], out / "clip.mp4", 16, LONG, audio) == 9
    assert [file.name for file in out.iterdir()] == ["clip.mp4"]
    assert read_metadata(out / "clip.mp4")["prompt"] == LONG["prompt"] and len(read_video(out / "clip.mp4")) == 9


def test_no_room_for_the_notes_anywhere(tmp_path, monkeypatch):
    with small_disk(tmp_path / "out", 3 << 20) as out:
        monkeypatch.setattr("tempfile.tempdir", str(out))
        with pytest.raises(VideoError, match=r"metadata cannot be stored.*No space left.*Free some space"):
            write_mp4([noise(9)], out / "clip.mp4", 16, {"prompt": "words " * 1_000_000})
        assert not list(out.iterdir())


def test_no_room_for_the_frames(tmp_path):
    with small_disk(tmp_path / "out", 3 << 20) as out:
        with pytest.raises(VideoError, match=r"No space left.*Free some space"):
            write_mp4((noise(4, 256, 256, seed=i) for i in range(40)), out / "clip.mp4", 16)
        assert not list(out.iterdir())


def test_no_room_for_the_sound_keeps_the_clip(tmp_path):
    frames = noise(32, 256, 256)
    write_mp4([frames], tmp_path / "silent.mp4", 16, {"seed": "7"})
    size = (tmp_path / "silent.mp4").stat().st_size
    with small_disk(tmp_path / "out", size * 3 // 2) as out:
        with pytest.raises(VideoError, match=r"no space for the sound.*No space left.*kept without its sound") as error:
            write_mp4([frames], out / "clip.mp4", 16, {"seed": "7"}, SOUND)
        assert list(out.iterdir()) == [out / "clip.mp4.part"] == [told(error.value)]
        assert (out / "clip.mp4.part").read_bytes() == (tmp_path / "silent.mp4").read_bytes()


@pytest.mark.parametrize("audio", [None, SOUND])
def test_a_file_that_cannot_be_replaced_keeps_both_clips(tmp_path, audio):
    path = tmp_path / "clip.mp4"
    write_mp4([noise(3)], path, 16)
    with immutable(path), pytest.raises(VideoError, match=r"cannot be written or replaced .*not permitted") as error:
        write_mp4([noise(9)], path, 16, audio=audio)
    assert len(read_video(path)) == 3
    assert len(read_video(told(error.value))) == 9
    assert set(tmp_path.iterdir()) == {path, told(error.value)}


def test_a_name_that_a_folder_takes_meanwhile_keeps_the_clip(tmp_path):
    path = tmp_path / "clip.mp4"

    def frames():
        yield noise(4)
        path.mkdir()
        yield noise(5)

    with pytest.raises(VideoError, match="cannot be written or replaced") as error:
        write_mp4(frames(), path, 16)
    assert len(read_video(told(error.value))) == 9


def test_a_disk_that_does_not_take_the_last_bytes_keeps_the_clip(tmp_path, monkeypatch):
    def refused(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(VideoError, match="Input/output error") as error:
        write_mp4([noise(9)], tmp_path / "clip.mp4", 16)
    assert len(read_video(told(error.value))) == 9
