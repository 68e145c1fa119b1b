import pytest
import torch

from tests.support.goldens import difference, golden
from wan_core.checkpoints import load_text_encoder
from wan_core.config import TextConfig
from wan_core.text import UMT5
from wan_core.text.encoder import relative_position_bucket


def test_hidden_states_are_official():
    g = golden("t5")
    encoder = load_text_encoder(g.weights(), g.config["model"])
    seen = []
    encoder.blocks[0].register_forward_hook(lambda module, args, out: seen.append(out))
    hidden = encoder(g["in.ids"], g["in.mask"])
    assert difference(hidden, g["out.hidden"]) < 3e-5
    assert difference(seen[0], g["out.mid.block0"]) < 3e-5


@pytest.mark.parametrize("sample", [0, 1])
def test_unpadded_input_gives_the_rows_that_the_model_receives(sample):
    g = golden("t5")
    encoder = load_text_encoder(g.weights(), g.config["model"])
    n = g.config["lengths"][sample]
    hidden = encoder(g["in.ids"][sample : sample + 1, :n], g["in.mask"][sample : sample + 1, :n])
    assert difference(hidden[0], g[f"out.trimmed{sample}"]) < 3e-5


def test_position_buckets_are_official():
    g = golden("t5")
    assert torch.equal(relative_position_bucket(g["out.rel_pos"], 32, 128), g["out.rel_bucket"])
    encoder = load_text_encoder(g.weights(), g.config["model"])
    assert torch.equal(encoder.blocks[0].pos_embedding(12, torch.device("cpu")), g["out.pos_bias0"])


def test_sizes_are_inferred():
    g = golden("t5")
    assert load_text_encoder(g.weights()).config == TextConfig.from_dict(g.config["model"])


def test_real_size():
    with torch.device("meta"):
        state = UMT5(TextConfig()).state_dict()
    assert (sum(t.numel() for t in state.values()), len(state)) == (5_680_910_336, 242)


def test_bfloat16_stays_close():
    g = golden("t5")
    encoder = load_text_encoder(g.weights(), g.config["model"], dtype=torch.bfloat16)
    n = g.config["lengths"][0]
    hidden = encoder(g["in.ids"][:1, :n], g["in.mask"][:1, :n])[0]
    assert hidden.dtype == torch.bfloat16
    assert (hidden.float() - g["out.trimmed0"]).norm() / g["out.trimmed0"].norm() < 3e-2
