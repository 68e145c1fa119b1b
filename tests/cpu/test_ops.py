"""Which way a product or an attention takes depends on the CPU; what comes out does not."""

import pytest
import torch
import torch.nn.functional as F

from tests.support.goldens import difference
from wan_core.cpu import ops

CPUS = {
    "Zen 4": dict(architecture="x86_64", cpu_name="AMD EPYC 9R14", amx_bf16=False, avx512_bf16=True),
    "Sapphire Rapids": dict(architecture="x86_64", cpu_name="Intel Xeon", amx_bf16=True, avx512_bf16=True),
    "the same without tiles": dict(architecture="x86_64", cpu_name="Intel Xeon", amx_bf16=False, avx512_bf16=True),
    "a laptop": dict(architecture="x86_64", cpu_name="AMD Ryzen 5", amx_bf16=False, avx512_bf16=False),
    "Arm": dict(architecture="aarch64", cpu_name="Neoverse"),
    "a torch that does not say": {},
}


@pytest.fixture(params=CPUS)
def cpu(request, monkeypatch):
    monkeypatch.setattr(ops, "capabilities", lambda: CPUS[request.param])
    return request.param


def test_bfloat16_products_are_widened_where_that_is_faster(cpu):
    assert ops.float32_products() == (cpu in ("the same without tiles", "a laptop"))
    assert ops.float32_attention() == (cpu in ("Zen 4", "the same without tiles", "a laptop"))


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers(cpu, dtype, bound, bias):
    torch.manual_seed(0)
    layer, x = ops.Linear(512, 512, bias=bias).requires_grad_(False), torch.randn(1, 64, 512)
    exact = F.linear(x, layer.weight, layer.bias)
    layer, x = layer.to(dtype), x.to(dtype)
    assert layer.suits(x)
    for out, wanted in ((layer(x), exact), (ops.linear_gelu(layer, x), F.gelu(exact, approximate="tanh"))):
        assert out.dtype == dtype and difference(out.float(), wanted) < bound


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("gate", ["none", "one", "each token"])
@pytest.mark.parametrize("inplace", [True, False])
@torch.no_grad()
def test_adding_a_layer_to_the_stream(cpu, dtype, bound, gate, inplace):
    torch.manual_seed(0)
    layer, x, h = ops.Linear(512, 512), torch.randn(2, 64, 512), torch.randn(2, 64, 512)
    gate = {"none": None, "one": torch.randn(1, 1, 512), "each token": torch.randn(2, 64, 512)}[gate]
    wanted, before = x + layer(h) * (1 if gate is None else gate), x.clone()
    out = ops.add_linear(x, layer.to(dtype), h.to(dtype), gate, inplace)
    assert out.dtype == torch.float32 and difference(out, wanted) < bound
    assert torch.equal(x, out if inplace else before)


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("keys", [40, 7])
def test_attention(cpu, dtype, bound, keys):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, n, 3, 16) for n in (40, keys, keys))
    bias = torch.randn(1, keys) if keys == 7 else None
    wanted = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), attn_mask=bias).transpose(1, 2)
    out = ops.attention(*(None if x is None else x.to(dtype) for x in (q, k, v, bias)))
    assert out.dtype == dtype and difference(out.float(), wanted) < bound


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-6), (torch.bfloat16, 0.02)])
def test_norms_leave_their_input_alone(dtype, bound):
    torch.manual_seed(0)
    x, layer = torch.randn(2, 40, 64, dtype=dtype), ops.RMSNorm(64, eps=1e-6, dtype=dtype).requires_grad_(False)
    torch.nn.init.normal_(layer.weight)
    before, expected = x.clone(), F.rms_norm(x.float(), (64,), layer.weight.float(), 1e-6)
    assert ops.suits(layer, x) and difference(layer(x).float(), expected) < bound
    assert torch.equal(x, before)


@pytest.mark.parametrize("layer", [ops.Linear(512, 512), ops.RMSNorm(512)], ids=lambda layer: type(layer).__name__)
def test_gradients_autocast_and_compilers_get_the_plain_layer(layer, monkeypatch):
    x = torch.randn(64, 512)
    assert ops.suits(layer, x)
    with torch.enable_grad():
        assert not ops.suits(layer, x)  # its own weights
        assert not ops.suits(torch.nn.Identity(), x.requires_grad_())
        assert ops.suits(layer.requires_grad_(False), x.detach())
        assert not ops.suits(layer, x.detach(), x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not ops.suits(layer, x)
    assert not ops.suits(layer, x.to("meta"))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not ops.suits(layer, x)
