import pytest
import torch

from tests.support.goldens import difference, golden
from wan_core.checkpoints import load_dit
from wan_core.errors import InputError
from wan_core.flow import SOLVERS, Experts, FlowSchedule, sample


class Recorder:
    """A model that answers with a multiple of x and remembers what it was asked."""

    def __init__(self, factor):
        self.factor, self.asked = factor, []

    def __call__(self, x, t, text, y=None, vace=None, vace_scale=1.0):
        self.asked.append((int(t.max()), float(text.mean())))
        return self.factor * x * text.mean()


POSITIVE, NEGATIVE = torch.full((1, 3, 4), 2.0), torch.full((1, 3, 4), 0.5)


def test_each_step_is_answered_by_the_expert_it_starts_in():
    high, low = Recorder(0.1), Recorder(0.2)
    experts, schedule = Experts(high, low, 0.875), FlowSchedule.official(20, 8.0)
    sample(experts.velocity(POSITIVE, NEGATIVE), torch.randn(1, 2, 1, 2, 2), schedule)
    steps = list(zip(schedule.timesteps.tolist(), experts.plan(schedule), strict=True))
    assert {t for t, _ in high.asked} == {t for t, expert in steps if expert == "high"}
    assert {t for t, _ in low.asked} == {t for t, expert in steps if expert == "low"}
    assert len(high.asked) + len(low.asked) == 2 * len(schedule)


def test_guidance_is_that_of_the_expert_at_work():
    experts = Experts(Recorder(1.0), Recorder(1.0), 0.5, cfg_high=4.0, cfg_low=3.0)
    velocity, x = experts.velocity(POSITIVE, NEGATIVE), torch.ones(1, 1)
    assert velocity(x, torch.tensor([900])).item() == pytest.approx(0.5 + 4 * 1.5)
    assert velocity(x, torch.tensor([100])).item() == pytest.approx(0.5 + 3 * 1.5)


def test_a_scale_of_one_skips_the_negative_pass():
    high, low = Recorder(1.0), Recorder(1.0)
    velocity = Experts(high, low, 0.5, cfg_high=1.0, cfg_low=2.0).velocity(POSITIVE, NEGATIVE)
    velocity(torch.ones(1, 1), torch.tensor([900]))
    velocity(torch.ones(1, 1), torch.tensor([100]))
    assert [text for _, text in high.asked] == [2.0]
    assert [text for _, text in low.asked] == [2.0, 0.5]


def test_no_negative_is_needed_where_both_scales_are_one():
    velocity = Experts(Recorder(1.0), Recorder(1.0), 0.5, 1.0, 1.0).velocity(POSITIVE, None)
    assert velocity(torch.ones(1, 1), torch.tensor([900])).item() == 2.0


def test_guidance_without_a_negative_is_refused():
    with pytest.raises(InputError, match="negative"):
        Experts(Recorder(1.0), None).velocity(POSITIVE, None)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_same_model_twice_is_the_model_alone(solver):
    """The handoff leaves the solver's history alone."""
    model, schedule, x = Recorder(0.4), FlowSchedule.official(12, 8.0, solver), torch.randn(1, 2, 1, 4, 4)
    alone = sample(Experts(model, None, cfg_high=3.0).velocity(POSITIVE, NEGATIVE), x, schedule, solver)
    pair = Experts(model, model, 0.875, 3.0, 3.0)
    assert set(pair.plan(schedule)) == {"high", "low"}
    assert torch.equal(alone, sample(pair.velocity(POSITIVE, NEGATIVE), x, schedule, solver))


def test_only_the_expert_at_work_keeps_its_memory():
    alive = []

    class Expert(Recorder):
        def session(self):
            import weakref

            bound = Recorder(self.factor)
            alive.append(weakref.ref(bound))
            return bound

    velocity = Experts(Expert(1.0), Expert(1.0), 0.5).velocity(POSITIVE, NEGATIVE)
    velocity(torch.ones(1, 1), torch.tensor([900]))
    velocity(torch.ones(1, 1), torch.tensor([800]))
    assert len(alive) == 1 and alive[0]() is not None
    velocity(torch.ones(1, 1), torch.tensor([100]))
    assert len(alive) == 2 and alive[0]() is None


@pytest.mark.parametrize("batch_cfg", [False, True])
@pytest.mark.parametrize("solver, recorded", [("unipc", "unipc"), ("dpmpp_2m", "dpmpp")])
def test_official_text_to_video_run(solver, recorded, batch_cfg):
    from wan_core.checkpoints import load_dit

    g = golden("moe_t2v_e2e")
    c = g.config
    low, high = c["guide_scale_low_high"]
    experts = Experts(
        *(load_dit(g.weights(expert), c["model"]) for expert in ("high", "low")), c["boundary"], high, low
    )
    schedule = FlowSchedule.official(c["steps"], c["shift"], solver)
    guided = experts.velocity(g["in.context"][None], g["in.context_null"][None], batch_cfg=batch_cfg)
    latents, predictions, told = [], [], []

    def velocity(x, t):
        latents.append(x[0])
        predictions.append(guided(x, t)[0])
        told.append(int(t))
        return predictions[-1][None]

    final = sample(velocity, g["in.noise"][None], schedule, solver)[0]
    out = f"out.{recorded}"
    assert told == g[f"{out}.model_t"].tolist()
    assert [expert == "high" for expert in experts.plan(schedule)] == g[f"{out}.expert_is_high"].bool().tolist()
    assert difference(final, g[f"{out}.final"]) < 3e-4
    if recorded == "unipc":
        assert difference(torch.stack([*latents, final]), g[f"{out}.latents"]) < 3e-4
        assert difference(torch.stack(predictions), g[f"{out}.noise_pred"]) < 5e-4


def test_models_are_told_only_what_there_is():
    seen = []
    experts = Experts(lambda x, t, text: seen.append((x.shape, t.tolist())) or x, None, None, 1.0, None)
    experts.velocity(POSITIVE, None)(torch.ones(2, 1), 500)
    assert seen == [(torch.Size([2, 1]), [500, 500])]
    told = {}
    pair = Experts(lambda x, t, text, **given: told.update(given) or x, None, cfg_high=1.0)
    pair.velocity(POSITIVE, None, y=1, vace=2, vace_scale=0.5)(torch.ones(1, 1), torch.tensor([9]))
    assert told == {"y": 1, "vace": 2, "vace_scale": 0.5}


def test_each_sample_of_a_list_goes_through_the_model_alone():
    model = Recorder(1.0)
    x = torch.randn(2, 3)
    both = Experts(model, None, cfg_high=2.0).velocity([POSITIVE, NEGATIVE], [NEGATIVE, NEGATIVE])(
        x, torch.tensor([5, 5])
    )
    for k, text in enumerate((POSITIVE, NEGATIVE)):
        alone = Experts(model, None, cfg_high=2.0).velocity(text, NEGATIVE)(x[k : k + 1], torch.tensor([5]))
        assert torch.equal(both[k : k + 1], alone)


@pytest.mark.parametrize("batched_text", [True, False])
def test_one_condition_serves_a_batch_and_several_go_to_their_samples(batched_text):
    """The same velocity whichever way text and condition are given."""
    g = golden("dit_i2v")
    model = load_dit(g.weights(), g.config["model"])
    torch.manual_seed(0)
    x, y, t = torch.randn(2, 16, 3, 4, 6), torch.randn(2, 20, 3, 4, 6), torch.tensor([700, 700])
    text = torch.randn(2, 3, g.config["model"]["text_dim"])
    texts = text if batched_text else list(text.split(1))
    experts = Experts(model, None, cfg_high=1.0)
    alone = [experts.velocity(text[k : k + 1], None, y=y[k : k + 1])(x[k : k + 1], t[:1]) for k in (0, 1)]
    assert torch.allclose(experts.velocity(texts, None, y=y)(x, t), torch.cat(alone), atol=1e-5)
    shared = [experts.velocity(text[k : k + 1], None, y=y[:1])(x[k : k + 1], t[:1]) for k in (0, 1)]
    assert torch.allclose(experts.velocity(texts, None, y=y[:1])(x, t), torch.cat(shared), atol=1e-5)


def test_a_sample_by_itself_gets_its_own_part_of_every_condition():
    asked = []

    def model(x, t, text, **conditions):
        asked.append(conditions)
        return x

    image, contexts = torch.randn(2, 5, 8), [torch.randn(2, 16, 1, 4, 4), torch.randn(1, 16, 1, 2, 2)]
    velocity = Experts(model, None, cfg_high=1.0).velocity(
        [POSITIVE, NEGATIVE], None, context_latents=contexts, image_embeds=image
    )
    velocity(torch.randn(2, 16, 1, 4, 4), torch.tensor([5, 5]))
    for k, own in enumerate(asked):
        assert torch.equal(own["image_embeds"], image[k : k + 1])
        assert torch.equal(own["context_latents"][0], contexts[0][k : k + 1])
        assert own["context_latents"][1] is contexts[1]


@pytest.mark.parametrize("alone", [False, True])
def test_both_passes_in_one_batch_are_one_call_with_the_same_answer(alone):
    """Control of VACE, texts of different lengths; as a tensor, or for each sample."""
    g = golden("dit_vace")
    model = load_dit(g.weights(), g.config["model"])
    torch.manual_seed(0)
    count = 2 if alone else 1
    x, t = torch.randn(count, *g["in.a.x0"].shape), torch.full((count,), 700)
    positive, negative = (torch.randn(count, n, g.config["model"]["text_dim"]) for n in (3, 7))
    if alone:
        positive, negative = positive.split(1), negative[:1].expand(2, -1, -1).split(1)
    vace = torch.randn(1, model.config.vace_channels, *x.shape[2:])
    calls = []
    model.register_forward_hook(lambda module, given, out: calls.append(len(out)))
    answers = [
        Experts(model, None, cfg_high=4.0).velocity(positive, negative, vace=vace, batch_cfg=batch)(x, t)
        for batch in (False, True)
    ]
    assert calls == [1, 1] * count + [2] * count
    assert difference(*answers) < 2e-5


def test_a_scale_of_one_makes_no_batch():
    asked = []
    experts = Experts(lambda x, t, text: asked.append(len(x)) or x, None, cfg_high=1.0)
    experts.velocity(POSITIVE, NEGATIVE, batch_cfg=True)(torch.ones(1, 1), 500)
    assert asked == [1]
