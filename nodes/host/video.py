"""A latent decoded straight into the output folder."""

import json
from pathlib import Path

import comfy.utils
import folder_paths
import torch
from comfy.cli_args import args

from ...wan_core.errors import InputError
from ...wan_core.shapes import video_frames
from ...wan_core.video import check_output, unit_to_uint8, write_mp4
from .vae import stream_decode


def save_stream(vae, latents: torch.Tensor, fps: float, prefix: str, root: str, prompt, extra, audio=None) -> tuple[Path, str]:
    """Write the first clip of `latents` and return (path, subfolder).

    Raises:
        InputError: a prefix that leaves the output folder, latents of another VAE.
        VideoError: the file cannot be written.
    """
    if "\0" in prefix or len(prefix) > 200:
        raise InputError(f"filename_prefix has {len(prefix)} characters or a NUL", "a short name, such as video/wan22")
    try:
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, root)
    except Exception as error:  # ComfyUI raises a bare Exception for a path outside its output folder
        raise InputError(f"filename_prefix is {prefix!r}", "a name inside the output folder") from error
    path = _free(Path(folder), name, counter)
    check_output(path, raw_bytes=3 * video_frames(latents.shape[2]) * latents.shape[3] * latents.shape[4] * 64)
    metadata = {}
    if not args.disable_metadata:
        metadata = {key: json.dumps(value) for key, value in ({"prompt": prompt} | (extra or {})).items() if value}
    progress = comfy.utils.ProgressBar(latents.shape[2])

    def chunks():
        for frames in stream_decode(vae, latents):
            yield unit_to_uint8(frames.float().cpu().numpy())
            progress.update(1)

    try:
        write_mp4(chunks(), path, fps, metadata, audio=None if audio is None else (audio["waveform"][0], audio["sample_rate"]))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path, subfolder


def _free(folder: Path, name: str, counter: int) -> Path:
    """A path that no other job has, taken by creating it."""
    while True:
        path = folder / f"{name}_{counter:05}_.mp4"
        try:
            path.touch(exist_ok=False)
            return path
        except FileExistsError:
            counter += 1
