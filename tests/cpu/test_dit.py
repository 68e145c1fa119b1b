"""Blocks on a CPU give what the plain ones do."""

import pytest
import torch

from tests.support.goldens import difference, golden
from wan_core.checkpoints import load_dit, load_vae
from wan_core.config import DiTConfig
from wan_core.cpu import make_dit, ops
from wan_core.cpu.dit import CpuBlock, CpuVaceBlock, add_cross_attention, folding_pays
from wan_core.cpu.vae import CpuResidualBlock
from wan_core.dit import WanDiT
from wan_core.dit.layers import Block, CrossAttention, Modulation
from wan_core.dit.rope import rope_table
from wan_core.ops import sdpa

CONFIG = DiTConfig(dim=512, ffn_dim=512, heads=4, layers=1)
TOKENS = 128


def random_layer(kind, dtype=torch.float32):
    torch.manual_seed(0)
    layer = kind(CONFIG, ops.CpuOps, sdpa).requires_grad_(False)
    for name, parameter in layer.named_parameters():
        if name.endswith(("bias", "norm_q.weight")):
            torch.nn.init.normal_(parameter)
    return layer.to(dtype)


def text_keys(layer, n, folded=True, batch=1, dtype=torch.float32):
    bias = torch.cat((torch.zeros(1, n - 1), torch.full((1, 1), 5.0)), dim=1) if folded else None
    return layer.text_keys(torch.randn(batch, n, CONFIG.dim, dtype=dtype), bias if bias is None else bias.to(dtype))


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("batch, texts", [(1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_attention_to_a_short_prompt(monkeypatch, folded, batch, texts, dtype, bound):
    monkeypatch.setattr(ops, "float32_products", lambda: True)
    layer = random_layer(CrossAttention, dtype)
    h, x, text = (
        torch.randn(batch, TOKENS, CONFIG.dim, dtype=dtype),
        torch.randn(batch, TOKENS, CONFIG.dim),
        text_keys(layer, 9, folded, texts, dtype),
    )
    assert folding_pays(layer, h, text)
    assert difference(add_cross_attention(x.clone(), layer, h, text), x + layer(h, text)) < bound


def test_a_long_prompt_or_anything_that_looks_in_is_not_folded():
    layer, h = random_layer(CrossAttention), torch.randn(1, TOKENS, CONFIG.dim)
    assert folding_pays(layer, h, text_keys(layer, 16))
    assert not folding_pays(layer, h, text_keys(layer, 103))  # 4 heads · 103 keys are no fewer than the channels
    assert not folding_pays(layer, h[:, :64], text_keys(layer, 16))  # hardly more tokens than keys
    layer.attention = lambda *args: sdpa(*args)
    assert not folding_pays(layer, h, text_keys(layer, 16))
    layer.attention = sdpa
    hook = layer.o.register_forward_hook(lambda *_: None)  # as a LoRA's
    assert not folding_pays(layer, h, text_keys(layer, 16))
    hook.remove()
    with torch.enable_grad():
        layer.o.requires_grad_()
        assert not folding_pays(layer, h, text_keys(layer, 16))


def block_inputs(block, rows, keys, dtype=torch.float32):
    """x, modulation, rope and text; one row for all tokens, or one for every other token."""
    x, rope = torch.randn(1, TOKENS, CONFIG.dim), rope_table([torch.arange(n) for n in (2, 8, 8)], CONFIG.head_dim)
    index = torch.arange(TOKENS).remainder(rows)[None]
    mod = Modulation(torch.randn(rows, 6, CONFIG.dim), index if rows > 1 else index[:, :1])
    return x, mod, rope, text_keys(block.cross_attn, keys, dtype=dtype)


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("keys", [9, 100])
def test_a_block_leaves_its_input_alone_and_is_the_plain_one(rows, keys, dtype, bound):
    block = random_layer(CpuBlock, dtype)
    given = x, mod, rope, text = block_inputs(block, rows, keys, dtype)
    tensors = [x, mod.rows, mod.index, rope, text.k, text.v, text.bias]
    versions, before = [x._version for x in tensors], [x.clone() for x in tensors]
    out = block(*given)
    assert [x._version for x in tensors] == versions
    assert all(map(torch.equal, tensors, before))
    assert difference(out, Block.forward(block, *given)) < bound


def test_a_block_has_its_own_way_and_leaves_it_for_gradients(monkeypatch):
    block = random_layer(CpuBlock)
    given = block_inputs(block, 1, 9)
    plain, calls = Block.forward, []
    monkeypatch.setattr(Block, "forward", lambda *args: (calls.append(1), plain(*args))[1])
    out = block(*given)
    assert not calls
    with torch.enable_grad():
        assert difference(out, block(given[0].requires_grad_(), *given[1:]).detach()) < 1e-5
    assert calls


def test_hooks_on_layers_are_called():
    """LoRAs are hooks on the linear layers."""
    block = random_layer(CpuBlock)
    given, seen = block_inputs(block, 1, 9), set()
    for name, layer in block.named_modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_hook(lambda *_, name=name: seen.add(name))
    block(*given)
    attention = [f"{part}_attn.{name}" for part in ("self", "cross") for name in "qkvo"]
    assert seen == {*attention, "ffn.0", "ffn.2"} - {"cross_attn.k", "cross_attn.v"}


@pytest.mark.parametrize("layers", [(), (0,)])
def test_parameters_have_the_names_of_the_plain_model(layers):
    config = DiTConfig(dim=512, ffn_dim=512, heads=4, layers=2, text_dim=64, vace_layers=layers)
    model, plain = make_dit(config).requires_grad_(False), WanDiT(config).requires_grad_(False)
    assert [type(b) for b in getattr(model, "vace_blocks", ())] == [CpuVaceBlock] * len(layers)
    torch.nn.init.normal_(model.head.head.weight, std=0.1)
    plain.load_state_dict(model.state_dict())
    assert list(plain.state_dict()) == list(model.state_dict())
    x, t, text = torch.randn(1, 16, 2, 16, 16), torch.tensor([300.0]), torch.randn(1, 5, 64)
    vace = torch.randn(1, 96, 2, 16, 16) if layers else None
    assert difference(model(x, t, text, vace=vace), plain(x, t, text, vace=vace)) < 1e-5


def test_loaders_build_for_a_cpu():
    dit, vae = (
        load_dit(golden("dit_vace").weights(), golden("dit_vace").config["model"]),
        load_vae(golden("vae22").weights()),
    )
    assert {type(block) for block in dit.blocks} == {CpuBlock} and {type(b) for b in dit.vace_blocks} == {CpuVaceBlock}
    assert {type(module) for module in vae.modules() if hasattr(module, "residual")} == {CpuResidualBlock}
