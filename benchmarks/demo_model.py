"""Measures the demo model on prompts whose combinations it never saw.

`python -m benchmarks.demo_model prompts images experts losses settings` prints tables and keeps the figures in
benchmarks/results/demo_model.json; `charts` draws them and needs the extra `bench`. The prompts were drawn once, by
seed, before anything was measured, and nothing was tuned on them.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from scripts.demo_model.clips import CHINESE, ENGLISH, SCENES, Scene, clip
from scripts.demo_model.judge import fidelity, interval, look, psnr
from scripts.demo_model.text import encode
from wan_core import WanPipeline
from wan_core.demo.release import DEMO_NUMBERS, demo_model
from wan_core.flow import flow_loss, interpolate, training_timesteps
from wan_core.media.pixels import to_uint8
from wan_core.media.read import read_video

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "demo_model.json"
NAMES = ("colour", "motion", "shape")


def held_out_prompts(count: int = 60) -> list[tuple[Scene, str]]:
    """Scenes of held-out combinations with a sentence each, half English, half Chinese."""
    rng = random.Random(2_026)
    scenes = rng.sample([scene for scene in SCENES if scene.held_out], count)
    return [(scene, scene.caption(rng.choice((ENGLISH, CHINESE)[k % 2]))) for k, scene in enumerate(scenes)]


def open_pipe(task: str = "t2v-a14b", dtype: torch.dtype = torch.float32) -> WanPipeline:
    folder = tempfile.mkdtemp() if task == "i2v-a14b" else None
    return WanPipeline.from_pretrained(demo_model(task, folder), torch_dtype=dtype)


def measure(pipe: WanPipeline, prompts, images=None, **numbers) -> dict:
    """Shares of prompts whose clip, written to mp4 and read again, shows what was asked; their mean fidelity in dB."""
    good, quality, first, seconds = dict.fromkeys((*NAMES, "all"), 0), [], [], time.time()
    with tempfile.TemporaryDirectory() as folder:
        for k, (scene, prompt) in enumerate(prompts):
            given = {} if images is None else {"image": images[k]}
            out = pipe(prompt, seed=1_000 + k, **DEMO_NUMBERS | numbers | given)
            frames = read_video(out.save(Path(folder) / "clip.mp4"))
            verdict = look(frames).agrees(scene)
            for name in NAMES:
                good[name] += verdict[name]
            good["all"] += all(verdict.values())
            quality.append(fidelity(frames, scene))
            if images is not None:
                first.append(psnr(frames[0], images[k]))
    result = {name: tally(count, len(prompts)) for name, count in good.items()}
    result |= {
        "fidelity": round(float(np.mean(quality)), 2),
        "fidelities": [round(q, 2) for q in quality],
        "seconds": round((time.time() - seconds) / len(prompts), 2),
    }
    if first:
        result["first frame"] = [round(float(np.mean(first)), 2), round(min(first), 2)]
    return result


def tally(count: int, total: int) -> list:
    """[successes, prompts, lower and upper end of the 95% interval]."""
    return [count, total, *(round(x, 3) for x in interval(count, total))]


def mean_difference(one: list[float], other: list[float]) -> list[float]:
    """[mean of one - other, lower and upper end of its 95% interval], prompt by prompt."""
    differences = np.subtract(one, other)
    middle, spread = differences.mean(), 1.96 * differences.std(ddof=1) / len(differences) ** 0.5
    return [round(float(x), 2) for x in (middle, middle - spread, middle + spread)]


def share(result: dict, name: str) -> str:
    count, total, low, high = result[name]
    return f"{count}/{total} = {count / total:.0%} ({low:.0%} to {high:.0%})"


def prompts(results: dict, count: int) -> None:
    """Text-to-video on held-out prompts."""
    pipe, asked = open_pipe(), held_out_prompts(count)
    parts = [measure(pipe, asked[first::2]) for first in (0, 1)]
    both = {name: tally(sum(part[name][0] for part in parts), len(asked)) for name in (*NAMES, "all")}
    both |= {name: round(sum(part[name] for part in parts) / 2, 2) for name in ("fidelity", "seconds")}
    for name, result in zip(("English", "Chinese", "all"), (*parts, both), strict=True):
        results[f"prompts {name}"] = result
        show(f"prompts {name}", result)


def images(results: dict, count: int) -> None:
    """Image-to-video: the first frame of a scene, and the sentence that says where it goes."""
    pipe, asked = open_pipe("i2v-a14b"), held_out_prompts(count)
    rng = random.Random(4)
    firsts = [to_uint8(clip(scene, rng)[0][:, :1])[0] for scene, _ in asked]
    results["image-to-video"] = measure(pipe, asked, firsts)
    show("image-to-video", results["image-to-video"])


def experts(results: dict, count: int) -> None:
    """The pair against each expert alone and the pair swapped, and the boundary moved."""
    pipe, asked = open_pipe(), held_out_prompts(count)
    high, low = pipe.high, pipe.low
    for name, pair, boundary in (
        ("pair", (high, low), None),
        ("high only", (high, high), None),
        ("low only", (low, low), None),
        ("swapped", (low, high), None),
        *((f"boundary {b}", (high, low), b) for b in (0.3, 0.5, 0.7, 0.8, 0.95, 0.98)),
    ):
        pipe.high, pipe.low = pair
        numbers = {} if boundary is None else {"boundary_ratio": boundary}
        results[name] = measure(pipe, asked, **numbers)
        if name != "pair":
            results[name]["against the pair"] = mean_difference(
                results[name]["fidelities"], results["pair"]["fidelities"]
            )
        show(name, results[name])
    pipe.high, pipe.low = high, low


def losses(results: dict, count: int) -> None:
    """Flow-matching loss of each expert in each range of noise, on new clips of held-out scenes."""
    pipe, rng = open_pipe(), random.Random(6)
    asked = held_out_prompts(count)
    latents = torch.cat([pipe.vae.encode(clip(scene, rng)[0][None]) for scene, _ in asked])
    with torch.no_grad():
        texts = encode(pipe.text_encoder, pipe.tokenizer, [prompt for _, prompt in asked])
        for name, model in (("high", pipe.high), ("low", pipe.low)):
            for part, levels in (("high", (0.88, 0.92, 0.96, 0.98)), ("low", (0.1, 0.3, 0.5, 0.7, 0.85))):
                found = []
                for k, (x0, text) in enumerate(zip(latents.split(1), texts, strict=True)):
                    for sigma in levels:
                        sigma, generator = torch.tensor([sigma]), torch.Generator().manual_seed(k)
                        noise = torch.randn(x0.shape, generator=generator)
                        velocity = model(interpolate(x0, noise, sigma), training_timesteps(sigma), text[None])
                        found.append(float(flow_loss(velocity, x0, noise)))
                results[f"loss of the {name} expert, {part} noise"] = round(float(np.mean(found)), 4)
                print(f"loss of the {name} expert, {part} noise: {np.mean(found):.4f}", flush=True)


def settings(results: dict, count: int) -> None:
    """Solver, steps, shift and guidance."""
    pipe, asked = open_pipe(), held_out_prompts(count)
    rows: list[dict] = [{"solver": "euler", "num_inference_steps": n} for n in (2, 4, 8, 30)]
    rows += [{"solver": s, "num_inference_steps": n} for s in ("unipc", "dpmpp_2m") for n in (4, 10, 20)]
    rows += [{"flow_shift": s, "num_inference_steps": 10} for s in (1.0, 5.0)] + [
        {"guidance_scale": g} for g in (1.0, 2.0, 6.0)
    ]
    for numbers in rows:
        name = ", ".join(f"{key} {value}" for key, value in numbers.items())
        results[name] = measure(pipe, asked, **numbers)
        show(name, results[name])


def charts(results: dict, count: int) -> None:
    """docs/demo_boundary.svg from the figures, docs/demo_losses.svg from the logs of the training."""
    from benchmarks.chart import write_chart  # here, so that all else runs without matplotlib

    docs = ROOT / "docs"
    found = {float(name.split()[1]): r for name, r in results.items() if name.startswith("boundary ")}
    found[0.875] = results["pair"]
    found = dict(sorted(found.items()))
    title = f"Fidelity of {results['pair']['all'][1]} held-out prompts against the boundary (shipped: 0.875)"
    points = {"pair": [(b, r["fidelity"]) for b, r in found.items()]}
    for name in ("high only", "low only", "swapped"):
        points[name] = [(b, results[name]["fidelity"]) for b in (min(found), max(found))]
    print(write_chart(docs / "demo_boundary.svg", points, title, "boundary", "dB"))
    logs = {file.stem: read_losses(file) for file in sorted((ROOT / "scripts" / "demo_model" / "log").glob("*.jsonl"))}
    print(write_chart(docs / "demo_losses.svg", logs, "Training losses", "step", "loss", log=True))


def read_losses(file: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in map(json.loads, file.read_text().splitlines())]


def show(name: str, result: dict) -> None:
    cells = [name, *(share(result, one) for one in (*NAMES, "all")), f"{result['fidelity']} dB"]
    if "against the pair" in result:
        cells.append("{:+} dB ({} to {}) against the pair".format(*result["against the pair"]))
    if "first frame" in result:
        cells.append("first frame {} dB, worst {} dB".format(*result["first frame"]))
    print("| " + " | ".join(cells) + " |", flush=True)


PARTS = {
    "prompts": prompts,
    "images": images,
    "experts": experts,
    "losses": losses,
    "settings": settings,
    "charts": charts,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--count", type=int, default=60, help="prompts (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for part in options.parts:
        results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
        PARTS[part](results, options.count)
        for result in results.values():
            if isinstance(result, dict):
                result.pop("fidelities", None)  # of each prompt; only their differences are of use
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
