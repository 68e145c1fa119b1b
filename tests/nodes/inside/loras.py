"""The LoRA pair node against weights merged by hand, on our MODELs and on native ones."""

from pathlib import Path

import comfy.sd
import lora_files
import torch
from comfy.model_patcher import ModelPatcher
from host import difference, part, run, texts
from native import wide_pair
from safetensors.torch import load_file, save_file

EXPERTS = ("high", "low")
STRENGTHS = {"high": 0.7, "low": -0.4}


class Bench:
    """A pair of experts by our loader and by ComfyUI's, and what a run of it gives."""

    def __init__(self, tmp):
        self.tmp, self.files = Path(tmp), wide_pair("t2v-a14b", tmp)
        self.states = dict(zip(EXPERTS, map(load_file, self.files), strict=True))
        self.pairs = {
            "ours": part("nodes.host.loading").load_pair(*self.files),
            "native": tuple(map(comfy.sd.load_diffusion_model, self.files)),
        }

    def run(self, high, low):
        return run(
            high, low, solver="euler", schedule="simple", steps=3, shift=8.0, conds=texts(4096), shape=(1, 16, 2, 4, 4)
        )

    def file(self, state, name="lora"):
        save_file({key: t.contiguous() for key, t in state.items()}, self.tmp / f"{name}.safetensors")
        return str(self.tmp / f"{name}.safetensors")

    def merged(self, kind, deltas):
        """The pair with {expert: {parameter: change}} added to the weights in the files."""
        paths = []
        for expert, state in self.states.items():
            paths.append(self.tmp / f"merged_{expert}.safetensors")
            save_file(state | {name: state[name] + delta for name, delta in deltas[expert].items()}, paths[-1])
        if kind == "ours":
            return part("nodes.host.loading").load_pair(*map(str, paths))
        return [comfy.sd.load_diffusion_model(str(path)) for path in paths]

    def compare(self, rows, deltas):
        """Loader → (difference to merging by hand, difference to no LoRA, difference afterwards to no LoRA)."""
        found = {}
        for kind, pair in self.pairs.items():
            plain = self.run(*pair)
            *patched, lines = part("nodes.host.lora").apply_loras(
                *pair, [part("nodes.host.lora").Row(*row) for row in rows]
            )
            out = self.run(*patched)
            found[kind] = [
                difference(out, self.run(*self.merged(kind, deltas))),
                difference(out, plain),
                difference(self.run(*pair), plain),
            ]
            found["lines"] = lines
        return found


def low_rank(parts, scale, strength):
    return {f"{module}.weight": strength * scale * up @ down for module, (down, up) in parts.items()}


def lora_pairs(tmp):
    bench, found = Bench(tmp), {}
    parts, others = (lora_files.halves(bench.states["high"], seed=seed) for seed in (0, 7))
    for layout in lora_files.LAYOUTS:
        state, scale = lora_files.written(layout, parts)
        deltas = {expert: low_rank(parts, scale, STRENGTHS[expert]) for expert in EXPERTS}
        found[layout] = bench.compare([(bench.file(state), STRENGTHS["high"], STRENGTHS["low"])], deltas)

    state, changes = lora_files.whole(bench.states["high"])
    deltas = {expert: {name: STRENGTHS[expert] * change for name, change in changes.items()} for expert in EXPERTS}
    found["whole tensors"] = bench.compare([(bench.file(state), STRENGTHS["high"], STRENGTHS["low"])], deltas)

    one, other = lora_files.written("lightx2v", parts), lora_files.written("kohya", others)
    rows = [(bench.file(one[0], "style_high_noise"), 1.0, 0.0), (bench.file(other[0], "style_low_noise"), 0.0, 0.5)]
    deltas = {"high": low_rank(parts, one[1], 1.0), "low": low_rank(others, other[1], 0.5)}
    found["a file for each"] = bench.compare(rows, deltas)
    both = {name: low_rank(parts, one[1], 1.0)[name] + low_rank(others, other[1], 0.5)[name] for name in deltas["high"]}
    found["two of them"] = bench.compare(
        [(bench.file(one[0]), 1.0, 1.0), (bench.file(other[0], "b"), 0.5, 0.5)], dict.fromkeys(EXPERTS, both)
    )

    first, second = (lora_files.written("diffusers", p)[0] for p in (parts, others))
    second = {name.replace("transformer.", "transformer_2."): tensor for name, tensor in second.items()}
    deltas = {"high": low_rank(parts, 1.0, 1.0), "low": low_rank(others, 1.0, 1.0)}
    found["both experts in a file"] = bench.compare([(bench.file(first | second), 1.0, 1.0)], deltas)
    found["one expert of a diffusers pair"] = bench.compare(
        [(bench.file(second), 0.0, 1.0)], {"high": {}, "low": deltas["low"]}
    )

    found["of the trainer"] = bench.compare(*from_the_trainer(bench))
    return found


def from_the_trainer(bench):
    """(rows, deltas) of a LoRA as `python -m wan_core train lora` writes it."""
    training = part("wan_core.lora.train")
    with torch.inference_mode(False):
        model = training.add_lora(part("wan_core.checkpoints").load_dit(bench.files[0]), rank=3, alpha=6.0)
        for name, parameter in model.named_parameters():
            if name.endswith("lora_up"):
                torch.nn.init.normal_(parameter, std=0.05)
        training.save_lora(model, bench.tmp / "lora_high.safetensors")
        deltas = {
            f"{name}.weight": (m.scale * m.lora_up @ m.lora_down).detach()
            for name, m in model.named_modules()
            if isinstance(m, training.LoRALinear)
        }
    return [(str(bench.tmp / "lora_high.safetensors"), 1.0, 0.0)], {"high": deltas, "low": {}}


def what_the_node_leaves_alone(tmp):
    """MODELs that no row is for; a single model; and the patches beside those of ComfyUI's own loader."""
    bench, host = Bench(tmp), part("nodes.host.lora")
    state, _ = lora_files.written("lightx2v", lora_files.halves(bench.states["high"]))
    file, found = bench.file(state, "x_high"), {}
    for kind, (high, low) in bench.pairs.items():
        new_high, new_low, lines = host.apply_loras(high, low, [host.Row(file, 0.6, 0.0)])
        native = comfy.sd.load_lora_for_models(high, None, state, 0.6, 0)[0]
        alone, nothing, _ = host.apply_loras(high, None, [host.Row(file, 0.6, 0.3)])
        off = host.apply_loras(high, low, [host.Row(file, 0.0, 0.0)])
        none = host.apply_loras(high, low, [])
        found[kind] = {
            "low as it was": new_low is low,
            "high patched": new_high is not high and not high.patches,
            "off": off[0] is high and off[1] is low and off[2] == ["x_high.safetensors: not used, its strength is 0"],
            "no row": none[0] is high and none[1] is low and none[2] == [],
            "line": lines,
            "patched as by ComfyUI": same_patches(new_high.patches, native.patches),
            "single": nothing is None and same_patches(alone.patches, native.patches),
        }
    return found


def same_patches(one, other):
    def plain(patches):
        return {
            key: [(s, type(adapter), adapter.weights[2]) for s, adapter, *_ in found] for key, found in patches.items()
        }

    def tensors(patches):
        return [t for key in sorted(patches) for _, adapter, *_ in patches[key] for t in adapter.weights[:2]]

    pairs = zip(tensors(one), tensors(other), strict=False)  # of one length where the plain parts are equal
    return plain(one) == plain(other) and all(torch.equal(a, b) for a, b in pairs)


def partly_on_the_device(tmp):
    """Loader → (difference to the same run with the whole MODEL there, layers that ComfyUI patched while they ran)."""
    bench, host, found = Bench(tmp), part("nodes.host.lora"), {}
    low_rank, whole = (
        lora_files.written("lightx2v", lora_files.halves(bench.states["high"]))[0],
        lora_files.whole(bench.states["high"])[0],
    )
    rows = [host.Row(bench.file(low_rank | whole), 0.7, -0.4)]
    complete = {kind: bench.run(*host.apply_loras(*pair, rows)[:2]) for kind, pair in bench.pairs.items()}
    load = ModelPatcher.partially_load
    ModelPatcher.partially_load = lambda self, device, extra_memory=0, **options: load(self, device, 300_000, **options)
    try:
        for kind, pair in Bench(tmp).pairs.items():
            patched = host.apply_loras(*pair, rows)[:2]
            found[kind] = [
                difference(bench.run(*patched), complete[kind]),
                min(model.model.lowvram_patch_counter for model in patched),
            ]
    finally:
        ModelPatcher.partially_load = load
    return found


def modulations_beside_other_runs(tmp):
    """A MODEL with changed modulations, and its plain self before, after, and after a run that failed."""
    bench, host = Bench(tmp), part("nodes.host.lora")
    state, _ = lora_files.whole(bench.states["high"])
    file = bench.file(state)
    found = {}
    for kind, (high, low) in bench.pairs.items():
        plain = bench.run(high, low)
        once, _, _ = host.apply_loras(high, low, [host.Row(file, 1.0, 0.0)])
        twice, _, _ = host.apply_loras(once, low, [host.Row(file, 1.0, 0.0)])
        double, _, _ = host.apply_loras(high, low, [host.Row(file, 2.0, 0.0)])
        out = bench.run(twice, low)
        found[kind] = [
            difference(out, bench.run(double, low)),
            difference(out, plain),
            difference(bench.run(high, low), plain),
        ]
        interrupted(bench, twice, low)
        found[kind].append(difference(bench.run(high, low), plain))
    return found


def modulations_by_the_native_loader(tmp):
    """Our MODEL with modulations patched by ComfyUI's own loader: differences of a clone's run to the same LoRA from
    the node and to no LoRA, and of a run afterwards to no LoRA. The callbacks that apply them come with every clone."""
    bench, host = Bench(tmp), part("nodes.host.lora")
    high, low = bench.pairs["ours"]
    torch.manual_seed(3)
    names = ("blocks.0.modulation", "head.modulation")
    state = {f"diffusion_model.{n}.diff": 0.1 * torch.randn_like(bench.states["high"][n].float()) for n in names}
    native = comfy.sd.load_lora_for_models(high, None, state, 0.7, 0)[0].clone()
    ours = host.apply_loras(high, low, [host.Row(bench.file(state), 0.7, 0.0)])[0]
    callbacks = [
        {call: len(found) for call, by_key in m.callbacks.items() for found in by_key.values()}
        for m in (high, native, ours)
    ]
    plain, out = bench.run(high, low), bench.run(native, low)
    return {
        "to the node": difference(out, bench.run(ours, low)),
        "to no LoRA": difference(out, plain),
        "afterwards": difference(bench.run(high, low), plain),
        "callbacks": callbacks,
    }


def interrupted(bench, high, low):
    def fail(*args):
        raise torch.OutOfMemoryError("now")

    handle = high.model.diffusion_model.blocks[1].register_forward_pre_hook(fail)
    try:
        bench.run(high, low)
    except torch.OutOfMemoryError:
        pass
    finally:
        handle.remove()
