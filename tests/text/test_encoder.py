import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import save_file

from tests.support.goldens import difference, golden
from wan_core.checkpoints import load_text_encoder
from wan_core.checkpoints.quant import QuantizedTensor
from wan_core.config import TextConfig
from wan_core.memory.offload import ModelOffloader
from wan_core.text import UMT5

SMALL = TextConfig(dim=64, dim_attn=64, ffn_dim=96, heads=4, layers=2, vocab=384)


def python(code: str, *arguments) -> str:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_hidden_states_are_official():
    g = golden("t5")
    encoder = load_text_encoder(g.weights(), g.config["model"])
    seen = []
    encoder.encoder.block[0].register_forward_hook(lambda module, args, out: seen.append(out))
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
    attention = load_text_encoder(g.weights(), g.config["model"]).encoder.block[0].layer[0].SelfAttention
    assert torch.equal(attention._relative_position_bucket(g["out.rel_pos"]), g["out.rel_bucket"])
    assert torch.equal(attention.compute_bias(12, 12), g["out.pos_bias0"])


def test_sizes_are_inferred():
    g = golden("t5")
    assert load_text_encoder(g.weights()).config == TextConfig.from_dict(g.config["model"])


def test_real_size():
    """Every tensor once; the embedding, two of the eleven gigabytes, has two names inside transformers."""
    with torch.device("meta"):
        encoder = UMT5(TextConfig())
    state = encoder.state_dict()
    assert (sum(t.numel() for t in state.values()), len(state)) == (5_680_910_336, 242)
    assert sum(p.numel() for p in encoder.parameters(recurse=True)) == 5_680_910_336
    assert len(dict(encoder.named_parameters(remove_duplicate=False))) == 242


def test_the_state_dict_is_official_in_both_directions():
    g = golden("t5")
    weights = g.weights()
    encoder = load_text_encoder(weights, g.config["model"])
    state = encoder.state_dict()
    assert set(state) == set(weights) and all(torch.equal(state[name], weights[name]) for name in weights)
    other = UMT5(encoder.config)
    given = dict(state)
    other.load_state_dict(given)
    assert set(given) == set(weights), "the caller's dict is left as it was"
    assert torch.equal(other(g["in.ids"], g["in.mask"]), encoder(g["in.ids"], g["in.mask"]))


def test_bfloat16_stays_close():
    g = golden("t5")
    encoder = load_text_encoder(g.weights(), g.config["model"], dtype=torch.bfloat16)
    n = g.config["lengths"][0]
    hidden = encoder(g["in.ids"][:1, :n], g["in.mask"][:1, :n])[0]
    assert hidden.dtype == torch.bfloat16
    assert (hidden.float() - g["out.trimmed0"]).norm() / g["out.trimmed0"].norm() < 3e-2


def test_sums_beyond_the_range_of_float16_stay_finite():
    torch.manual_seed(0)
    encoder = UMT5(SMALL).half().eval()
    with torch.no_grad():
        encoder.encoder.block[0].layer[1].DenseReluDense.wo.weight.fill_(60000.0)
    ids = torch.arange(3, 20)[None]
    assert encoder(ids, torch.ones_like(ids)).isfinite().all()


def test_quantized_matrices_stay_quantized():
    torch.manual_seed(0)
    state = UMT5(SMALL).state_dict()
    quantized = {name: t.to(torch.float8_e4m3fn) if t.ndim == 2 else t for name, t in state.items()}
    encoder = load_text_encoder(quantized)
    ids = torch.arange(3, 20)[None]
    expected = load_text_encoder({name: t.bfloat16() for name, t in quantized.items()})(ids, torch.ones_like(ids))
    assert torch.equal(encoder(ids, torch.ones_like(ids)), expected)
    held = [p.data for p in encoder.parameters()]
    assert sum(isinstance(t, QuantizedTensor) for t in held) == sum(t.ndim == 2 for t in state.values())
    assert sum(t.nbytes for t in held) == sum(t.numel() * (1 if t.ndim == 2 else 2) for t in state.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float8_e4m3fn])
def test_offloading_moves_every_tensor_once(dtype):
    torch.manual_seed(0)
    weights = {name: t.to(dtype) if t.ndim == 2 else t for name, t in UMT5(SMALL).state_dict().items()}
    encoder, offloader = load_text_encoder(weights), ModelOffloader("meta", exclusive=True)
    host = {name: t.data_ptr() for name, t in encoder.state_dict().items() if not isinstance(t, QuantizedTensor)}
    offloader.load(encoder)
    assert all(p.device.type == "meta" for p in encoder.parameters())
    offloader.offload()
    back = {name: t.data_ptr() for name, t in encoder.state_dict().items() if not isinstance(t, QuantizedTensor)}
    assert back == host and len(encoder.state_dict()) == len(weights)


@pytest.mark.slow
def test_transformers_is_imported_when_an_encoder_is_built():
    modules = "wan_core, wan_core.text, wan_core.checkpoints, wan_core.pipeline, wan_core.cli"
    python(f"import sys, {modules}; assert 'transformers' not in sys.modules")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_loading_takes_no_memory_and_encoding_that_of_the_file(tmp_path, dtype):
    """Weights stay mapped from the file, the embedding as well."""
    config = TextConfig(dim=512, dim_attn=512, ffn_dim=1280, heads=8, layers=6, vocab=60000)
    state = {name: t.to(dtype if t.ndim == 2 else torch.float32) for name, t in UMT5(config).state_dict().items()}
    file = tmp_path / "umt5.safetensors"
    save_file(state, file)
    size = file.stat().st_size / 2**20
    code = """
        import sys, torch
        from transformers import UMT5EncoderModel
        from wan_core.checkpoints import load_text_encoder

        def resident(kind):  # MiB
            fields = dict(line.split(":") for line in open("/proc/self/status"))
            return int(fields[kind].split()[0]) / 1024

        start = resident("VmRSS")
        encoder = load_text_encoder(sys.argv[1], dtype={"float32": torch.float32}.get(sys.argv[2]))
        loaded = resident("VmHWM") - start
        ids = torch.arange(3, 60)[None]
        with torch.inference_mode():
            encoder(ids, torch.ones_like(ids))
        print(loaded, resident("VmHWM") - start)
    """
    loaded, encoded = map(float, python(code, file, str(dtype).removeprefix("torch.")).split())
    assert loaded < 10 + 0.1 * size, f"{loaded:.0f} of {size:.0f} MiB"
    assert encoded < 30 + size, f"{encoded:.0f} of {size:.0f} MiB"
