"""What does not change between steps is computed once: texts, cross-attention keys, rotary tables, time embeddings."""

from collections import Counter

import pytest

from tests.support.small_clips import PROMPTS, SMALL, SMALL_5B, picture
from wan_core import WanPipeline


@pytest.mark.parametrize("few_tokens", [0, 512])
@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize(
    "name, inputs",
    [
        ("t2v-a14b", {}),
        ("i2v-a14b", {"image": picture()}),
        ("vace-a14b", {"reference_images": [picture()]}),
        ("ti2v-5b", {}),
        ("ti2v-5b", {"image": picture(64, 64)}),
    ],
)
def test_nothing_is_computed_twice_in_a_run(name, inputs, offload, few_tokens, official_folder, monkeypatch):
    monkeypatch.setattr("wan_core.pipeline.pipeline.BATCHED_CFG_MAX_TOKENS", few_tokens)
    pipe = WanPipeline.from_pretrained(official_folder(name))
    if offload:
        pipe.enable_model_cpu_offload()
    rows, calls = Counter(), Counter()  # of each expert's layers

    def watch(expert, model):
        for part, layer in model.named_modules():
            if part in ("text_embedding.0", "time_embedding.0", "time_projection.1") or part.endswith(
                ("cross_attn.k", "cross_attn.v")
            ):
                layer.register_forward_hook(
                    lambda m, given, out, key=(expert, part): rows.update({key: given[0][..., 0].numel()})
                )
        rope = model.rope
        monkeypatch.setattr(model, "rope", lambda *args: (calls.update([expert]), rope(*args))[1])

    models = {"high": pipe.high} | ({"low": pipe.low} if pipe.low else {})
    for expert, model in models.items():
        watch(expert, model)
    texts = []
    pipe.text_encoder.register_forward_hook(lambda m, given, out: texts.append(out.shape[1]))
    prompts = [*PROMPTS, PROMPTS[0]]
    out = pipe(prompts, **inputs, **(SMALL_5B if name == "ti2v-5b" else SMALL) | {"num_inference_steps": 6})

    assert len(texts) == 3, "two different prompts and the negative one"
    positives, negative = texts[:2], texts[2]
    in_batches = sum(2 * (max(n, negative) + 1) for n in positives)  # each with one row for its padding
    plan, kept = out.request.plan(), int(name == "ti2v-5b" and "image" in inputs)  # a given frame is at timestep 0
    for expert, model in models.items():
        steps = plan.count(expert)
        assert steps > 0 and calls[expert] == 1
        assert rows[expert, "time_embedding.0"] == rows[expert, "time_projection.1"] == steps + kept
        of_text = {part: n for (owner, part), n in rows.items() if owner == expert and not part.startswith("time_")}
        assert len(of_text) == 1 + 2 * (len(model.blocks) + len(getattr(model, "vace_blocks", ())))
        assert set(of_text.values()) == {in_batches if few_tokens else sum(texts) + 3}
