"""The transformer against diffusers, native ComfyUI and its own bare matmuls: python -m benchmarks.cpu.dit

Width 512, 8 layers, 4 heads of 128, 2,000 tokens, a prompt of 64 tokens, equal random weights. The rivals are given the
prompt padded to 512 rows, which is what they compute with; ours implies the padding. Native ComfyUI is measured by its
own python, where one is found, with the attention that it takes on a CPU by itself and with torch's.
"""

import argparse
import subprocess
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import measure
from benchmarks.rivals import comfyui_dit, diffusers_dit, open_comfyui, padded
from scripts.canvas import find_comfyui, python_of
from wan_core.checkpoints.build import is_float32_layer
from wan_core.config import DiTConfig
from wan_core.cpu import make_dit
from wan_core.dit import WanDiT

CONFIG = DiTConfig(dim=512, ffn_dim=1408, heads=4, layers=8)  # as in A14B, the feed-forward is 2.7 times as wide
PROMPT, GRID = 64, (5, 40, 40)  # 5 · 20 · 20 = 2,000 tokens
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TARGETS = {  # ours over theirs
    "diffusers": {"fp32": 0.92, "bf16": 0.72},
    "ComfyUI": {"fp32": 0.76, "bf16": 0.86},
    "ComfyUI with torch's attention": {},
}


def model(dtype: torch.dtype = torch.float32, make: Callable[[DiTConfig], WanDiT] = make_dit) -> WanDiT:
    """With the layers in float32 that `load_dit` keeps so."""
    torch.manual_seed(0)
    found = make(CONFIG)
    torch.nn.init.normal_(found.head.head.weight, std=0.1)
    for name, parameter in found.named_parameters():
        parameter.data = parameter.data.to(torch.float32 if is_float32_layer(name) else dtype)
    return found.eval().requires_grad_(False)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Latents, a timestep, a prompt."""
    torch.manual_seed(1)
    return torch.randn(1, 16, *GRID), torch.tensor([900]), torch.randn(1, PROMPT, CONFIG.text_dim)


def compare(report: measure.Report, rival: str, make_theirs, rounds: int) -> None:
    """A forward by itself, which projects the prompt as the rivals do each time, and one within a run, which has it."""
    x, t, text = inputs()
    reference = model(make=WanDiT)(x, t, text)
    for name, dtype in DTYPES.items():
        ours, given = model(dtype), (x, t, text.to(dtype))
        run, theirs = ours.session(), make_theirs(ours)
        figures = dict(
            error=measure.error(ours(*given), reference), their_error=measure.error(theirs(*given), reference)
        )
        target = TARGETS[rival].get(name)
        ratio = measure.paired(lambda: ours(*given), {rival: lambda: theirs(*given)}, rounds)[rival]
        report.add(f"DiT forward, {name}", rival, ratio, target, **figures)
        ratio = measure.paired(lambda: run(*given), {rival: lambda: theirs(*given)}, rounds)[rival]
        report.add(f"DiT forward within a run, {name}", rival, ratio, target, **figures)


def bare(dtype: torch.dtype):
    """The matmuls and attention calls that the model is defined by, of one forward within a run, as torch does them, on
    tensors that are ready. Ours needs fewer: with a short prompt a smaller product stands for cross-attention's last
    one."""
    c, tokens, keys = CONFIG, 2000, PROMPT + (1 if dtype == torch.float32 else 2)

    def random(*shape):
        return torch.randn(*shape, dtype=dtype)

    latents, patch, x, wide = (
        random(1, 16, *GRID),
        random(c.dim, 16, 1, 2, 2),
        random(1, tokens, c.dim),
        random(1, tokens, c.ffn_dim),
    )
    q, k, v = (random(1, tokens, c.heads, c.head_dim).transpose(1, 2) for _ in range(3))
    text_k, text_v = (random(1, keys, c.heads, c.head_dim).transpose(1, 2) for _ in range(2))
    square = [[(random(c.dim, c.dim), random(c.dim)) for _ in range(6)] for _ in range(c.layers)]
    up = [(random(c.ffn_dim, c.dim), random(c.ffn_dim)) for _ in range(c.layers)]
    down = [(random(c.dim, c.ffn_dim), random(c.dim)) for _ in range(c.layers)]
    x32, head, bias = x.float(), (torch.randn(64, c.dim), torch.randn(64)), random(1, keys)

    def work():
        F.conv3d(latents, patch, stride=(1, 2, 2))
        for i in range(c.layers):
            for layer in square[i]:
                F.linear(x, *layer)
            F.scaled_dot_product_attention(q, k, v)
            F.scaled_dot_product_attention(q, text_k, text_v, attn_mask=bias)
            F.linear(x, *up[i])
            F.linear(wide, *down[i])
        F.linear(x32, *head)

    return work


def itself(report: measure.Report, rounds: int) -> None:
    """Against the bare matmuls, and a short prompt against the padded one."""
    x, t, text = inputs()
    for name, dtype in DTYPES.items():
        run, given = model(dtype).session(), (x, t, text.to(dtype))
        ratio = measure.paired(lambda: run(*given), {"bare": bare(dtype)}, rounds)["bare"]
        report.add(
            f"DiT forward within a run, {name}",
            "its bare matmuls and attention",
            ratio,
            1.03 if name == "fp32" else None,
        )
    ours, full = model(), padded(text, CONFIG.text_len)
    off = measure.error(ours(x, t, text), ours(x, t, full))
    ratio = measure.paired(lambda: ours(x, t, text), {"padded": lambda: ours(x, t, full)}, rounds)["padded"]
    report.add("prompt of 64 tokens", "the same padded to 512", ratio, 0.9, error=off)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure the transformer against diffusers, native ComfyUI and its bare matmuls."
    )
    parser.add_argument("only", nargs="*", help="diffusers, itself, ComfyUI; default: all")
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    parser.add_argument("--inside", help=argparse.SUPPRESS)  # ComfyUI's folder, where its python runs this
    args = parser.parse_args()
    if args.inside:
        (rival,) = args.only
        open_comfyui(args.inside, "--cpu", *(["--use-pytorch-cross-attention"] if rival != "ComfyUI" else []))
        report = measure.Report("dit")
        compare(report, rival, comfyui_dit, args.rounds)
        report.write()
        return
    only, report = args.only or ["diffusers", "itself", "ComfyUI"], measure.Report("dit")
    if "diffusers" in only:
        compare(report, "diffusers", diffusers_dit, args.rounds)
    if "itself" in only:
        itself(report, args.rounds)
    report.write()
    folder = find_comfyui() if "ComfyUI" in only else None
    for rival in TARGETS if folder else ():
        if rival.startswith("ComfyUI"):
            subprocess.run(
                [
                    python_of(folder),
                    "-m",
                    "benchmarks.cpu.dit",
                    rival,
                    "--inside",
                    str(folder),
                    "--rounds",
                    str(args.rounds),
                ],
                check=True,
            )


if __name__ == "__main__":
    measure.same_settings()
    main()
