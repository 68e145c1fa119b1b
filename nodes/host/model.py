"""Our transformer as a real ComfyUI MODEL."""

import math
from typing import ClassVar

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.supported_models_base
import torch

from ...wan_core.config import DiTConfig
from .conditions import check_conditions
from .dit import HostDiT

# ComfyUI estimates the memory of a forward pass as latent positions · factor; Wan's factor is its width over this, and
# that of VACE so much more. Source: comfy/supported_models.py WAN21_T2V, WAN21_Vace.
WIDTH_OF_MEMORY_FACTOR_1 = 2222
VACE_MEMORY = 1.2


class ExpertConfig(comfy.supported_models_base.BASE):
    """What ComfyUI wants to know about a Wan transformer."""

    unet_extra_config: ClassVar = {}
    sampling_settings: ClassVar = {"shift": 8.0}  # the native default, so that native samplers behave alike
    supported_inference_dtypes: ClassVar = [torch.float16, torch.bfloat16, torch.float32]

    def __init__(self, config: DiTConfig):
        self.latent_format = comfy.latent_formats.Wan22 if config.out_channels == 48 else comfy.latent_formats.Wan21
        super().__init__({"config": config})
        self.memory_usage_factor = config.dim / WIDTH_OF_MEMORY_FACTOR_1 * (VACE_MEMORY if config.vace_layers else 1)

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
        self.memory_usage_factor_conds = ("context_latents",)  # tokens as those of the latent

    def extra_conds(self, **kwargs):
        """Without the zero rows at the end of a text: the model pads with the same.

        Raises:
            InputError: a condition that the model does not take.
        """
        check_conditions(self.model_config.unet_config["config"], kwargs)
        conds = super().extra_conds(**kwargs)
        if "c_crossattn" in conds:
            text = conds["c_crossattn"].cond
            used = int(text.any(dim=2).any(dim=0).nonzero().max()) + 1 if text.any() else 1
            conds["c_crossattn"] = comfy.conds.CONDRegular(text[:, :used])
        return conds

    def extra_conds_shapes(self, **kwargs):
        contexts = kwargs.get("context_latents") or ()
        positions = sum(math.prod(latent.shape[2:]) for latent in contexts)
        return {"context_latents": [1, contexts[0].shape[1], positions]} if contexts else {}


class Expert(HostModelMixin, comfy.model_base.WAN21):
    """T2V, I2V, Fun-Control or Bernini, of 14B or 1.3B."""


class TI2V(HostModelMixin, comfy.model_base.WAN22):
    """TI2V-5B, and what Fun makes of it."""


class Vace(HostModelMixin, comfy.model_base.WAN21_Vace):
    """VACE."""
