"""Frames to encode, and an ffmpeg that misbehaves."""

import imageio_ffmpeg
import numpy as np


def noise(frames, height=64, width=96, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)


def fake_ffmpeg(tmp_path, monkeypatch, action):
    """The real ffmpeg for probing, and `action` in its place when it is asked to encode."""
    fake = tmp_path / "ffmpeg"
    fake.write_text(
        f'#!/bin/sh\ncase "$*" in *-encoders*) exec {imageio_ffmpeg.get_ffmpeg_exe()} "$@";; esac\n{action}\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))
