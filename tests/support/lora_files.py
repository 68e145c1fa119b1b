"""LoRA files in every layout that trainers write. No other module of the tests is needed: ComfyUI's python reads this
one too.
"""

import torch

MODULES = ("blocks.0.self_attn.q", "blocks.1.cross_attn.o", "blocks.0.ffn.0", "blocks.1.ffn.2")
DIFFUSERS = {
    "blocks.0.self_attn.q": "blocks.0.attn1.to_q",
    "blocks.1.cross_attn.o": "blocks.1.attn2.to_out.0",
    "blocks.0.ffn.0": "blocks.0.ffn.net.0.proj",
    "blocks.1.ffn.2": "blocks.1.ffn.net.2",
}
LAYOUTS = {  # (name of a module, of its two halves); alpha or not
    "lightx2v": (lambda m: f"diffusion_model.{m}", "lora_down.weight", "lora_up.weight", True),
    "peft": (lambda m: f"diffusion_model.{m}", "lora_A.weight", "lora_B.weight", False),
    "peft with adapter": (lambda m: f"base_model.model.{m}", "lora_A.default.weight", "lora_B.default.weight", False),
    "kohya": (lambda m: "lora_unet_" + m.replace(".", "_"), "lora_down.weight", "lora_up.weight", True),
    "fun": (lambda m: "lora_unet__" + m.replace(".", "_"), "lora_down.weight", "lora_up.weight", True),
    "diffusers": (lambda m: f"transformer.{DIFFUSERS[m]}", "lora_A.weight", "lora_B.weight", False),
    "bare": (lambda m: m, "lora_A.weight", "lora_B.weight", False),
}
WHOLE = {  # parameter → what lightx2v calls its change
    "blocks.0.self_attn.norm_q.weight": "blocks.0.self_attn.norm_q.diff",
    "blocks.1.ffn.0.bias": "blocks.1.ffn.0.diff_b",
    "blocks.0.modulation": "blocks.0.diff_m",
    "head.modulation": "head.modulation.diff",
    "patch_embedding.weight": "patch_embedding.diff",
    "head.head.weight": "head.head.diff",
    "time_embedding.0.weight": "time_embedding.0.diff",
}


def halves(state, rank=4, seed=0):
    """module → (down, up): random halves that fit the weights."""
    torch.manual_seed(seed)
    sizes = {m: state[f"{m}.weight"].shape for m in MODULES}
    return {m: (0.1 * torch.randn(rank, size[1]), 0.1 * torch.randn(size[0], rank)) for m, size in sizes.items()}


def written(layout, parts):
    """(what the file holds, alpha / rank)."""
    name, down, up, alpha = LAYOUTS[layout]
    state = {}
    for module, (a, b) in parts.items():
        state |= {f"{name(module)}.{down}": a, f"{name(module)}.{up}": b}
        if alpha:
            state[f"{name(module)}.alpha"] = torch.tensor(2.0)
    return state, (2.0 / 4 if alpha else 1.0)


def whole(state, seed=2):
    """(what the file holds, parameter → change) of changes that are whole tensors."""
    torch.manual_seed(seed)
    deltas = {name: 0.1 * torch.randn_like(state[name].float()) for name in WHOLE}
    return {f"diffusion_model.{WHOLE[name]}": delta for name, delta in deltas.items()}, deltas
