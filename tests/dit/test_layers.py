"""The ways that blocks take on a CPU give what the plain ones do."""

import pytest
import torch

import wan_core.ops as ops
from tests.support.goldens import difference
from wan_core.config import DiTConfig
from wan_core.dit.layers import Block, CrossAttention, Modulation
from wan_core.dit.rope import rope_table

CONFIG = DiTConfig(dim=512, ffn_dim=512, heads=4, layers=1)
TOKENS = 128


def random_layer(kind, dtype=torch.float32):
    torch.manual_seed(0)
    layer = kind(CONFIG, ops.Layers, ops.sdpa).requires_grad_(False)
    for name, parameter in layer.named_parameters():
        if name.endswith(("bias", "norm_q.weight")):
            torch.nn.init.normal_(parameter)
    return layer.to(dtype)


def text_keys(layer, n, folded=True, batch=1, dtype=torch.float32):
    bias = torch.cat((torch.zeros(1, n - 1), torch.full((1, 1), 5.0)), dim=1) if folded else None
    return layer.text_keys(torch.randn(batch, n, CONFIG.dim, dtype=dtype), bias if bias is None else bias.to(dtype))


def plainly(layer, x, text):
    """As the layer says, without the ways of a CPU."""
    q = layer.split(layer.norm_q(layer.q(x)))
    return layer.o(layer.attention(q, *text).flatten(2))


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("batch, texts", [(1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_attention_to_a_short_prompt(monkeypatch, folded, batch, texts, dtype, bound):
    monkeypatch.setattr(ops, "_float32_products", lambda: True)
    layer = random_layer(CrossAttention, dtype)
    x, onto, text = (
        torch.randn(batch, TOKENS, CONFIG.dim, dtype=dtype),
        torch.randn(batch, TOKENS, CONFIG.dim),
        text_keys(layer, 9, folded, texts, dtype),
    )
    assert layer.is_short(x, text)
    assert difference(layer(x, text, onto.clone()), onto + plainly(layer, x, text)) < bound


def test_a_long_prompt_or_anything_that_looks_in_keeps_to_the_plain_way():
    layer, x = random_layer(CrossAttention), torch.randn(1, TOKENS, CONFIG.dim)
    assert layer.is_short(x, text_keys(layer, 16))
    assert not layer.is_short(x, text_keys(layer, 103))  # 4 heads · 103 keys are no fewer than the channels
    assert not layer.is_short(x[:, :64], text_keys(layer, 16))  # hardly more tokens than keys
    layer.attention = lambda *args: ops.sdpa(*args)
    assert not layer.is_short(x, text_keys(layer, 16))
    layer.attention = ops.sdpa
    hook = layer.o.register_forward_hook(lambda *_: None)  # as a LoRA's
    assert not layer.is_short(x, text_keys(layer, 16))
    hook.remove()
    with torch.enable_grad():
        layer.q.requires_grad_()
        assert layer(x, text_keys(layer, 16), x).requires_grad


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("keys", [9, 100])
def test_a_block_leaves_its_input_alone_and_is_the_same_with_gradients(rows, keys):
    block = random_layer(Block)
    x, rope = torch.randn(1, TOKENS, CONFIG.dim), rope_table([torch.arange(n) for n in (2, 8, 8)], CONFIG.head_dim)
    index = torch.arange(TOKENS).remainder(rows)[None]
    mod, text = (
        Modulation(torch.randn(rows, 6, CONFIG.dim), index if rows > 1 else index[:, :1]),
        text_keys(block.cross_attn, keys),
    )
    before, out = x.clone(), block(x, mod, rope, text)
    assert torch.equal(x, before)
    with torch.enable_grad():
        assert difference(out, block(x.requires_grad_(), mod, rope, text).detach()) < 1e-5
