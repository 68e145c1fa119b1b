"""Latents decoded straight into the output folder."""

import json
import os
from pathlib import Path

import comfy.utils
import folder_paths
import torch
from comfy.cli_args import args

from ...wan_core.errors import InputError
from ...wan_core.media.mp4 import check_output, write_mp4
from ...wan_core.media.pixels import unit_to_uint8
from ...wan_core.shapes import video_frames
from .vae import check_latents, stream_decode


def save_streams(
    vae, latents: torch.Tensor, fps: float, prefix: str, prompt, extra, audio=None
) -> list[tuple[Path, str]]:
    """Write each clip of `latents` (B, C, T, h, w) into the output folder; (path, subfolder) of each.

    Raises:
        InputError: a prefix that leaves the output folder, latents of another VAE.
        VideoError: a file cannot be written.
    """
    check_latents(vae, latents)
    stride = vae.spacial_compression_decode()
    height, width = (size * stride for size in latents.shape[3:])
    raw_bytes = 3 * video_frames(latents.shape[2]) * height * width
    metadata = {}
    if not args.disable_metadata:
        metadata = {key: json.dumps(value) for key, value in ({"prompt": prompt} | (extra or {})).items() if value}
    progress = comfy.utils.ProgressBar(latents.shape[0] * latents.shape[2])

    def chunks(clip):
        for frames in stream_decode(vae, clip):
            yield unit_to_uint8(frames.float().cpu().numpy())
            progress.update(1)

    made = []
    for clip in latents.split(1):
        path, subfolder = reserve(prefix, width, height)
        try:
            check_output(path, raw_bytes)
            sound = None if audio is None else (audio["waveform"][0], audio["sample_rate"])
            write_mp4(chunks(clip), path, fps, metadata, audio=sound)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        made.append((path, subfolder))
    return made


def reserve(prefix: str, width: int, height: int) -> tuple[Path, str]:
    """A path in the output folder that no other job has, taken by creating it, and its subfolder.

    Raises:
        InputError: a prefix that is too long or leaves the output folder.
    """
    if "\0" in prefix or any(len(os.fsencode(part)) > 200 for part in prefix.replace("\\", "/").split("/")):
        raise InputError(f"filename_prefix is {prefix[:40]!r}…", "a short name without NUL, such as video/wan22")
    try:
        root = folder_paths.get_output_directory()
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, root, width, height)
    except Exception as error:  # ComfyUI raises a bare Exception for a path outside its output folder
        raise InputError(f"filename_prefix is {prefix!r}", "a name inside the output folder") from error
    return _free(Path(folder), name, counter), subfolder


def _free(folder: Path, name: str, counter: int) -> Path:
    while True:
        path = folder / f"{name}_{counter:05}_.mp4"
        try:
            path.touch(exist_ok=False)
            return path
        except FileExistsError:
            counter += 1
