"""Contexts, a reference and an image beside the video. Against other implementations: tests/diffusers, tests/nodes."""

import pytest
import torch

from tests.support.branches import BRANCHES, TOKENS, conditions, inputs, tiny_dit
from tests.support.goldens import difference
from wan_core.config import DiTConfig
from wan_core.cpu import make_dit
from wan_core.dit import WanDiT
from wan_core.dit.rope import rope_table
from wan_core.errors import CheckpointError, InputError
from wan_core.memory import ModelOffloader, OffloadedExpert


def sample(value, n):
    return [v[n : n + 1] for v in value] if isinstance(value, list) else value[n : n + 1]


@pytest.mark.parametrize("family", BRANCHES)
def test_every_condition_counts(family):
    model, args, given = tiny_dit(family), inputs(family), conditions(family)
    out = model(*args, **given)
    assert out.shape == args[0].shape and out.isfinite().all()
    for name in given:
        other = given | {name: conditions(family, seed=9)[name]}
        assert difference(model(*args, **other), out) > 1e-3, name


@pytest.mark.parametrize("family", BRANCHES)
def test_nothing_given_is_the_plain_model(family):
    """Contexts and a reference bring tokens of their own; without them not a number changes."""
    model, args = tiny_dit(family), inputs(family)
    y = {"y": given["y"]} if "y" in (given := conditions(family)) else {}
    assert torch.equal(model(*args, **y, context_latents=(), reference_latent=None), model(*args, **y))
    if not model.config.image_dim:
        plain = WanDiT(DiTConfig(**{**vars(model.config), "reference_channels": 0})).requires_grad_(False)
        plain.load_state_dict({name: v for name, v in model.state_dict().items() if not name.startswith("ref_conv.")})
        assert torch.equal(model(*args, **y), plain(*args, **y))


@pytest.mark.parametrize("family", BRANCHES)
def test_samples_of_a_batch_do_not_mix(family):
    model, (x, t, text), given = tiny_dit(family), inputs(family, 2), conditions(family, 2)
    both = model(x, t, text, **given)
    for n in (0, 1):
        alone = {name: sample(value, n) for name, value in given.items()}
        out = model(*(sample(value, n) for value in (x, t, text)), **alone)
        assert difference(both[n : n + 1], out) < 2e-5


@pytest.mark.parametrize("family", BRANCHES)
def test_one_condition_serves_a_batch(family):
    model, args, given = tiny_dit(family), inputs(family, 2), conditions(family)
    repeated = {
        name: [v.repeat(2, 1, 1, 1, 1) for v in value]
        if isinstance(value, list)
        else value.repeat(2, *[1] * (value.ndim - 1))
        for name, value in given.items()
    }
    assert difference(model(*args, **given), model(*args, **repeated)) < 1e-5


@pytest.mark.parametrize("family", BRANCHES)
def test_a_run_keeps_what_does_not_change(family):
    """Image keys are made once, whatever prompts and timesteps come; another image is another one."""
    model, (x, t, text), given = tiny_dit(family), inputs(family), conditions(family)
    negative, made, run = torch.randn_like(text), [], model.session()
    if model.config.image_dim:
        for layer in (model.img_emb, model.blocks[1].cross_attn.k_img):
            layer.register_forward_hook(lambda *_, layer=layer: made.append(layer))
    for step in (t, t - 1):
        for prompt in (text, negative):
            assert torch.equal(run(x, step, prompt, **given), model(x, step, prompt, **given))
    other = conditions(family, seed=9)
    assert torch.equal(run(x, t, text, **other), model(x, t, text, **other))
    assert torch.equal(run(x, t, text, **given), model(x, t, text, **given))
    calls = [made.count(layer) for layer in dict.fromkeys(made)]
    assert calls == ([2 + 6, 2 + 6] if model.config.image_dim else [])  # two images in the run, six calls outside it


@pytest.mark.parametrize("family", ["bernini-r", "fun-control", "wan21-i2v", "wan21-flf2v"])
def test_the_model_for_a_cpu_is_the_plain_one(family):
    model, args, given = tiny_dit(family, make_dit), inputs(family), conditions(family)
    plain = WanDiT(model.config).requires_grad_(False)
    plain.load_state_dict(model.state_dict())
    assert difference(model(*args, **given), plain(*args, **given)) < 1e-5


@pytest.mark.parametrize("family", ["bernini-r", "fun-control", "wan21-flf2v"])
def test_compiled_and_offloaded_blocks_give_the_same(family):
    model, args, given = tiny_dit(family), inputs(family), conditions(family)
    plain = model(*args, **given)
    for block in model.blocks:
        block.compile(backend="eager")
    assert difference(model(*args, **given), plain) < 1e-5
    offloader = ModelOffloader("cpu", exclusive=True)
    run = OffloadedExpert(model, offloader).session()
    for _ in range(2):  # what the run keeps stays where the model was
        assert difference(run(*args, **given), plain) < 1e-5
        offloader.offload()


@pytest.mark.parametrize("family", ["bernini-r", "fun-control"])
def test_tokens_besides_the_video_leave_with_the_last_block(family):
    """Where no token sees another, what stands beside the video changes nothing of it."""
    model, args, given = tiny_dit(family), inputs(family), conditions(family)
    for block in model.blocks:
        block.self_attn.attention = lambda q, k, v, bias: v
    plain = {name: value for name, value in given.items() if name == "y"}
    assert difference(model(*args, **given), model(*args, **plain)) < 1e-5


@pytest.mark.parametrize("family", ["bernini-r", "fun-control-5b"])
def test_a_timestep_for_each_token_of_the_video(family):
    """What stands beside the video has the timestep of its last token."""
    model, (x, t, text), given = tiny_dit(family), inputs(family), conditions(family)
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[1].index[0].tolist()))
    by_token = t.repeat(1, TOKENS).clone()
    assert difference(model(x, by_token, text, **given), model(x, t, text, **given)) < 1e-6
    by_token[:, :12] = 0
    model(x, by_token, text, **given)
    beside = [12, 0] if family == "fun-control-5b" else [0, 2 * 6 + 10]
    assert seen[-1] == [1] * beside[0] + [0] * 12 + [1] * (TOKENS - 12) + [1] * beside[1]


def test_contexts_are_told_apart_by_their_place():
    model, args = tiny_dit("bernini-r"), inputs("bernini-r")
    first, second = conditions("bernini-r")["context_latents"]
    out = model(*args, context_latents=[first, second])
    assert difference(model(*args, context_latents=[second, first]), out) > 1e-3
    assert difference(model(*args, context_latents=[first]), out) > 1e-3
    assert torch.equal(model(*args, context_latents=(first, second)), out)


def test_a_run_with_other_contexts_has_other_positions():
    model, args, run = tiny_dit("bernini-r"), inputs("bernini-r"), tiny_dit("bernini-r").session()
    for contexts in ([], [torch.randn(1, 16, 1, 4, 6)], [torch.randn(1, 16, 1, 6, 4)], []):
        assert torch.equal(run(*args, context_latents=contexts), model(*args, context_latents=contexts))


@pytest.mark.parametrize("head_dim", [16, 128])
def test_rotation_of_a_source(head_dim):
    positions = [torch.arange(n) for n in (2, 3, 4)]
    plain, third = (rope_table(positions, head_dim, source=source) for source in (0, 3))
    angles = 3 * 10000.0 ** (-torch.arange(0, head_dim, 2).double() / head_dim)
    assert difference((third / plain).angle(), angles.float().expand(24, -1)) < 1e-6  # all below pi


def test_an_image_branch_without_an_image_attends_to_the_text():
    """As the native model does: the numbers are compared in tests/nodes. Padding weighs as in the text branch."""
    model, (x, t, text) = tiny_dit("wan21-i2v"), inputs("wan21-i2v")
    y = conditions("wan21-i2v")["y"]
    padded = torch.cat((text, text.new_zeros(1, model.config.text_len - 7, text.shape[2])), dim=1)
    assert difference(model(x, t, padded, y=y), model(x, t, text, y=y)) < 1e-5
    assert difference(model(x, t, text, y=y), model(x, t, text, **conditions("wan21-i2v"))) > 1e-3


def test_first_and_last_image_have_positions():
    model, args, given = tiny_dit("wan21-flf2v"), inputs("wan21-flf2v"), conditions("wan21-flf2v")
    image = given.pop("image_embeds")
    out = model(*args, image_embeds=image, **given)
    assert difference(model(*args, image_embeds=image.flip(1), **given), out) > 1e-3
    more = torch.cat((image, torch.randn(1, 9, 64)), dim=1)
    assert torch.equal(model(*args, image_embeds=more, **given), out), "tokens without a position are left out"
    first = model(*args, image_embeds=image[:, :257], **given)
    assert first.isfinite().all() and difference(first, out) > 1e-3


def test_the_image_is_attended_to_by_the_backend_that_the_model_was_made_with():
    from wan_core.attention import use_attention
    from wan_core.ops import sdpa

    model, args, given = tiny_dit("wan21-i2v"), inputs("wan21-i2v"), conditions("wan21-i2v")
    keys = []
    use_attention(model, lambda q, k, v, bias: (keys.append(k.shape[1]), sdpa(q, k, v, bias))[1])
    model(*args, **given)
    assert 257 not in keys and len(keys) == 2 * len(model.blocks)


@pytest.mark.parametrize("dtype, bound", [(torch.bfloat16, 3e-2), (torch.float16, 5e-3)])
@pytest.mark.parametrize("family", BRANCHES)
def test_half_precision_stays_close(family, dtype, bound):
    from wan_core.checkpoints import load_dit

    model, args, given = tiny_dit(family), inputs(family), conditions(family)
    half, reference = load_dit(model.state_dict(), dtype=dtype), model(*args, **given)
    out = half(*args, **given)
    assert out.dtype == torch.float32
    assert (out - reference).norm() / reference.norm() < bound


@pytest.mark.parametrize(
    "family, change, message",
    [
        ("bernini-r", {"context_latents": [torch.zeros(1, 16, 3, 5, 8)]}, r"size \(3, 5, 8\).*multiples of"),
        (
            "bernini-r",
            {"context_latents": [torch.zeros(1, 36, 3, 6, 8)]},
            r"\(1, 36, 3, 6, 8\).*\(1, 16, any, any, any\)",
        ),
        ("bernini-r", {"context_latents": [torch.zeros(2, 16, 3, 6, 8)]}, "context latent of shape"),
        ("bernini-r", {"context_latents": [torch.zeros(1, 16, 0, 6, 8)]}, "context latent of shape"),
        ("bernini-r", {"context_latents": torch.zeros(1, 16, 1, 6, 8)}, "context latent of shape"),
        (
            "bernini-r",
            {"reference_latent": torch.zeros(1, 16, 1, 6, 8)},
            "reference latent for a model that takes none",
        ),
        ("bernini-r", {"image_embeds": torch.zeros(1, 257, 1280)}, "without an image branch"),
        ("fun-control", {"reference_latent": torch.zeros(1, 16, 2, 6, 8)}, r"\(1, 16, 1, 6, 8\)"),
        ("fun-control", {"reference_latent": torch.zeros(1, 16, 1, 6, 6)}, r"\(1, 16, 1, 6, 8\)"),
        ("fun-control", {"reference_latent": torch.zeros(1, 16, 6, 8)}, "reference latent of shape"),
        ("wan21-i2v", {"image_embeds": torch.zeros(1, 257, 1280)}, r"\(1, 257, 1280\).*\(1, any, 64\)"),
        ("wan21-i2v", {"image_embeds": torch.zeros(3, 257, 64)}, "image embeddings of shape"),
        ("wan21-i2v", {"image_embeds": torch.zeros(1, 0, 64)}, "image embeddings of shape"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(family, change, message):
    with pytest.raises(InputError, match=message):
        tiny_dit(family)(*inputs(family), **conditions(family) | change)


def test_a_vace_model_takes_no_contexts():
    model = tiny_dit("bernini-r", vace_layers=(0,))
    with pytest.raises(InputError, match=r"context latents for a VACE model.*vace="):
        model(*inputs("bernini-r"), **conditions("bernini-r"))


@pytest.mark.parametrize(
    "sizes",
    [
        {"image_positions": 514},
        {"image_dim": -1},
        {"image_dim": "1280"},
        {"reference_channels": True},
        {"vace_layers": (0,), "image_dim": 1280},
        {"vace_layers": (0,), "reference_channels": 16},
    ],
)
def test_configs_that_make_no_sense(sizes):
    with pytest.raises(CheckpointError, match="config with"):
        DiTConfig(**sizes)


@pytest.mark.parametrize("family, parameters", [("wan21-i2v", 16_395_000_000), ("wan21-flf2v", 16_396_000_000)])
def test_real_sizes(family, parameters):
    """Parameters as the released files have them, in billions: 16.40."""
    config = BRANCHES[family]
    real = DiTConfig(in_channels=36, image_dim=1280, image_positions=config.image_positions)
    with torch.device("meta"):
        state = WanDiT(real).state_dict()
    assert abs(sum(t.numel() for t in state.values()) - parameters) < 5e6
    assert len(state) == 1095 + 8 + 40 * 5 + bool(real.image_positions)
