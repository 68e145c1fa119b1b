"""LoRA that is trained: frozen weights, updates that start at zero, and the file that is written."""

import pytest
import torch

from tests.support.latents import CONFIG, random_dataset
from wan_core.dit import WanDiT
from wan_core.errors import InputError
from wan_core.lora import AppliedLora, add_lora, read_lora, save_lora
from wan_core.lora.train import lora_state
from wan_core.training.expert import NoiseRange, new_expert, train_expert
from wan_core.training.run import RunConfig, TrainingRun


@pytest.fixture
def data():
    return random_dataset()


def test_lora_starts_without_effect_and_merges_as_it_is_written(tmp_path, data):
    model = new_expert(CONFIG, 0)
    torch.nn.init.normal_(model.head.head.weight, std=0.02)
    x, t, text = data.latents, torch.full((4,), 900.0), data.texts[1][None].expand(4, -1, -1)
    before = model(x, t, text)
    frozen = {name: p.clone() for name, p in model.named_parameters()}
    add_lora(model, rank=4, alpha=2.0)
    torch.testing.assert_close(model(x, t, text), before)
    train_expert(
        model,
        data,
        NoiseRange(0.0, 1.0),
        TrainingRun(tmp_path, {"dit": model}, RunConfig(steps=20, lr=1e-2, warmup=2)),
        4,
    )
    after, state = model(x, t, text), lora_state(model)
    assert (after - before).abs().max() > 1e-3
    save_lora(model, tmp_path / "lora.safetensors")
    read = new_expert(CONFIG, 0)
    read.load_state_dict(frozen)
    AppliedLora(read, read_lora(tmp_path / "lora.safetensors", read))
    torch.testing.assert_close(read(x, t, text), after, atol=1e-5, rtol=1e-4)
    merged = WanDiT(CONFIG)
    weights = dict(frozen)
    for name in {key.rsplit(".", 2)[0] for key in state if key.endswith("lora_up.weight")}:
        up, down, alpha = (state[f"{name}.{part}"] for part in ("lora_up.weight", "lora_down.weight", "alpha"))
        weights[name.removeprefix("diffusion_model.") + ".weight"] += alpha / len(down) * up @ down
    assert len(state) == 3 * 10 * CONFIG.layers
    merged.load_state_dict(weights)
    torch.testing.assert_close(merged(x, t, text), after, atol=1e-5, rtol=1e-4)
    with pytest.raises(InputError, match="without LoRA"):
        lora_state(merged)
