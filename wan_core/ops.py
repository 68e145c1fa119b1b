"""What the transformer is built from: layer factories and attention.

Layer factories: any namespace with `Linear`, `Conv3d`, `LayerNorm` and `RMSNorm`, and `Conv2d` for a model that takes a
reference image, constructed like their namesakes in `torch.nn`, which is the default; ComfyUI's `operations` fit too.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Attention = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def sdpa(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention, scale 1/sqrt(head_dim).

    Args:
        q, k, v: (B, L, heads, head_dim); k and v may be longer than q.
        bias: added to the scores, broadcast to (B, heads, L_q, L_k).
    Returns:
        (B, L_q, heads, head_dim).
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2)


def in_float32(layer: nn.Module, x: Tensor) -> Tensor:
    """Run a layer in float32 whatever dtype its weights are stored in; the stored weights stay as they are."""
    stored = dict(layer.named_parameters())
    if all(p.dtype == torch.float32 for p in stored.values()):
        return layer(x.float())
    return torch.func.functional_call(layer, {name: p.float() for name, p in stored.items()}, (x.float(),))
