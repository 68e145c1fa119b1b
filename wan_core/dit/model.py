"""The Wan diffusion transformer: embed → blocks → head."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..config import DiTConfig
from ..errors import InputError
from ..ops import Attention, in_float32, sdpa
from .layers import Block, Head, Modulation, TextCache, folded_scores
from .rope import rope_table
from .vace import VaceBlock, VaceState

Grid = tuple[int, int, int]  # tokens along t, h and w


@dataclass
class RunCache:
    """What a model keeps between the calls of one sampling run. Texts and timesteps are recognised by identity."""

    text: list[tuple[Tensor, TextCache]] = field(default_factory=list)  # of every prompt so far
    rope: tuple[tuple[Grid, torch.device], Tensor] | None = None  # of the last grid
    time: tuple[Tensor, tuple[Tensor, Modulation]] | None = None  # of the last timesteps
    time_rows: dict[float, tuple[Tensor, Tensor]] = field(default_factory=dict)  # timestep → e (D,), modulation (6, D)


class WanDiT(nn.Module):
    """Velocity prediction for T2V, I2V, TI2V and VACE models.

    Args:
        config: sizes; `in_channels` and `vace_layers` decide which of the four it is.
        ops: namespace of layer factories, see `wan_core.ops`.
        attention: (q, k, v, bias) → out, shapes as in `wan_core.ops.sdpa`.
        block, vace_block: classes of the blocks; a host may bring subclasses.
    Source: Wan2.2 wan/modules/model.py WanModel; Wan2.1 wan/modules/vace_model.py.
    """

    def __init__(
        self,
        config: DiTConfig,
        ops=nn,
        attention: Attention = sdpa,
        block: type[Block] = Block,
        vace_block: type[VaceBlock] = VaceBlock,
    ):
        super().__init__()
        self.config = config
        dim = config.dim
        self.patch_embedding = ops.Conv3d(config.in_channels, dim, kernel_size=config.patch, stride=config.patch)
        self.text_embedding = nn.Sequential(ops.Linear(config.text_dim, dim), nn.GELU("tanh"), ops.Linear(dim, dim))
        self.time_embedding = nn.Sequential(ops.Linear(config.freq_dim, dim), nn.SiLU(), ops.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), ops.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(block(config, ops, attention) for _ in range(config.layers))
        self.head = Head(config, ops)
        if config.vace_layers:
            self.vace_patch_embedding = ops.Conv3d(
                config.vace_channels, dim, kernel_size=config.patch, stride=config.patch
            )
            self.vace_blocks = nn.ModuleList(
                vace_block(config, ops, attention, first=n == 0) for n in range(len(config.vace_layers))
            )

    @property
    def compute_dtype(self) -> torch.dtype:
        """What the branches of the blocks compute in."""
        return self.patch_embedding.weight.dtype

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        text: Tensor,
        y: Tensor | None = None,
        vace: Tensor | Sequence[Tensor] | None = None,
        vace_scale: float | Sequence[float] = 1.0,
        cache: RunCache | None = None,
    ) -> Tensor:
        """Velocity of noisy latents.

        Args:
            x: (B, C, T, H, W) latents, H and W even.
            t: (B,) or, for TI2V, (B, L) timesteps in 0..1000; L tokens in (t, h, w) order. One row serves a batch.
            text: (B, n, text_dim) encoded prompt, n <= text_len; the padding to text_len is implied.
            y: (B, C', T, H, W) condition of an I2V model, joined to x's channels.
            vace: (B, 96, T, H, W) control of a VACE model, or a list of them with one scale each.
            vace_scale: strength of the control.
            cache: kept by the caller for one sampling run, see `session`; None: nothing is kept.
        Returns:
            (B, C_out, T, H, W) float32.
        Raises:
            InputError: shapes that do not fit this model.
        """
        self._check(x, t, text, y, vace)
        cache = RunCache() if cache is None else cache
        tokens, grid = self.embed(x if y is None else torch.cat((x, y.to(x).expand(len(x), -1, -1, -1, -1)), dim=1))
        e, mod = self._time(t, cache)
        keys, rope = self._text(text, cache), self._rope(grid, x.device, cache)
        controls = self.embed_vace(tokens, vace, vace_scale)
        tokens = self.run_blocks(tokens, mod, rope, keys, controls)
        return self.unpatchify(self.head(tokens, e, mod.index), grid)

    def session(self) -> Callable[..., Tensor]:
        """This model for one sampling run: called as the model is, it keeps rotary tables, time embeddings, text
        projections and cross-attention keys between calls.

        Make a new one when the weights change, and drop it after the run.
        """
        return functools.partial(self, cache=RunCache())

    def _time(self, t: Tensor, cache: RunCache) -> tuple[Tensor, Modulation]:
        if cache.time is None or cache.time[0] is not t:
            cache.time = t, self.embed_time(t, cache)
        return cache.time[1]

    def _text(self, text: Tensor, cache: RunCache) -> TextCache:
        kept = next((kept for known, kept in cache.text if known is text), None)
        if kept is None:
            kept = self.embed_text(text)
            cache.text.append((text, kept))
        return kept

    def _rope(self, grid: Grid, device: torch.device, cache: RunCache) -> Tensor:
        if cache.rope is None or cache.rope[0] != (grid, device):
            cache.rope = (grid, device), self.rope(grid, device)
        return cache.rope[1]

    def embed(self, x: Tensor) -> tuple[Tensor, Grid]:
        """(B, C, T, H, W) → tokens (B, L, D) float32 and their grid."""
        x = self.patch_embedding(x.to(self.compute_dtype))  # (B, D, t, h, w)
        t, h, w = x.shape[2:]
        return x.flatten(2).transpose(1, 2).float().contiguous(), (t, h, w)

    def rope(self, grid: Grid, device) -> Tensor:
        """Rotary table (L, head_dim / 2) of the tokens."""
        return rope_table([torch.arange(size, device="cpu") for size in grid], self.config.head_dim, device)

    def embed_time(self, t: Tensor, cache: RunCache | None = None) -> tuple[Tensor, Modulation]:
        """Embedding (U, D) of the distinct timesteps in t and the blocks' modulation, each computed once in a run."""
        known = RunCache().time_rows if cache is None else cache.time_rows
        values, index = t.reshape(len(t), -1).unique(return_inverse=True)  # (U,), (B, 1 or L)
        timesteps = values.tolist()
        new = [timestep for timestep in timesteps if timestep not in known]
        if new:
            e = in_float32(self.time_embedding, timestep_features(values.new_tensor(new), self.config.freq_dim))
            rows = in_float32(self.time_projection, e).unflatten(-1, (6, -1))  # (U, 6, D)
            known.update(zip(new, zip(e, rows, strict=True), strict=True))
        e, rows = (torch.stack(kept) for kept in zip(*(known[timestep] for timestep in timesteps), strict=True))
        return e, Modulation(rows, index if len(values) > 1 else index[:, :1])

    def embed_text(self, text: Tensor) -> TextCache:
        """Cross-attention keys and values of every block; the padding rows are folded together."""
        n, padding = text.shape[1], self.config.text_len - text.shape[1]
        text = text.to(self.compute_dtype)
        bias = None
        if padding > 0:
            folded = folded_scores(padding, self.compute_dtype)
            text = F.pad(text, (0, 0, 0, len(folded)))
            bias = F.pad(folded, (n, 0)).to(text.device).unsqueeze(0)
        text = self.text_embedding(text)
        vace_blocks = self.vace_blocks if self.config.vace_layers else ()
        return TextCache(
            [block.cross_attn.text_keys(text, bias) for block in cast(Iterable[Block], self.blocks)],
            [block.cross_attn.text_keys(text, bias) for block in cast(Iterable[Block], vace_blocks)],
        )

    def embed_vace(self, x: Tensor, vace, scale) -> list[VaceState]:
        """Each VACE condition as it enters the control branch, joined with the video tokens x (B, L, D)."""
        if vace is None:
            return []
        vace = [vace] if isinstance(vace, Tensor) else list(vace)
        scales = torch.as_tensor(scale).flatten().tolist()
        scales = scales * len(vace) if len(scales) == 1 else scales
        if len(scales) != len(vace):
            raise InputError(f"{len(vace)} VACE conditions with {len(scales)} scales", "one scale for each")
        controls, first = [], cast(VaceBlock, self.vace_blocks[0])
        for condition, strength in zip(vace, scales, strict=True):
            tokens = self.vace_patch_embedding(condition.to(self.compute_dtype)).flatten(2).transpose(1, 2)
            controls.append(VaceState(first.join(tokens, x, self.compute_dtype), strength))
        return controls

    def run_blocks(
        self, x: Tensor, mod: Modulation, rope: Tensor, text: TextCache, controls: list[VaceState]
    ) -> Tensor:
        """Tokens (B, L, D) through all blocks. Each VACE residual is made just before it is added; none is stored."""
        branch = {layer: n for n, layer in enumerate(self.config.vace_layers)}
        for i in range(len(self.blocks)):
            x = self.run_block(i, x, mod, rope, text)
            if i in branch:
                block, keys = cast(VaceBlock, self.vace_blocks[branch[i]]), text.vace_blocks[branch[i]]
                for c, (tokens, scale) in enumerate(controls):
                    tokens, residual = block.vace_residual(tokens, mod, rope, keys)
                    controls[c] = VaceState(tokens, scale)
                    x = x + residual * scale
        return x

    def run_block(self, i: int, x: Tensor, mod: Modulation, rope: Tensor, text: TextCache) -> Tensor:
        """One main block."""
        return self.blocks[i](x, mod, rope, text.blocks[i])

    def unpatchify(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, L, patch values) → (B, C_out, T, H, W); within a patch the channel varies fastest."""
        (t, h, w), (p, q, r) = grid, self.config.patch
        return rearrange(x, "b (t h w) (p q r c) -> b c (t p) (h q) (w r)", t=t, h=h, w=w, p=p, q=q, r=r).float()

    def _check(self, x, t, text, y, vace) -> None:
        config = self.config
        for name, tensor in (("x", x), ("y", y)):
            if tensor is not None and tensor.ndim != 5:
                raise InputError(f"{name} of shape {tuple(tensor.shape)}", "a video latent (B, C, T, H, W)")
        found = x.shape[1] + (0 if y is None else y.shape[1])
        if found != config.in_channels:
            raise InputError(
                f"{found} input channels",
                f"{config.in_channels} for this model",
                "Image-to-video models take y= besides x; text-to-video models do not",
            )
        if y is not None and (y.shape[2:] != x.shape[2:] or len(y) not in (1, len(x))):
            raise InputError(
                f"y of shape {tuple(y.shape)} with x of shape {tuple(x.shape)}",
                "equal (T, H, W), and one y or one for each",
            )
        if any(size % patch for size, patch in zip(x.shape[2:], config.patch, strict=True)):
            raise InputError(f"latents of size {tuple(x.shape[2:])}", f"multiples of the patch {config.patch}")
        tokens = math.prod(size // patch for size, patch in zip(x.shape[2:], config.patch, strict=True))
        if t.ndim == 0 or len(t) not in (1, len(x)) or tuple(t.shape[1:]) not in ((), (tokens,)):
            raise InputError(f"t of shape {tuple(t.shape)}", f"({len(x)},) or ({len(x)}, {tokens})")
        if text.ndim != 3 or text.shape[1] > config.text_len or text.shape[2] != config.text_dim:
            raise InputError(
                f"text of shape {tuple(text.shape)}", f"(B, n, {config.text_dim}) with n at most {config.text_len}"
            )
        if vace is not None and not config.vace_layers:
            raise InputError("a VACE condition for a model without a VACE branch", "a VACE checkpoint")
        for control in () if vace is None else [vace] if isinstance(vace, Tensor) else vace:
            if control.ndim != 5 or control.shape[1] != config.vace_channels or control.shape[2:] != x.shape[2:]:
                expected = (len(x), config.vace_channels, *x.shape[2:])
                raise InputError(f"a VACE condition of shape {tuple(control.shape)}", f"{expected}")


def timestep_features(t: Tensor, dim: int) -> Tensor:
    """Sinusoidal features (U, dim) of timesteps (U,): cosines first, angles in float64, returned in float32.

    Source: Wan2.2 wan/modules/model.py sinusoidal_embedding_1d.
    """
    half = dim // 2
    ladder = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angles = torch.outer(t.double(), ladder)
    return torch.cat((angles.cos(), angles.sin()), dim=1).float()
