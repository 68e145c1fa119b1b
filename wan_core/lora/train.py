"""LoRA (arXiv 2106.09685): low-rank updates of a frozen expert's linear layers, in the layout that ComfyUI loads."""

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checkpoints.write import write_tensors
from ..dit import WanDiT
from ..errors import InputError
from ..flow.noise import uniform
from ..validate import whole_number


class LoRALinear(nn.Module):
    """layer(x) + (alpha / rank) · up(down(x)); `layer` is frozen."""

    def __init__(self, layer: nn.Linear, rank: int, alpha: float, generator: torch.Generator):
        super().__init__()
        self.layer, self.scale = layer.requires_grad_(False), alpha / rank
        bound = math.sqrt(3 / layer.in_features)
        down = (uniform((rank, layer.in_features), generator) * 2 - 1) * bound
        self.lora_down = nn.Parameter(down.to(layer.weight.device))
        up = torch.zeros(layer.out_features, rank, dtype=torch.float32, device=layer.weight.device)
        self.lora_up = nn.Parameter(up)

    def forward(self, x: Tensor) -> Tensor:
        update = (x.to(self.lora_down) @ self.lora_down.T) @ self.lora_up.T
        return self.layer(x) + (self.scale * update).to(x)


def add_lora(model: WanDiT, rank: int, alpha: float | None = None, seed: int = 0) -> WanDiT:
    """Freeze the model and give every linear layer of its blocks an update that starts at zero.

    Args:
        alpha: None: equal to `rank`.
    """
    rank = whole_number("the rank", rank, 1, model.config.dim)
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    for parent in [module for name, module in model.named_modules() if name.startswith("blocks.")]:
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear) and not isinstance(parent, LoRALinear):
                setattr(parent, name, LoRALinear(layer, rank, rank if alpha is None else alpha, generator))
    return model


def lora_state(model: WanDiT) -> dict[str, Tensor]:
    """The updates under the names that ComfyUI and others read: `diffusion_model.….lora_down.weight` [rank, in],
    `.lora_up.weight` [out, rank], `.alpha`.

    Raises:
        InputError: the model has none.
    """
    state = {}
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            prefix = f"diffusion_model.{name}"
            state[f"{prefix}.lora_down.weight"] = module.lora_down.detach().contiguous()
            state[f"{prefix}.lora_up.weight"] = module.lora_up.detach().contiguous()
            alpha = module.scale * len(module.lora_down)
            state[f"{prefix}.alpha"] = torch.tensor(alpha, dtype=torch.float32, device="cpu")
    if not state:
        raise InputError("a model without LoRA", "add_lora(model, rank)")
    return state


def save_lora(model: WanDiT, path: str | Path) -> None:
    """Write the updates of one expert as a safetensors file. WriteError: the disk is full, or the system refuses."""
    write_tensors(lora_state(model), path)
