"""Writing the trained parts as the shipped files, in the layout of the official releases."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from wan_core.checkpoints import load_dit
from wan_core.config import PRESETS
from wan_core.demo import release
from wan_core.testing import write_expert
from wan_core.text import UMT5
from wan_core.vae import WanVAE


def write_shared(vae: WanVAE, encoder: UMT5, proto: bytes) -> None:
    """VAE (float16, computed in float32), text encoder (bfloat16) and tokenizer, which both tasks share."""
    folder = release.shared_folder()
    tokenizer = folder / release.TOKENIZER / "umt5-xxl"
    tokenizer.mkdir(parents=True, exist_ok=True)
    torch.save(_cast(vae.state_dict(), torch.float16), folder / release.VAE)
    torch.save(_cast(encoder.state_dict(), torch.bfloat16), folder / release.TEXT)
    (tokenizer / "spiece.model").write_bytes(proto)


def write_pair(task: str, high: Mapping[str, Tensor], low: Mapping[str, Tensor]) -> None:
    """Two experts in float16."""
    for name, state in zip(release.EXPERTS, (high, low), strict=True):
        model = load_dit(dict(state), dtype=torch.float16)
        write_expert(release.FOLDER / task / name, model.half(), replace(PRESETS[task], dit=model.config))


def _cast(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: value.detach().to(dtype).contiguous().clone() for name, value in state.items()}
