"""Our transformer under ComfyUI's memory management, with the hooks that its ecosystem uses."""

import functools
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple

import comfy.ldm.common_dit
import comfy.model_management
import comfy.patcher_extension
import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import nn

from ...wan_core.config import DiTConfig
from ...wan_core.dit import WanDiT
from ...wan_core.dit.layers import Block, Modulation, modulate
from ...wan_core.dit.rope import rope_table
from ...wan_core.ops import in_float32
from .conditions import check_others


class ForwardOptions(NamedTuple):
    """What ComfyUI says for one forward pass."""

    options: dict  # its transformer_options
    x: torch.Tensor  # what it goes through the patch embedding as
    start: int  # tokens before the video's

    @property
    def frame(self) -> int:
        """Tokens of a frame."""
        _, height, width = self.options["grid_sizes"]
        return height * width


_forward_options: ContextVar[ForwardOptions] = ContextVar("wan22_forward_options")


class HostDiTOps:
    """ComfyUI's layer factories, constructed on its device and in its dtype."""

    def __init__(self, operations, **where):
        self.Linear = functools.partial(operations.Linear, **where)
        self.Conv2d = functools.partial(operations.Conv2d, **where)
        self.Conv3d = functools.partial(operations.Conv3d, **where)
        self.LayerNorm = functools.partial(operations.LayerNorm, **where)
        self.RMSNorm = functools.partial(operations.RMSNorm, **where)
        self.Embedding = functools.partial(operations.Embedding, **where)


class HostBlock(Block):
    """The block, with the patches that people set on what comes after cross-attention."""

    def forward(self, x, mod, rope, text, image=None):
        i, dtype = mod.index, text.k.dtype
        shift1, scale1, gate1, shift2, scale2, gate2 = mod.parts(self.modulation)
        x = x + gate1[i] * self.self_attn(modulate(self.norm1(x), shift1[i], scale1[i]).to(dtype), rope)
        x = x + self.cross_attn(in_float32(self.norm3, x).to(dtype), text, image)
        options = _forward_options.get().options
        for patch in options.get("patches", {}).get("attn2_patch", ()):
            x = patch({"x": x, "transformer_options": options})
        return x + gate2[i] * self.ffn(modulate(self.norm2(x), shift2[i], scale2[i]).to(dtype))


@dataclass(frozen=True)
class HostModulation(Modulation):
    """Time modulation, and the embedding that it is made of, which patches are given."""

    e: torch.Tensor  # (U, D)


class HostDiT(WanDiT):
    """WanDiT as ComfyUI calls it.

    Wrappers around the whole model, block replacements, block and attention patches, rotary options and attention
    overrides are honoured as the native Wan model honours them.
    """

    compute_dtype = property(lambda self: _forward_options.get().x.dtype)
    dim = property(lambda self: self.config.dim)  # by which nodes tell a Wan model

    def __init__(self, config: DiTConfig, device=None, dtype=None, operations=None):
        super().__init__(config, HostDiTOps(operations, device=device, dtype=dtype), attention, HostBlock)
        self.dtype = dtype
        for block in (*self.blocks, *getattr(self, "vace_blocks", ())):
            block.self_attn.attention = self_attention
            block.cross_attn.image_attention = image_attention
        for module in self.modules():
            for name in module._parameters.keys() & {"modulation", "emb_pos"}:  # which no factory makes
                setattr(module, name, nn.Parameter(getattr(module, name).to(device, dtype), requires_grad=False))

    def forward(self, x, timestep, context, clip_fea=None, time_dim_concat=None, transformer_options=None, **kwargs):
        """The native model's signature; caching nodes rely on the order of the arguments."""
        transformer_options = {} if transformer_options is None else transformer_options
        kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
        wrappers = comfy.patcher_extension.get_all_wrappers(kind, transformer_options)
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timestep, context, clip_fea, time_dim_concat, transformer_options, **kwargs)

    def _forward(
        self,
        x,
        timestep,
        context,
        clip_fea=None,
        time_dim_concat=None,
        transformer_options=None,
        vace_context=None,
        vace_strength=1.0,
        context_latents=None,
        reference_latent=None,
        **others,
    ):
        """`WanDiT.forward` between ComfyUI's conventions.

        An image for a model without a branch for it is ignored, as the native model does: the image-to-video models of
        Wan2.2 have none, and people connect CLIP Vision to them as to those of Wan2.1.

        Raises:
            InputError: an input that this model does not have.
        """
        check_others(others)
        transformer_options = {} if transformer_options is None else transformer_options
        frames, height, width = x.shape[2:]
        pad = functools.partial(comfy.ldm.common_dit.pad_to_patch_size, patch_size=self.config.patch)
        x = pad(x) if time_dim_concat is None else torch.cat((pad(x), pad(time_dim_concat)), dim=2)
        whole = timestep.round()  # ComfyUI speaks in sigmas; float32 holds a whole timestep only nearly
        timestep = torch.where((timestep - whole).abs() < 1e-4, whole, timestep)
        grid = tuple(size // patch for size, patch in zip(x.shape[2:], self.config.patch, strict=True))
        frame, transformer_options["grid_sizes"] = grid[1] * grid[2], grid
        if timestep.ndim == 2:  # one per latent frame
            timestep = timestep.repeat_interleave(frame, dim=1)
        given = {
            "vace": None if vace_context is None else list(vace_context.unbind(1)),
            "context_latents": [pad(latent) for latent in context_latents or ()],
            "reference_latent": None if reference_latent is None else pad(reference_latent.unsqueeze(2)),
            "image_embeds": clip_fea if self.config.image_dim else None,
        }
        start = 0 if reference_latent is None else frame
        token = _forward_options.set(ForwardOptions(transformer_options, x, start))
        try:
            out = super().forward(x, timestep, context, vace_scale=vace_strength, **given)
        finally:
            _forward_options.reset(token)
        return out[:, :, :frames, :height, :width]

    def embed_time(self, t, cache=None):
        e, mod = super().embed_time(t, cache)
        return e, HostModulation(mod.rows, mod.index, e)

    def rope(self, grid, device, source=0):
        rope = _forward_options.get().options.get("rope_options") or {}
        positions = [
            torch.arange(size, dtype=torch.float64) * rope.get(f"scale_{axis}", 1.0) + rope.get(f"shift_{axis}", 0.0)
            for size, axis in zip(grid, "tyx", strict=True)
        ]
        return rope_table(positions, self.config.head_dim, device, source)

    def run_block(self, i, x, mod, rope, keys):
        comfy.model_management.throw_exception_if_processing_interrupted()
        call = _forward_options.get()
        options = call.options
        options["total_blocks"], options["block_type"], options["block_index"] = len(self.blocks), "double", i
        replace = options.get("patches_replace", {}).get("dit", {}).get(("double_block", i))
        if replace is None:
            x = super().run_block(i, x, mod, rope, keys)
        else:
            args = {"img": x, "txt": keys.blocks[i], "vec": mod, "pe": rope, "transformer_options": options}

            def original(a):
                token = _forward_options.set(call._replace(options=a["transformer_options"]))
                try:
                    return {"img": self.blocks[i](a["img"], a["vec"], a["pe"], a["txt"], keys.images[i])}
                finally:
                    _forward_options.reset(token)

            x = replace(args, {"original_block": original})["img"]
        patches = options.get("patches", {}).get("double_block", ())
        if patches:
            about = {"x": call.x, "vec": embeddings_by_frame(mod, call), "block_index": i, "img_offset": call.start}
            for patch in patches:
                x = patch({"img": x, **about, "transformer_options": options})["img"]
        return x

    def _check(self, x, t, text, y, vace):
        """ComfyUI checks its inputs itself, and allows texts beyond 512 tokens."""


def embeddings_by_frame(mod: HostModulation, call: ForwardOptions) -> torch.Tensor:
    """Time embedding (B, 1 or T, D) of the samples or, where they differ, of each latent frame of the video."""
    frames = call.options["grid_sizes"][0]
    index = mod.index[:, call.start :: call.frame][:, :frames] if mod.index.shape[1] > 1 else mod.index
    return mod.e[index]


def attention(q, k, v, bias=None, **how):
    """ComfyUI's attention backend of choice; (B, L, heads, head_dim) in and out."""
    flat = optimized_attention(
        q.flatten(2),
        k.flatten(2),
        v.flatten(2),
        heads=q.shape[2],
        mask=bias,
        transformer_options=_forward_options.get().options,
        **how,
    )
    return flat.unflatten(2, (q.shape[2], -1))


def self_attention(q, k, v, bias=None):
    """The same, with the patches that people set on self-attention."""
    out = attention(q, k, v, bias)
    options = _forward_options.get().options
    for patch in options.get("patches", {}).get("attn1_patch", ()):
        flat = patch({"x": out.flatten(2), "q": q, "k": k, "transformer_options": options})
        out = flat.unflatten(2, (q.shape[2], -1))
    return out


image_attention = functools.partial(attention, low_precision_attention=False)  # SageAttention returns NaN for images
