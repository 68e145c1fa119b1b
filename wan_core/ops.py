"""What the models are built from: layer factories and attention.

Layer factories: any namespace with `Linear`, `Conv2d`, `Conv3d`, `LayerNorm`, `RMSNorm` and `Embedding`,
constructed like their `torch.nn` namesakes. `torch.nn` fits, and so do ComfyUI's `operations`. The transformer's default is
`Layers`: torch.nn with faster ways on a CPU, which are taken only where no gradient is asked for.
"""

import functools
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
    if on_plain_cpu(q) and q.dtype in (torch.float32, torch.bfloat16):
        wide = torch.float32 if _float32_attention() else q.dtype
        # Where they are widened, each head of the keys and values goes in one piece, since it is read for every block of queries.
        k, v = (x.transpose(1, 2).to(wide, memory_format=torch.contiguous_format) for x in (k, v))
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2).to(wide), k, v, attn_mask=None if bias is None else bias.to(wide)
        )
        return out.transpose(1, 2).to(q.dtype)
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
    if is_plain(layer, x):
        return _product(x, layer.weight, layer.bias, "gelu")
    return F.gelu(layer(x), approximate="tanh")


def is_plain(layer: nn.Module, x: Tensor) -> bool:
    """Whether a linear layer's weights may be used in its place: nothing is hooked to it, and it chooses its product itself."""
    return (
        isinstance(layer, Linear) and not layer._forward_hooks and not layer._forward_pre_hooks and layer.is_direct(x)
    )


class Linear(nn.Linear):
    """torch's layer, by the fastest product of this CPU: see `_product`."""

    def forward(self, x: Tensor) -> Tensor:
        return _product(x, self.weight, self.bias) if self.is_direct(x) else super().forward(x)

    def is_direct(self, x: Tensor) -> bool:
        """Whether the product is chosen here: plain weights, and work that is worth it."""
        weight = self.weight
        return (
            x.numel() * weight.shape[0] >= 2**24
            and on_plain_cpu(x, weight)
            and x.dtype == weight.dtype
            and x.dtype in (torch.float32, torch.bfloat16)
            and type(weight) in (nn.Parameter, Tensor)  # quantised ones unpack themselves in F.linear
        )


class RMSNorm(nn.RMSNorm):
    """torch has no kernel of it for a CPU; this is two passes fewer. A float32 x is written over where no gradient is asked for."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.is_direct(x):
            return super().forward(x)
        wide = x.float()
        return wide.mul_(self.scale(wide)).mul_(self.weight).to(x.dtype)

    def is_direct(self, x: Tensor) -> bool:
        return on_plain_cpu(x, self.weight)

    def scale(self, x: Tensor) -> Tensor:
        """What each row of x (…, D), in float32, is multiplied by besides the weight: (…, 1)."""
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        return square.div_(x.shape[-1]).add_(self.eps).rsqrt_()


def add_linear(x: Tensor, layer: nn.Module, h: Tensor, gate: Tensor | None = None, over: bool = False) -> Tensor:
    """x + gate·layer(h), (B, L, D) float32.

    MKL can add its product to what is there. There a gate for all tokens goes to the weights, where it is less work.

    Args:
        over: x may be written over, where no gradient is asked for.
    """
    over = over and not torch.is_grad_enabled()
    if (
        is_plain(layer, h)
        and _is_intel()
        and computes_in_float32(h.dtype)
        and gate is not None
        and gate.numel() == x.shape[-1]
    ):
        gate = gate.flatten()
        bias = layer.bias.float() * gate
        x = x.add_(bias) if over else x + bias
        return x.baddbmm_(h.float(), (layer.weight.float() * gate.unsqueeze(1)).T.expand(len(x), -1, -1))
    branch = layer(h)
    if gate is None:
        return x.add_(branch) if over else x + branch
    return x.addcmul_(gate, branch) if over else torch.addcmul(x, gate, branch)


class Layers:
    """The default factories of the transformer."""

    Linear, RMSNorm = Linear, RMSNorm
    Conv3d, LayerNorm = nn.Conv3d, nn.LayerNorm


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, then: str = "none") -> Tensor:
    """x·weightᵀ + bias, and GELU where `then` is "gelu".

    torch takes MKL for float32; oneDNN, which it has too and which adds the GELU for little, takes 0.87 of its time on AMD
    Zen 4, but more on Intel, where the bias is best added afterwards.
    Where a CPU multiplies bfloat16 no faster than float32, bfloat16 weights are widened for the product.
    """
    if x.dtype == torch.bfloat16 and _float32_products():
        return _product(x.float(), weight.float(), None if bias is None else bias.float(), then).to(x.dtype)
    if _ONEDNN_LINEAR is not None and not (then == "none" and x.dtype == torch.float32 and _is_intel()):
        return _ONEDNN_LINEAR(x, weight, bias, then, [], "tanh" if then == "gelu" else "")
    out = F.linear(x, weight)
    out = out if bias is None else out.add_(bias)
    return F.gelu(out, approximate="tanh") if then == "gelu" else out


_ONEDNN = torch.backends.mkldnn.is_available()
_ONEDNN_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if _ONEDNN else None


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
def _capabilities() -> dict:
    return getattr(torch.cpu, "get_capabilities", dict)()


def _is_intel() -> bool:
    return _capabilities().get("cpu_name", "").startswith("Intel")


def _float32_attention() -> bool:
    """Whether torch's attention is faster on float32 than on bfloat16, which it was written for AMX to multiply."""
    return _capabilities().get("architecture") == "x86_64" and not _capabilities().get("amx_bf16")


def computes_in_float32(dtype: torch.dtype) -> bool:
    """Whether the products of `Linear` are float32 ones."""
    return dtype == torch.float32 or (dtype == torch.bfloat16 and _float32_products())


def _float32_products() -> bool:
    """Whether float32 products are faster than bfloat16 ones: without AMX, Intel's AVX-512 takes 1.7 times as long for the
    latter, AMD's half as long."""
    return _float32_attention() and (_is_intel() or not _capabilities().get("avx512_bf16"))
