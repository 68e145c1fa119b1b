from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.support.goldens import difference, golden
from wan_core.checkpoints import load_dit
from wan_core.config import PRESETS, DiTConfig
from wan_core.dit import WanDiT
from wan_core.dit.layers import folded_scores
from wan_core.errors import InputError

NAMES = ("dit_t2v", "dit_i2v", "dit_ti2v", "dit_vace")
CASES = [
    (name, case, sample)
    for name in NAMES
    for case, c in golden(name).config["cases"].items()
    for sample in range(len(c["shapes"]))
]


def inputs(g, case, sample=0):
    """Arguments of one sample of a recorded case, without its sequence padding."""
    c = g.config["cases"][case]
    source = c.get("inputs_of", case)
    x = g[f"in.{source}.x{sample}"][None]
    t = g[f"in.{case}.t"][sample : sample + 1]
    t = t if t.ndim == 1 else t[:, : x[0, 0].numel() // 4]
    kwargs = {name: v[None] for name in ("y", "vace") if (v := g.get(f"in.{source}.{name}{sample}")) is not None}
    if "context_scale" in c:
        kwargs["vace_scale"] = c["context_scale"]
    return (x, t, g[f"in.{source}.context{sample}"][None]), kwargs


@pytest.mark.parametrize("name, case, sample", CASES)
def test_velocity_is_the_official_one(name, case, sample):
    g = golden(name)
    text_len = g.config["cases"][case].get("text_len", g.config["model"]["text_len"])
    model = load_dit(g.weights(), g.config["model"] | {"text_len": text_len})
    args, kwargs = inputs(g, case, sample)
    assert difference(model(*args, **kwargs)[0], g[f"out.{case}.out{sample}"]) < 4e-5


@pytest.mark.parametrize("name", NAMES)
def test_intermediates_are_the_official_ones(name):
    g = golden(name)
    model = load_dit(g.weights(), g.config["model"])
    (x, t, text), kwargs = inputs(g, "a")
    seen = {}
    for i, block in enumerate(model.blocks):
        block.register_forward_hook(lambda module, args, out, i=i: seen.__setitem__(f"block{i}", out))
    model(x, t, text, **kwargs)
    tokens, _ = model.embed(x if "y" not in kwargs else torch.cat((x, kwargs["y"]), dim=1))
    assert difference(tokens, g["out.a.mid.tokens"]) < 3e-4
    e, mod = model.embed_time(t)
    recorded = g["out.a.mid.e"]
    assert difference(e[mod.index].expand(recorded.shape) if recorded.ndim == 3 else e, recorded) < 3e-4
    for i in range(len(model.blocks)):
        if not model.config.vace_layers:  # our VACE residuals are added after the recorded output
            assert difference(seen[f"block{i}"], g[f"out.a.mid.block{i}"]) < 3e-4


@pytest.mark.parametrize(
    "preset, parameters, tensors",
    [
        ("t2v-a14b", 14_288_491_584, 1095),
        ("i2v-a14b", 14_288_901_184, 1095),
        ("ti2v-5b", 4_999_787_712, 825),
        ("vace-a14b", 17_337_592_896, 1331),
        ("wan21-t2v-1.3b", 1_418_996_800, 825),
        ("wan21-vace-1.3b", 2_153_972_032, 1264),
    ],
)
def test_real_sizes(preset, parameters, tensors):
    with torch.device("meta"):
        state = WanDiT(PRESETS[preset].dit).state_dict()
    assert (sum(t.numel() for t in state.values()), len(state)) == (parameters, tensors)


def test_samples_of_a_batch_do_not_mix():
    g = golden("dit_i2v")
    model = load_dit(g.weights(), g.config["model"])
    (x, t, text), kwargs = inputs(g, "a")
    other = {name: torch.randn_like(v) for name, v in kwargs.items()}
    both = model(
        torch.cat((x, torch.randn_like(x))),
        torch.cat((t, t - 100)),
        torch.cat((text, torch.randn_like(text))),
        **{name: torch.cat((kwargs[name], other[name])) for name in kwargs},
    )
    assert difference(both[:1], model(x, t, text, **kwargs)) < 1e-5


def test_one_timestep_serves_a_batch():
    g = golden("dit_t2v")
    model = load_dit(g.weights(), g.config["model"])
    (x, t, text), _ = inputs(g, "a")
    both = torch.cat((x, x.flip(-1)))
    assert torch.equal(model(both, t, text.repeat(2, 1, 1)), model(both, t.repeat(2), text.repeat(2, 1, 1)))


def test_several_controls_add_up():
    g = golden("dit_vace")
    model = load_dit(g.weights(), g.config["model"])
    args, kwargs = inputs(g, "a")
    control = kwargs.pop("vace")
    alone = model(*args, vace=control, vace_scale=0.7)
    assert difference(model(*args, vace=[control, torch.randn_like(control)], vace_scale=[0.7, 0.0]), alone) < 1e-5
    assert difference(model(*args, vace=[control, control], vace_scale=[0.5, 0.2]), alone) < 1e-4
    assert difference(model(*args, vace=[control, control], vace_scale=torch.tensor([0.5, 0.2])), alone) < 1e-4
    for wrong in (control[:, :90], control[..., :2], control[0]):
        with pytest.raises(InputError, match="VACE condition of shape"):
            model(*args, vace=wrong)
    assert difference(model(*args, vace=control, vace_scale=0.0), alone) > 1e-2


def count_rows(model):
    """Module name → rows that went through its Linear layers."""
    rows = {}

    def hook(module, args, out, name):
        rows[name] = rows.get(name, 0) + args[0][..., 0].numel()

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda m, a, o, name=name: hook(m, a, o, name))
    return rows


def test_time_embedding_is_computed_once_per_distinct_timestep():
    g = golden("dit_ti2v")
    model = load_dit(g.weights(), g.config["model"])
    rows = count_rows(model)
    args, kwargs = inputs(g, "a")
    model(*args, **kwargs)
    assert rows["time_embedding.0"] == rows["time_projection.1"] == 2  # given frame at 0, the others at t


def test_a_run_computes_text_and_rope_once(monkeypatch):
    g = golden("dit_t2v")
    model = load_dit(g.weights(), g.config["model"])
    (x, t, text), _ = inputs(g, "a")
    negative = torch.randn_like(text)
    first = model(x, t, text)
    calls, rope = [], model.rope
    monkeypatch.setattr(model, "rope", lambda *a: (calls.append(a), rope(*a))[1])
    rows, run = count_rows(model), model.session()
    for step in range(3):
        t = t - step
        results = [run(x, t, prompt) for prompt in (text, negative)]
        if step == 0:
            assert torch.equal(results[0], first)
    tokens = 2 * (text.shape[1] + 1)  # both prompts, each with its folded padding
    assert rows["text_embedding.0"] == rows["blocks.0.cross_attn.k"] == rows["blocks.1.cross_attn.v"] == tokens
    assert rows["time_embedding.0"] == 3
    assert len(calls) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("padding", [1, 2, 37, 505, 511])
def test_folded_keys_weigh_as_much_as_the_padding(dtype, padding):
    scores = folded_scores(padding, dtype)
    assert scores.dtype == dtype and len(scores) <= 4
    assert scores.double().exp().sum().item() == pytest.approx(padding, rel=2e-5)


def test_full_length_text_needs_no_padding():
    g = golden("dit_t2v")
    model = load_dit(g.weights(), g.config["model"])
    (x, t, text), _ = inputs(g, "a")
    padded = torch.cat((text, text.new_zeros(1, model.config.text_len - text.shape[1], text.shape[2])), dim=1)
    assert difference(model(x, t, padded), model(x, t, text)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_stays_close(name, dtype):
    g = golden(name)
    model = load_dit(g.weights(), g.config["model"], dtype=dtype)
    args, kwargs = inputs(g, "a")
    out, reference = model(*args, **kwargs)[0], g["out.a.out0"]
    assert out.dtype == torch.float32
    assert (out - reference).norm() / reference.norm() < (2e-2 if dtype == torch.bfloat16 else 3e-3)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"x": torch.zeros(1, 16, 3, 6, 8), "y": torch.zeros(1, 20, 3, 6, 8)}, "36 input channels.*16"),
        ({"x": torch.zeros(1, 16, 3, 5, 8)}, "multiples of the patch"),
        ({"x": torch.zeros(1, 16, 6, 8)}, r"x of shape \(1, 16, 6, 8\).*video latent"),
        ({"x": torch.zeros(3, 16, 3, 6, 8), "y": torch.zeros(2, 0, 3, 6, 8)}, "one y or one for each"),
        ({"t": torch.zeros(1, 7)}, r"t of shape \(1, 7\)"),
        ({"t": torch.tensor(500)}, r"t of shape \(\)"),
        ({"text": torch.zeros(1, 3, 9)}, "text of shape"),
        ({"text": torch.zeros(1, 99, 40)}, "text of shape"),
        ({"vace": torch.zeros(1, 96, 3, 6, 8)}, "VACE"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(change, message):
    g = golden("dit_t2v")
    model = load_dit(g.weights(), g.config["model"])
    arguments = {"x": torch.zeros(1, 16, 3, 6, 8), "t": torch.tensor([500]), "text": torch.zeros(1, 3, 40)} | change
    with pytest.raises(InputError, match=message):
        model(**arguments)


def test_weights_for_any_layer_factory():
    """Layers come from `ops`, so a host can bring its own."""

    class Ops:
        LayerNorm, RMSNorm, Conv3d, Embedding = nn.LayerNorm, nn.RMSNorm, nn.Conv3d, nn.Embedding

        class Linear(nn.Linear):
            used = 0

            def forward(self, x):
                Ops.Linear.used += 1
                return super().forward(x)

    g = golden("dit_t2v")
    config = DiTConfig.from_dict(g.config["model"])
    model = WanDiT(config, ops=Ops)
    model.load_state_dict(g.weights())
    args, _ = inputs(g, "a")
    assert difference(model(*args)[0], g["out.a.out0"]) < 4e-5
    assert Ops.Linear.used == 2 + 3 + 10 * config.layers + 1  # text, time, ten a block, head


def test_attention_can_be_replaced():
    g = golden("dit_t2v")
    calls = []

    def attention(q, k, v, bias):
        calls.append(k.shape[1])
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
        return torch.einsum("bhqk,bkhd->bqhd", (scores if bias is None else scores + bias).softmax(-1), v)

    model = WanDiT(DiTConfig.from_dict(g.config["model"]), attention=attention)
    model.load_state_dict(g.weights())
    args, _ = inputs(g, "a")
    assert difference(model(*args)[0], g["out.a.out0"]) < 4e-5
    assert calls == [45, 8] * 2  # tokens, then 7 words and the folded padding


def test_gradients_flow():
    config = replace(DiTConfig(), dim=32, ffn_dim=48, heads=2, layers=1, text_dim=8, text_len=6)
    model = WanDiT(config)
    with torch.enable_grad():
        model(torch.randn(1, 16, 2, 4, 4), torch.tensor([300.0]), torch.randn(1, 3, 8)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
