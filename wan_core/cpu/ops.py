"""The transformer's layers and attention on a CPU.

    Linear      torch multiplies float32 by MKL; oneDNN, which torch has too, takes 0.87 of its time on AMD Zen 4, more
                on Intel. oneDNN computes GELU within the product, for little.
    Linear      bfloat16 is widened to float32 for the product where a CPU multiplies it no faster: without AMX, Intel's
                AVX-512 takes 1.7 times as long for bfloat16 as for float32, AMD's half as long.
    attention   torch's kernel was written for AMX to multiply bfloat16; without AMX it is faster in float32.
    RMSNorm     torch has no kernel of it for a CPU: two passes over memory fewer.
    add_linear  x + gate · layer(h): MKL adds its product to what is there, and a gate that all tokens share goes to the
                weights, where it is less work.

Together: a forward takes 0.78 of diffusers' time in float32 and 0.50 in bfloat16 (benchmarks/results/dit.md).
"""

import functools
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HAS_ONEDNN = torch.backends.mkldnn.is_available()
_ONEDNN_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if HAS_ONEDNN else None

WORTH_CHOOSING = 2**24  # multiplications of a layer, about a millisecond; below, calling torch's own layer costs less


def suits(layer: nn.Module, x: Tensor, *others: Tensor) -> bool:
    """Whether a layer may compute in the ways of this package: x lies on a CPU whose torch has oneDNN, and there are no
    gradients, automatic dtypes or compiler to mind.

    Args:
        others: further tensors that the result depends on.
    """
    return (
        x.is_cpu
        and HAS_ONEDNN
        and not (torch.is_grad_enabled() and any(p.requires_grad for p in (x, *others, *layer.parameters())))
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


class Linear(nn.Linear):
    """torch's layer, by the fastest product of this CPU."""

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.weight, self.bias) if self.suits(x) else super().forward(x)

    def suits(self, x: Tensor) -> bool:
        """Whether the product is chosen here: plain weights, and work that is worth it."""
        weight = self.weight
        return (
            x.numel() * weight.shape[0] >= WORTH_CHOOSING
            and x.dtype == weight.dtype
            and x.dtype in (torch.float32, torch.bfloat16)
            and type(weight) in (nn.Parameter, Tensor)  # a QuantizedTensor dequantizes itself in F.linear
            and suits(self, x)
        )


class RMSNorm(nn.RMSNorm):
    """torch's layer in fewer passes, computed in float32."""

    def forward(self, x: Tensor) -> Tensor:
        if not suits(self, x):
            return super().forward(x)
        wide = x.float()
        return (wide * self.scale(wide)).mul_(self.weight).to(x.dtype)

    def scale(self, x: Tensor) -> Tensor:
        """What each row of x (…, D), in float32, is multiplied by besides the weight: (…, 1)."""
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        return square.div_(x.shape[-1]).add_(self.eps).rsqrt_()


class CpuOps:
    """Layer factories of the transformer, see `wan_core.ops`."""

    Linear, RMSNorm = Linear, RMSNorm
    Conv2d, Conv3d, LayerNorm = nn.Conv2d, nn.Conv3d, nn.LayerNorm


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """`wan_core.ops.sdpa`, in float32 where that is faster; where no gradient is asked for."""
    wide = torch.float32 if q.dtype == torch.bfloat16 and float32_attention() else q.dtype
    # One copy of each head's keys and values in one piece, since they are read for every block of queries.
    k, v = (x.transpose(1, 2).to(wide, memory_format=torch.contiguous_format) for x in (k, v))
    bias = None if bias is None else bias.to(wide)
    out = F.scaled_dot_product_attention(q.transpose(1, 2).to(wide), k, v, attn_mask=bias)
    return out.transpose(1, 2).to(q.dtype)


def is_bare(layer: nn.Module, x: Tensor) -> TypeGuard[Linear]:
    """Whether a layer's weights may be used in its place: it chooses its product itself, and has no hooks."""
    return isinstance(layer, Linear) and not (layer._forward_hooks or layer._forward_pre_hooks) and layer.suits(x)


def linear_gelu(layer: nn.Module, x: Tensor) -> Tensor:
    """GELU (tanh form) of a linear layer's output, in one pass where the layer can."""
    if is_bare(layer, x):
        return product(x, layer.weight, layer.bias, gelu=True)
    return F.gelu(layer(x), approximate="tanh")


def add_linear(x: Tensor, layer: nn.Module, h: Tensor, gate: Tensor | None = None, inplace: bool = False) -> Tensor:
    """x + gate · layer(h); x (B, L, D) float32, h (B, L, D'), gate (1, 1, D) or (B, L, D) float32.

    Args:
        inplace: x is written over.
    """
    if gate is None:
        branch = layer(h)
        return x.add_(branch) if inplace else x + branch
    if gate.numel() == x.shape[-1] and is_bare(layer, h) and is_intel() and computes_in_float32(h.dtype):
        gate = gate.flatten()
        bias = layer.bias.float() * gate
        x = x.add_(bias) if inplace else x + bias
        return x.baddbmm_(h.float(), (layer.weight.float() * gate.unsqueeze(1)).T.expand(len(x), -1, -1))
    branch = layer(h)
    return x.addcmul_(gate, branch) if inplace else torch.addcmul(x, gate, branch)


def product(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> Tensor:
    """x·weightᵀ + bias, and its GELU (tanh form) if asked for, in the library and dtype that are fastest here."""
    if x.dtype == torch.bfloat16 and float32_products():
        return product(x.float(), weight.float(), None if bias is None else bias.float(), gelu).to(x.dtype)
    if _ONEDNN_LINEAR is not None and (gelu or x.dtype != torch.float32 or not is_intel()):
        return _ONEDNN_LINEAR(x, weight, bias, *(("gelu", [], "tanh") if gelu else ("none", [], "")))
    out = F.linear(x, weight)
    out = out if bias is None else out.add_(bias)  # MKL is slower where it adds the bias itself
    return F.gelu(out, approximate="tanh") if gelu else out


@functools.cache
def capabilities() -> dict[str, Any]:
    return getattr(torch.cpu, "get_capabilities", dict)()


def is_intel() -> bool:
    return capabilities().get("cpu_name", "").startswith("Intel")


def float32_attention() -> bool:
    """Whether torch's attention is faster in float32 than in bfloat16."""
    return capabilities().get("architecture") == "x86_64" and not capabilities().get("amx_bf16")


def float32_products() -> bool:
    """Whether products are faster in float32 than in bfloat16."""
    return float32_attention() and (is_intel() or not capabilities().get("avx512_bf16"))


def computes_in_float32(dtype: torch.dtype) -> bool:
    """Whether the products of `Linear` are float32 ones."""
    return dtype == torch.float32 or (dtype == torch.bfloat16 and float32_products())
