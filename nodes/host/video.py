"""Latents decoded straight into the output folder."""

import json
import os
from datetime import datetime
from pathlib import Path

import comfy.utils
import folder_paths
import torch
from comfy.cli_args import args

from ...wan_core.errors import InputError, VideoError, quoted
from ...wan_core.media.mp4 import check_output, write_mp4
from ...wan_core.media.part import remove
from ...wan_core.media.pixels import unit_to_uint8
from ...wan_core.shapes import video_frames
from .checks import check_vae_latents
from .prefix import fill_in
from .vae import stream_decode


def save_clips(
    vae, latents: torch.Tensor, fps: float, prefix: str, prompt: dict | None, extra: dict | None, audio=None
) -> list[tuple[Path, str]]:
    """Write each clip of `latents` (B, C, T, h, w) into the output folder; (path, subfolder) of each.

    Args:
        prefix: of the file's name; may hold placeholders, see `prefix.fill_in`.
        prompt, extra: the graph and the canvas file, kept as metadata in every clip.
        audio: ComfyUI's AUDIO; its first clip is used.
    Raises:
        InputError: a prefix that leaves the output folder, latents of another VAE.
        VideoError: a file cannot be written. NumericalError: the VAE returned NaN or infinity.
    """
    check_vae_latents(vae, latents)
    stride = vae.spacial_compression_decode()
    height, width = (size * stride for size in latents.shape[3:])
    raw_bytes = 3 * video_frames(latents.shape[2]) * height * width
    graphs = {} if args.disable_metadata else {"prompt": prompt} | (extra or {})
    metadata = {key: json.dumps(graph) for key, graph in graphs.items() if graph}
    sound = None if audio is None else (audio["waveform"][0], audio["sample_rate"])
    progress = comfy.utils.ProgressBar(latents.shape[0] * latents.shape[2])

    def chunks(clip: torch.Tensor):
        for frames in stream_decode(vae, clip):
            yield unit_to_uint8(frames.float().cpu().numpy())
            progress.update(1)

    prefix = fill_in(prefix, prompt, datetime.now())
    saved = []
    for clip in latents.split(1):
        path, subfolder = reserve(prefix, width, height)
        try:
            check_output(path, raw_bytes)
            write_mp4(chunks(clip), path, fps, metadata, audio=sound)
        except BaseException:
            remove(path)
            raise
        saved.append((path, subfolder))
    return saved


def reserve(prefix: str, width: int, height: int) -> tuple[Path, str]:
    """A path in the output folder that no other job has, taken by creating it, and its subfolder.

    Raises:
        InputError: a prefix that is too long or leaves the output folder. VideoError: the folder cannot be written to.
    """
    if "\0" in prefix or any(len(os.fsencode(part)) > 200 for part in prefix.replace("\\", "/").split("/")):
        raise InputError(f"filename_prefix is {quoted(prefix, 40)}", "a short name without NUL, such as video/wan22")
    try:
        root = folder_paths.get_output_directory()
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, root, width, height)
        return _free(Path(folder), name, counter), subfolder
    except OSError as error:
        raise VideoError(
            f"nothing can be written to {root} as {prefix} ({error.strerror})",
            "a folder that can be written to",
            "Choose another filename_prefix",
        ) from error
    except Exception as error:  # ComfyUI raises a bare Exception for a path outside its output folder
        raise InputError(f"filename_prefix is {quoted(prefix)}", "a name inside the output folder") from error


def _free(folder: Path, name: str, counter: int) -> Path:
    while True:
        path = folder / f"{name}_{counter:05}_.mp4"
        try:
            path.touch(exist_ok=False)
            return path
        except FileExistsError:
            counter += 1
