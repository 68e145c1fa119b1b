"""Which model of the Wan family a transformer is, and which T5 a text encoder: tables, read from top to bottom.

Source: the modules that Wan2.1, Wan2.2, VideoX-Fun and their relatives add to the plain transformer.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..config import USE_COMFYUI, DiTConfig, is_fun_control_21, presets_like
from ..errors import CheckpointError


@dataclass(frozen=True)
class Family:
    """A row of the table.

    Attributes:
        tensors: official names that tell the family, any of them; a name that ends with a dot stands for all below it.
        lacks: tensors of which this family has none.
        header: pattern of the `config` in the file's header, where no tensor tells.
        loads: whether it is built here.
        needed, fix: of the error for a family that it does not build.
    """

    name: str
    tensors: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    header: str = ""
    loads: bool = False
    needed: str = "a text-to-video, image-to-video, TI2V-5B, VACE or Fun-Control model of Wan"
    fix: str = USE_COMFYUI

    def matches(self, names: set[str], metadata: Mapping[str, str]) -> bool:
        return (
            (not self.tensors or any(_has(names, tensor) for tensor in self.tensors))
            and names.isdisjoint(self.lacks)
            and re.search(self.header, metadata.get("config", "")) is not None
        )

    def refusal(self, source: str) -> CheckpointError:
        return CheckpointError(f"{source} is {self.name}", self.needed, self.fix)


def _has(names: set[str], tensor: str) -> bool:
    return any(name.startswith(tensor) for name in names) if tensor.endswith(".") else tensor in names


# The comments say input → output channels.
FAMILIES = (
    Family(
        "a VACE branch without its transformer",
        ("vace_patch_embedding.weight",),
        lacks=("head.modulation",),
        needed="a whole VACE model",
        fix="Use a file that holds both, such as wan2.2_fun_vace_high_noise_14B_bf16",
    ),
    Family("VACE", ("vace_patch_embedding.weight",), loads=True),  # 16 → 16
    Family("Fun-Camera", ("control_adapter.conv.weight",)),  # 36 → 16; of Wan2.1 32 → 16
    Family("S2V-14B", ("casual_audio_encoder.encoder.final_linear.weight",)),  # 16 → 16
    Family("HuMo", ("audio_proj.audio_proj_glob_1.layer.bias",)),  # 17B: 36 → 16; 1.7B: 16 → 16
    Family("Animate-14B", ("face_adapter.fuser_blocks.0.k_norm.weight",)),  # 36 → 16
    Family("SCAIL-2", ("patch_embedding_mask.weight",)),  # 20 → 16
    Family("SCAIL", ("patch_embedding_pose.weight",)),  # 20 → 16
    Family("WanDancer", ("patch_embedding_global.weight",)),  # 36 → 16
    Family("FlowRVS", header=r'"model_type"\s*:\s*"flow_rvs"'),  # 16 → 16
    Family(  # 16 → 16
        "Causal Forcing",
        header=r'"causal_ar"\s*:\s*true',
        fix="Load it in ComfyUI with Load Diffusion Model, and run it with Sampler AR Video",
    ),
    Family("Animate 2", header=r'"model_type"\s*:\s*"animate2"'),  # 36 → 16
    Family("Fun-Control", ("ref_conv.weight",), loads=True),  # 52 → 16; 5B: 148 → 48; of Wan2.1, 1.1: 48 → 16
    # 36 → 16, first and last frame alike; 48 → 16 Fun-Control 1.0
    Family("Wan2.1 image-to-video", ("img_emb.",), loads=True),
    # 16 → 16 text-to-video and Bernini, 36 → 16 image-to-video, 48 → 48 TI2V-5B, 100 → 48 Fun-InP: see config.PRESETS
    Family("Wan", loads=True),
)


TEXT_FAMILIES = (
    Family(
        "a T5 encoder with one position table, not umT5",
        ("blocks.2.attn.q.weight",),
        lacks=("blocks.1.pos_embedding.embedding.weight", "blocks.2.pos_embedding.embedding.weight"),
        needed="umT5, which has a position table in every block",
        fix="Use umt5_xxl_fp16.safetensors from Comfy-Org, or the text encoder of an official folder",
    ),
    Family("umT5", loads=True),
)
_TABLES = {"dit": FAMILIES, "text_encoder": TEXT_FAMILIES}


def family_of(names: Iterable[str], metadata: Mapping[str, str], kind: str = "dit") -> Family:
    """The family of a part, from the official names of its tensors and the metadata of its header."""
    names = set(names)
    return next(family for family in _TABLES[kind] if family.matches(names, metadata))


def check_family(kind: str, names: Iterable[str], metadata: Mapping[str, str], source: str) -> None:
    """
    Raises:
        CheckpointError: a part of a family that is not built here.
    """
    if kind in _TABLES and not (family := family_of(names, metadata, kind)).loads:
        raise family.refusal(source)


def describe_dit(config: DiTConfig, names: str = "") -> str:
    """A transformer that is loaded here, such as "t2v-a14b or wan21-t2v-14b".

    Args:
        names: what folder, file and header call it, as for `preset_for`.
    """
    if config.is_image_to_video and not config.image_dim:
        return "image-to-video (A14B expert, 36 input channels)"
    if is_fun_control_21(config):
        return "Fun-Control of Wan2.1, a whole model in ComfyUI alone"
    fits = [preset for two in (True, False) for preset in presets_like(config, two, names)[:1]]
    own = [preset for preset in fits if preset.dit.dim == config.dim] or fits
    return (
        " or ".join(dict.fromkeys(preset.name for preset in own))
        or f"a transformer with {config.in_channels} input channels"
    )
