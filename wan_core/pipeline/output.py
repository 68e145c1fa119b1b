"""A generation: latents that are decoded when somebody wants frames."""

from collections.abc import Generator, Sequence
from contextlib import closing
from numbers import Integral
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, quoted
from ..media.mp4 import write_mp4
from ..media.pixels import to_uint8
from ..memory import typed_oom
from .request import Request


class WanOutput:
    """What a pipeline made.

    Attributes:
        latents: (B, z, T', h, w) normalised latents, float32.
        request: every number that was used, seeds included.
    """

    def __init__(self, pipeline, request: Request, latents: Tensor):
        self.pipeline = pipeline  # for its VAE, and where that runs
        self.request, self.latents = request, latents
        self._decoded: dict[int, np.ndarray] = {}

    @property
    def frames(self) -> "Frames":
        """`frames[k]` is sample k as a (T, H, W, 3) float32 array in [0, 1]."""
        return Frames(self)

    @torch.no_grad()
    def chunks(self, sample: int = 0) -> Generator[Tensor, None, None]:
        """Sample k as it comes from the decoder: (3, 1, H, W) in [-1, 1], then (3, 4, H, W) at a time.

        Raises:
            NumericalError: the VAE returned NaN or infinity. OutOfMemory: the device ran out of memory.
        """
        sample, offloader, vae = self._chosen(sample), self.pipeline.offloader, self.pipeline.vae
        try:
            with typed_oom():
                chunks = offloader.load(vae).decode_chunks(self.latents[sample : sample + 1])
                yield from map(itemgetter(0), chunks)  # a loop would keep each chunk while the next is made
        finally:
            if offloader.exclusive:
                offloader.offload(vae)

    @typed_oom()
    def decode(self, sample: int = 0) -> np.ndarray:
        """Sample k as a (T, H, W, 3) float32 array in [0, 1]; decoded once and kept.

        Raises:
            NumericalError: the VAE returned NaN or infinity. OutOfMemory: the device ran out of memory.
        """
        sample = self._chosen(sample)
        if sample not in self._decoded:
            shape = self.request.shape
            clip = np.empty((shape.frames, shape.height, shape.width, 3), np.float32)
            start = 0
            with closing(self.chunks(sample)) as chunks:
                for chunk in chunks:
                    frames = ((chunk + 1) / 2).permute(1, 2, 3, 0).cpu().numpy()
                    clip[start : start + len(frames)] = frames
                    start += len(frames)
            self._decoded[sample] = clip
        return self._decoded[sample]

    @typed_oom()
    def save(self, path: str | Path, fps: float | None = None, sample: int = 0) -> str:
        """Decode straight into an mp4, a few frames at a time, and return its path.

        The prompt, the seed and the settings are stored in the file's metadata.
        Raises:
            InputError: no such folder, or not an mp4's name.
            VideoError: it cannot be written; the latents are still here to try again.
            NumericalError: the VAE returned NaN or infinity. OutOfMemory: the device ran out of memory.
        """
        rate = self.request.fps if fps is None else fps
        with closing(self.chunks(sample)) as chunks:
            write_mp4(map(to_uint8, chunks), path, rate, self.request.metadata(self._chosen(sample)))
        return str(path)

    def _chosen(self, sample: int) -> int:
        """The number of a sample; negative ones count from the end. IndexError: there is no such one."""
        if not isinstance(sample, Integral):
            raise InputError(f"sample is {quoted(sample)}", "a whole number")
        return range(len(self.latents))[int(sample)]


class Frames(Sequence):
    """The clips of an output; each is decoded when it is first asked for."""

    def __init__(self, output: WanOutput):
        self._output = output

    def __len__(self) -> int:
        return len(self._output.latents)

    def __getitem__(self, sample):
        chosen = range(len(self))[sample]
        return [self._output.decode(k) for k in chosen] if isinstance(chosen, range) else self._output.decode(chosen)
