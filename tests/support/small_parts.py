"""The smallest parts that load, by name and shape; and LoRAs for the transformer."""

from functools import cache

from wan_core.checkpoints.expected import EXPECTED
from wan_core.config import DiTConfig, TextConfig, VAEConfig

# Heads of 128, which a file without a config.json has to have; the narrow one needs its config.
DIT = DiTConfig(dim=128, ffn_dim=8, heads=1, layers=2, text_dim=8, freq_dim=8)
NARROW = DiTConfig(dim=8, ffn_dim=8, heads=1, layers=2, text_dim=8, freq_dim=8)
VACE = DiTConfig(dim=128, ffn_dim=8, heads=1, layers=2, text_dim=8, freq_dim=8, vace_layers=(0,))
VAE = VAEConfig(dim=2, decoder_dim=2)
TEXT = TextConfig(dim=8, dim_attn=8, ffn_dim=8, heads=2, layers=2, vocab=512, buckets=8)

Shapes = dict[str, tuple[int, ...]]


@cache
def shapes_of(config: DiTConfig | VAEConfig | TextConfig) -> Shapes:
    """Official name → shape of every tensor of a part."""
    kind = {DiTConfig: "dit", VAEConfig: "vae", TextConfig: "text_encoder"}[type(config)]
    return EXPECTED[kind](config)


def lora_shapes(layout: str) -> Shapes:
    """A LoRA of rank 2 for `DIT`, as one of the trainers names its tensors."""
    name, down, up = {
        "peft": ("diffusion_model.{}", "lora_A.weight", "lora_B.weight"),
        "kohya": ("lora_unet_{}", "lora_down.weight", "lora_up.weight"),
        "pair": ("transformer_2.{}", "lora_A.weight", "lora_B.weight"),
    }[layout]
    shapes: Shapes = {"diffusion_model.blocks.0.diff_m": (1, 6, 128), "diffusion_model.patch_embedding.diff_b": (128,)}
    for module in ("blocks.0.self_attn.q", "blocks.1.ffn.0", "head.head", "patch_embedding"):
        size = shapes_of(DIT)[f"{module}.weight"]
        theirs = name.format(module.replace(".", "_") if layout == "kohya" else module)
        shapes |= {f"{theirs}.{down}": (2, *size[1:]), f"{theirs}.{up}": (size[0], 2), f"{theirs}.alpha": ()}
    if layout == "pair":
        shapes |= {name.replace("transformer_2.", "transformer."): shape for name, shape in shapes.items()}
    return shapes
