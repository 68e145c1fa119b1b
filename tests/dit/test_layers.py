"""The plain blocks."""

import pytest
import torch

from wan_core.config import DiTConfig
from wan_core.dit.layers import Block, Modulation
from wan_core.dit.rope import rope_table, rotate
from wan_core.dit.vace import VaceBlock
from wan_core.ops import sdpa

CONFIG = DiTConfig(dim=64, ffn_dim=96, heads=4, layers=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("kind", [Block, lambda *args: VaceBlock(*args, first=True)], ids=["main", "vace"])
def test_a_block_leaves_its_inputs_alone(kind, rows, dtype):
    torch.manual_seed(0)
    block = kind(CONFIG, torch.nn, sdpa).requires_grad_(False).to(dtype)
    x, rope = torch.randn(2, 12, CONFIG.dim), rope_table([torch.arange(n) for n in (3, 2, 2)], CONFIG.head_dim)
    index = torch.arange(12).remainder(rows)[None]
    mod = Modulation(torch.randn(rows, 6, CONFIG.dim), index if rows > 1 else index[:, :1])
    text = block.cross_attn.text_keys(torch.randn(1, 5, CONFIG.dim, dtype=dtype), None)
    tensors = [x, mod.rows, mod.index, rope, text.k, text.v]
    before = [(tensor._version, tensor.clone()) for tensor in tensors]
    assert not torch.equal(block(x, mod, rope, text), x)
    for tensor, (version, values) in zip(tensors, before, strict=True):
        assert tensor._version == version and torch.equal(tensor, values)


def test_each_token_gets_the_modulation_of_its_timestep():
    torch.manual_seed(0)
    block = Block(CONFIG, torch.nn, sdpa).requires_grad_(False)
    block.self_attn.attention = lambda q, k, v, bias: v  # no token sees another
    x, rope = torch.randn(1, 4, CONFIG.dim), rope_table([torch.arange(n) for n in (1, 2, 2)], CONFIG.head_dim)
    rows, index = torch.randn(2, 6, CONFIG.dim), torch.tensor([[0, 1, 1, 0]])
    text = block.cross_attn.text_keys(torch.randn(1, 5, CONFIG.dim), None)
    both = block(x, Modulation(rows, index), rope, text)
    for row in (0, 1):
        alone = block(x, Modulation(rows[row : row + 1], torch.zeros(1, 1, dtype=torch.int64)), rope, text)
        assert torch.allclose(both[index == row], alone[index == row], atol=1e-6)


def test_rotation_leaves_its_input_alone():
    x, table = torch.randn(1, 4, 2, 16), rope_table([torch.arange(n) for n in (1, 2, 2)], 16)
    before = x.clone()
    assert not torch.equal(rotate(x, table), x) and torch.equal(x, before)
