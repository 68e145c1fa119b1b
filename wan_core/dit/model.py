"""The Wan diffusion transformer: embed → blocks → head."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..config import DiTConfig
from ..errors import InputError
from ..ops import Attention, in_float32, sdpa
from .cache import Grid, RunCache, recall
from .checks import check_inputs, check_streams
from .layers import Block, CrossAttnKV, CrossKeys, Head, ImageEmbedding, Modulation, folded_scores
from .rope import rope_table
from .vace import VaceBlock, VaceState


class WanDiT(nn.Module):
    """Velocity prediction for T2V, I2V, TI2V, VACE, Fun-Control and Bernini models.

    Args:
        config: sizes; channels and branches decide what the model takes besides a text.
        ops: namespace of layer factories, see `wan_core.ops`.
        attention: (q, k, v, bias) → out, shapes as in `wan_core.ops.sdpa`.
        block, vace_block: classes of the blocks; a host may bring subclasses.
    Source: Wan2.2 wan/modules/model.py WanModel; Wan2.1 wan/modules/model.py, vace_model.py; VideoX-Fun's ref_conv;
    Bernini-R's streams of context.
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
        if config.image_dim:
            self.img_emb = ImageEmbedding(config, ops)
        if config.reference_channels:
            patch = config.patch[1:]
            self.ref_conv = ops.Conv2d(config.reference_channels, dim, kernel_size=patch, stride=patch)
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
        context_latents: Sequence[Tensor] = (),
        reference_latent: Tensor | None = None,
        image_embeds: Tensor | None = None,
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
            context_latents: clips and images, each (B, C, T, H, W) of a size of its own, that a Bernini model edits or
                takes things from.
            reference_latent: (B, z, 1, H, W) image of a Fun-Control model, as large as a frame of x.
            image_embeds: (B, n, image_dim) CLIP's tokens of an image, for a model with an image branch. None: the
                branch attends to the text, as in ComfyUI.
            Of y, a context, a reference and an image one may serve a whole batch.
        Returns:
            (B, C_out, T, H, W) float32.
        Raises:
            InputError: shapes that do not fit this model.
        """
        self._check(x, t, text, y, vace)
        check_streams(self.config, x, context_latents, reference_latent, image_embeds)
        cache = RunCache() if cache is None else cache
        tokens, grid = self.embed(x if y is None else torch.cat((x, y.to(x).expand(len(x), -1, -1, -1, -1)), dim=1))
        controls = self.embed_vace(tokens, vace, vace_scale)
        tokens, grids, video = self.join(tokens, grid, reference_latent, context_latents)
        e, mod = self._time(t, cache)
        everywhere = mod.padded(video.start, tokens.shape[1] - video.stop)
        keys, rope = self._keys(text, image_embeds, len(x), cache), self._rope(grids, x.device, cache)
        tokens = self.run_blocks(tokens, everywhere, rope, keys, controls)
        return self.unpatchify(self.head(tokens[:, video], e, mod.index), grid)

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

    def _keys(self, text: Tensor, image: Tensor | None, batch: int, cache: RunCache) -> CrossKeys:
        keys = recall(cache.text, text, lambda: self.embed_text(text))
        if not self.config.image_dim:
            return keys
        images = recall(cache.images, text if image is None else image, lambda: self.embed_image(text, image))
        return keys._replace(images=[kept.for_batch(batch) for kept in images])

    def _rope(self, grids: tuple[Grid, ...], device: torch.device, cache: RunCache) -> Tensor:
        if cache.rope is None or cache.rope[0] != (grids, device):
            tables = [self.rope(grid, device, source) for source, grid in enumerate(grids)]
            cache.rope = (grids, device), tables[0] if len(tables) == 1 else torch.cat(tables)
        return cache.rope[1]

    def embed(self, x: Tensor) -> tuple[Tensor, Grid]:
        """(B, C, T, H, W) → tokens (B, L, D) float32 and their grid."""
        x = self.patch_embedding(x.to(self.compute_dtype))  # (B, D, t, h, w)
        t, h, w = x.shape[2:]
        return x.flatten(2).transpose(1, 2).float().contiguous(), (t, h, w)

    def join(
        self, video: Tensor, grid: Grid, reference: Tensor | None, contexts: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Grid, ...], slice]:
        """Reference, video (B, L, D) and contexts as one sequence, the grids of its streams, and where the video is.

        A reference counts as a frame of the video, the one at position 0.
        """
        parts, grids, start = [video], [grid], 0
        if reference is not None:
            tokens = self.ref_conv(reference.to(self.compute_dtype).squeeze(2)).flatten(2).transpose(1, 2)
            parts, grids, start = [tokens.float(), video], [(grid[0] + 1, *grid[1:])], tokens.shape[1]
        for context in contexts:
            tokens, size = self.embed(context)
            parts.append(tokens)
            grids.append(size)
        where = slice(start, start + video.shape[1])
        if len(parts) > 1:
            video = torch.cat([part.expand(len(video), -1, -1) for part in parts], dim=1)
        return video, tuple(grids), where

    def rope(self, grid: Grid, device, source: int = 0) -> Tensor:
        """Rotary table (L, head_dim / 2) of the tokens of a stream, see `rope_table`."""
        return rope_table([torch.arange(size) for size in grid], self.config.head_dim, device, source)

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

    def embed_text(self, text: Tensor) -> CrossKeys:
        """Cross-attention keys and values of every block."""
        tokens, bias = self._text_tokens(text)
        vace_blocks = self.vace_blocks if self.config.vace_layers else ()
        return CrossKeys(
            [block.cross_attn.text_keys(tokens, bias) for block in cast(Iterable[Block], self.blocks)],
            [block.cross_attn.text_keys(tokens, bias) for block in cast(Iterable[Block], vace_blocks)],
            [None] * len(self.blocks),
        )

    def embed_image(self, text: Tensor, image: Tensor | None) -> list[CrossAttnKV]:
        """Keys and values of every block's image branch: of an image (B, n, image_dim) or, without one, of the text.

        The latter is what ComfyUI does; the official code always has an image.
        """
        tokens, bias = self._text_tokens(text) if image is None else (self.img_emb(image, self.compute_dtype), None)
        return [block.cross_attn.image_keys(tokens, bias) for block in cast(Iterable[Block], self.blocks)]

    def _text_tokens(self, text: Tensor) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, n, D) of a text, its padding rows folded together, and the bias that makes up for it."""
        n, padding = text.shape[1], self.config.text_len - text.shape[1]
        text = text.to(self.compute_dtype)
        bias = None
        if padding > 0:
            folded = folded_scores(padding, self.compute_dtype)
            text = F.pad(text, (0, 0, 0, len(folded)))
            bias = F.pad(folded, (n, 0)).to(text.device).unsqueeze(0)
        return self.text_embedding(text), bias

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
        self, x: Tensor, mod: Modulation, rope: Tensor, keys: CrossKeys, controls: list[VaceState]
    ) -> Tensor:
        """Tokens (B, L, D) through all blocks. Each VACE residual is made just before it is added; none is stored."""
        branch = {layer: n for n, layer in enumerate(self.config.vace_layers)}
        for i in range(len(self.blocks)):
            x = self.run_block(i, x, mod, rope, keys)
            if i in branch:
                block, text = cast(VaceBlock, self.vace_blocks[branch[i]]), keys.vace_blocks[branch[i]]
                for c, (tokens, scale) in enumerate(controls):
                    tokens, residual = block.vace_residual(tokens, mod, rope, text)
                    controls[c] = VaceState(tokens, scale)
                    x = x + residual * scale
        return x

    def run_block(self, i: int, x: Tensor, mod: Modulation, rope: Tensor, keys: CrossKeys) -> Tensor:
        """One main block."""
        return self.blocks[i](x, mod, rope, keys.blocks[i], keys.images[i])

    def _check(self, x: Tensor, t: Tensor, text: Tensor, y: Tensor | None, vace) -> None:
        check_inputs(self.config, x, t, text, y, vace)

    def unpatchify(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, L, patch values) → (B, C_out, T, H, W); within a patch the channel varies fastest."""
        (t, h, w), (p, q, r) = grid, self.config.patch
        return rearrange(x, "b (t h w) (p q r c) -> b c (t p) (h q) (w r)", t=t, h=h, w=w, p=p, q=q, r=r).float()


def timestep_features(t: Tensor, dim: int) -> Tensor:
    """Sinusoidal features (U, dim) of timesteps (U,): cosines first, angles in float64, returned in float32.

    Source: Wan2.2 wan/modules/model.py sinusoidal_embedding_1d.
    """
    half = dim // 2
    ladder = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=t.device) / half)
    angles = torch.outer(t.double(), ladder)
    return torch.cat((angles.cos(), angles.sin()), dim=1).float()
