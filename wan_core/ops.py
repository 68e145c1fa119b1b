"""What the models are built from: layer factories and attention.

Layer factories: any namespace with `Linear`, `Conv2d`, `Conv3d`, `LayerNorm`, `RMSNorm` and `Embedding`,
constructed like their `torch.nn` namesakes. `torch.nn` fits, and so do ComfyUI's `operations`. The transformer's default is
`Layers`: torch.nn with faster ways on a CPU, which are taken only where no gradient is asked for.
"""

import functools
from typing import Callable, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Attention = Callable[[Tensor, Tensor, Tensor, Optional[Tensor]], Tensor]


def sdpa(q: Tensor, k: Tensor, v: Tensor, bias: Optional[Tensor] = None) -> Tensor:
    """Scaled dot-product attention, scale 1/sqrt(head_dim).

    Args:
        q, k, v: (B, L, heads, head_dim); k and v may be longer than q.
        bias: added to the scores, broadcast to (B, heads, L_q, L_k).
    Returns:
        (B, L_q, heads, head_dim).
    """
    if q.dtype == torch.bfloat16 and (bias is None or bias.ndim == 2) and on_plain_cpu(q) and _has_bfloat16():
        return _attention_by_matmul(q, k, v, bias)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2)


def in_float32(layer: nn.Module, x: Tensor) -> Tensor:
    """Run a layer in float32 whatever dtype its weights are stored in; the stored weights stay as they are."""
    stored = dict(layer.named_parameters())
    if all(p.dtype == torch.float32 for p in stored.values()):
        return layer(x.float())
    return torch.func.functional_call(layer, {name: p.float() for name, p in stored.items()}, (x.float(),))


def linear_gelu(layer: nn.Module, x: Tensor) -> Tensor:
    """GELU (tanh form) of a linear layer's output, in one pass where the layer can."""
    if isinstance(layer, Linear) and not layer._forward_hooks and not layer._forward_pre_hooks and layer.is_direct(x):
        return _onednn_linear(x, layer.weight, layer.bias, "gelu", [], "tanh")
    return F.gelu(layer(x), approximate="tanh")


class Linear(nn.Linear):
    """On a CPU, torch's fast path for dense float32 is MKL; oneDNN, which it has too, takes 0.87 of the time on AMD Zen 4."""

    def forward(self, x: Tensor) -> Tensor:
        if self.is_direct(x):
            return _onednn_linear(x, self.weight, self.bias, "none", [], "")
        return super().forward(x)

    def is_direct(self, x: Tensor) -> bool:
        """Whether oneDNN is called by its name: plain weights, and work that is worth it."""
        weight = self.weight
        return (
            x.numel() * weight.shape[0] >= 2**24
            and _onednn_linear is not None
            and on_plain_cpu(x, weight)
            and x.dtype == weight.dtype
            and (x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and _has_bfloat16()))
            and type(weight) in (nn.Parameter, Tensor)  # quantised ones unpack themselves in F.linear
        )


class RMSNorm(nn.RMSNorm):
    """torch has no kernel of it for a CPU; this is two passes fewer."""

    def forward(self, x: Tensor) -> Tensor:
        if not on_plain_cpu(x, self.weight):
            return super().forward(x)
        wide = x.float()
        square = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
        scale = square.div_(x.shape[-1]).add_(self.eps).rsqrt_()
        out = wide * scale if wide is x else wide.mul_(scale)
        return out.mul_(self.weight).to(x.dtype)


class Layers:
    """The default factories of the transformer."""

    Linear, RMSNorm = Linear, RMSNorm
    Conv3d, LayerNorm = nn.Conv3d, nn.LayerNorm


_ONEDNN = torch.backends.mkldnn.is_available()
_onednn_linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if _ONEDNN else None


def on_plain_cpu(*tensors: Tensor) -> bool:
    """Tensors on a CPU whose torch has oneDNN, no gradient, no automatic dtypes, no compiler to get in the way of."""
    return (
        tensors[0].is_cpu
        and _ONEDNN
        and not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors))
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


@functools.cache
def _has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 vectors but not tiles (AMX), for which torch's fused attention is made."""
    return torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()


def _attention_by_matmul(q: Tensor, k: Tensor, v: Tensor, bias: Optional[Tensor]) -> Tensor:
    """Attention as two bfloat16 products, in 0.55 of the time of torch's fused kernel, which multiplies in float32 here.

    The scores between the products are bfloat16. Before they are rounded, the largest score among every 16th key is
    taken off each row, as one more channel, so that those that weigh most are near zero and keep their digits: the
    error stays near 4e-3 of the output, however large the scores are, where it would grow to 1e-2 and more.
    """
    scale, out = q.shape[3] ** -0.5, torch.empty_like(q)
    rows = max(1, 2**24 // k.shape[1])  # 32 MiB of scores
    added, weight = (q.new_zeros(1), 0) if bias is None else (bias, 1)
    for b in range(len(q)):
        for h in range(q.shape[2]):
            keys, values = F.pad(k[b, :, h], (0, 1), value=1.0), v[b, :, h]
            for part, result in zip(q[b, :, h].split(rows), out[b, :, h].split(rows)):
                largest = torch.mm(part, k[b, ::16, h].T).amax(1, keepdim=True)
                part = torch.cat((part, largest.neg_()), dim=1)
                scores = torch.addmm(added, part, keys.T, beta=weight, alpha=scale)
                result.copy_(torch.mm(scores.softmax(1), values))
    return out
