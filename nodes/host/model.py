"""Our transformer as a real ComfyUI MODEL."""

import functools
from contextvars import ContextVar
from typing import ClassVar, NamedTuple

import comfy.conds
import comfy.latent_formats
import comfy.ldm.common_dit
import comfy.model_base
import comfy.model_management
import comfy.patcher_extension
import comfy.supported_models_base
import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import nn

from ...wan_core.config import DiTConfig
from ...wan_core.dit import WanDiT
from ...wan_core.dit.layers import Block, modulate
from ...wan_core.dit.rope import rope_table
from ...wan_core.ops import in_float32

# ComfyUI estimates the memory of a forward pass as latent positions · factor; Wan's factor is its width over this.
# Source: comfy/supported_models.py WAN21_T2V.
WIDTH_OF_MEMORY_FACTOR_1 = 2222


class ForwardOptions(NamedTuple):
    """What ComfyUI says for one forward pass."""

    options: dict  # its transformer_options
    dtype: torch.dtype


_forward_options: ContextVar[ForwardOptions] = ContextVar("wan22_forward_options")


class HostDiTOps:
    """ComfyUI's layer factories, constructed on its device and in its dtype."""

    def __init__(self, operations, **where):
        self.Linear = functools.partial(operations.Linear, **where)
        self.Conv3d = functools.partial(operations.Conv3d, **where)
        self.LayerNorm = functools.partial(operations.LayerNorm, **where)
        self.RMSNorm = functools.partial(operations.RMSNorm, **where)
        self.Embedding = functools.partial(operations.Embedding, **where)


class HostBlock(Block):
    """The block, with the patches that people set on what comes after cross-attention."""

    def forward(self, x, mod, rope, text):
        i, dtype = mod.index, text.k.dtype
        shift1, scale1, gate1, shift2, scale2, gate2 = mod.parts(self.modulation)
        x = x + gate1[i] * self.self_attn(modulate(self.norm1(x), shift1[i], scale1[i]).to(dtype), rope)
        x = x + self.cross_attn(in_float32(self.norm3, x).to(dtype), text)
        options = _forward_options.get().options
        for patch in options.get("patches", {}).get("attn2_patch", ()):
            x = patch({"x": x, "transformer_options": options})
        return x + gate2[i] * self.ffn(modulate(self.norm2(x), shift2[i], scale2[i]).to(dtype))


class HostDiT(WanDiT):
    """WanDiT under ComfyUI's memory management, with the hooks that its ecosystem uses.

    Wrappers around the whole model, block replacements, block and attention patches, rotary options and attention
    overrides are honoured as the native Wan model honours them.
    """

    compute_dtype = property(lambda self: _forward_options.get().dtype)

    def __init__(self, config: DiTConfig, device=None, dtype=None, operations=None):
        super().__init__(config, HostDiTOps(operations, device=device, dtype=dtype), attention, HostBlock)
        self.dtype = dtype
        for block in (*self.blocks, *getattr(self, "vace_blocks", ())):
            block.self_attn.attention = self_attention
        for module in self.modules():
            if "modulation" in module._parameters:
                module.modulation = nn.Parameter(module.modulation.to(device, dtype), requires_grad=False)

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
        **kwargs,
    ):
        """`WanDiT.forward` between ComfyUI's conventions; inputs of models that ours is not are ignored."""
        transformer_options = {} if transformer_options is None else transformer_options
        frames, height, width = x.shape[2:]
        x = comfy.ldm.common_dit.pad_to_patch_size(x, self.config.patch)
        if time_dim_concat is not None:
            extra = comfy.ldm.common_dit.pad_to_patch_size(time_dim_concat, self.config.patch)
            x = torch.cat((x, extra), dim=2)
        whole = timestep.round()  # ComfyUI speaks in sigmas; float32 holds a whole timestep only nearly
        timestep = torch.where((timestep - whole).abs() < 1e-4, whole, timestep)
        if timestep.ndim == 2:  # one per latent frame
            per_frame = x.shape[3] // self.config.patch[1] * (x.shape[4] // self.config.patch[2])
            timestep = timestep.repeat_interleave(per_frame, dim=1)
        vace = None if vace_context is None else list(vace_context.unbind(1))
        token = _forward_options.set(ForwardOptions(transformer_options, x.dtype))
        try:
            out = super().forward(x, timestep, context, vace=vace, vace_scale=vace_strength)
        finally:
            _forward_options.reset(token)
        return out[:, :, :frames, :height, :width]

    def rope(self, grid, device):
        options = _forward_options.get().options
        options["grid_sizes"] = grid
        rope = options.get("rope_options") or {}
        positions = [
            torch.arange(size, dtype=torch.float64) * rope.get(f"scale_{axis}", 1.0) + rope.get(f"shift_{axis}", 0.0)
            for size, axis in zip(grid, "tyx", strict=True)
        ]
        return rope_table(positions, self.config.head_dim, device)

    def run_block(self, i, x, mod, rope, text):
        comfy.model_management.throw_exception_if_processing_interrupted()
        options = _forward_options.get().options
        options["total_blocks"], options["block_type"], options["block_index"] = len(self.blocks), "double", i
        replace = options.get("patches_replace", {}).get("dit", {}).get(("double_block", i))
        if replace is None:
            x = self.blocks[i](x, mod, rope, text.blocks[i])
        else:
            args = {"img": x, "txt": text.blocks[i], "vec": mod, "pe": rope, "transformer_options": options}

            def original(a):
                call = _forward_options.set(_forward_options.get()._replace(options=a["transformer_options"]))
                try:
                    return {"img": self.blocks[i](a["img"], a["vec"], a["pe"], a["txt"])}
                finally:
                    _forward_options.reset(call)

            x = replace(args, {"original_block": original})["img"]
        for patch in options.get("patches", {}).get("double_block", ()):
            x = patch(
                {"img": x, "x": None, "vec": mod, "block_index": i, "img_offset": 0, "transformer_options": options}
            )["img"]
        return x

    def _check(self, x, t, text, y, vace):
        """ComfyUI checks its inputs itself, and allows texts beyond 512 tokens."""


def attention(q, k, v, bias=None):
    """ComfyUI's attention backend of choice; (B, L, heads, head_dim) in and out."""
    flat = optimized_attention(
        q.flatten(2),
        k.flatten(2),
        v.flatten(2),
        heads=q.shape[2],
        mask=bias,
        transformer_options=_forward_options.get().options,
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


class ExpertConfig(comfy.supported_models_base.BASE):
    """What ComfyUI wants to know about a Wan transformer."""

    unet_extra_config: ClassVar = {}
    sampling_settings: ClassVar = {"shift": 8.0}  # the native default, so that native samplers behave alike
    supported_inference_dtypes: ClassVar = [torch.float16, torch.bfloat16, torch.float32]

    def __init__(self, config: DiTConfig):
        self.latent_format = comfy.latent_formats.Wan22 if config.out_channels == 48 else comfy.latent_formats.Wan21
        super().__init__({"config": config})
        self.memory_usage_factor = config.dim / WIDTH_OF_MEMORY_FACTOR_1

    def get_model(self, state_dict, prefix="", device=None):
        config = self.unet_config["config"]
        kind = TI2V if config.out_channels == 48 else Vace if config.vace_layers else Expert
        return kind(self, device)


class HostModelMixin:
    """The native Wan conditioning around our transformer."""

    def __init__(self, model_config, device=None):
        config = model_config.unet_config["config"]
        comfy.model_base.BaseModel.__init__(
            self, model_config, comfy.model_base.ModelType.FLOW, device=device, unet_model=HostDiT
        )
        self.image_to_video = config.out_channels == 48 or config.is_image_to_video

    def extra_conds(self, **kwargs):
        """Without the zero rows at the end of a text: the model pads with the same."""
        conds = super().extra_conds(**kwargs)
        if "c_crossattn" in conds:
            text = conds["c_crossattn"].cond
            used = int(text.any(dim=2).any(dim=0).nonzero().max()) + 1 if text.any() else 1
            conds["c_crossattn"] = comfy.conds.CONDRegular(text[:, :used])
        return conds


class Expert(HostModelMixin, comfy.model_base.WAN21):
    """T2V or I2V, A14B or Wan2.1."""


class TI2V(HostModelMixin, comfy.model_base.WAN22):
    """TI2V-5B."""


class Vace(HostModelMixin, comfy.model_base.WAN21_Vace):
    """VACE."""
