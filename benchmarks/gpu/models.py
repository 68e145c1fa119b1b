"""The parts of the GPU benchmark that compare models: a forward of the transformer, decoding, torch.compile."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import measure
from benchmarks.gpu.bench import PROMPT, Bench, dit_inputs, random_dit
from benchmarks.gpu.device import random_module
from wan_core.config import DiTConfig, VAEConfig
from wan_core.dit import WanDiT
from wan_core.vae import WanVAE

CHECK_FRAMES = 17  # length of the clips whose error is taken: float32 has to do them too


def dit(bench: Bench) -> None:
    """A forward of the transformer within a run."""
    device = bench.device
    for name in dict.fromkeys(clip.model for clip in bench.clips):
        clips = [clip for clip in bench.clips if clip.model == name]
        config = clips[0].preset.dit
        model = random_dit(config, device)
        rivals = bench.rivals("dit", model)
        check = clips[0].frames(min(CHECK_FRAMES, clips[0].shape.frames))
        given = dit_inputs(check, device)
        reference = exactly(model, lambda exact: exact(*(x.float() for x in given)))
        for clip in (check, *(clip for clip in clips if clip != check)):
            what = f"{name} forward, {clip.name}"
            flops = forward_flops(config, clip.tokens, PROMPT)
            if not bench.fits(what, 2 * (1 + len(rivals)) * flops / (0.4 * bench.ceiling)):
                continue
            given, run = dit_inputs(clip, device), model.session()
            turns = {bench.ours: lambda run=run: run(*given)} | {
                rival: lambda c=call: c(*given) for rival, call in rivals.items()
            }
            errors = {}
            if clip == check and reference is not None:
                errors = {implementation: measure.error(turn(), reference) for implementation, turn in turns.items()}
            bench.compare(what, turns, flops, errors)
        del model, rivals, run, turns
        bench.close()


def vae(bench: Bench) -> None:
    """Decoding: ours chunk by chunk, each dropped, as `save` does it; the rivals whole clips, their only way."""
    for clip in bench.clips:
        config = clip.preset.vae
        torch.manual_seed(2)
        latents = torch.randn(1, *clip.shape.latent(config), device=bench.device.device)
        flops = decode_flops(config, latents)
        for dtype in (torch.bfloat16, torch.float32):
            what = f"VAE {config.version} decode, {str(dtype)[6:]}, {clip.name}"
            model = random_module(lambda: WanVAE(config), bench.device.device, dtype)
            rivals = bench.rivals("vae", model)
            if not bench.fits(what, 2 * (1 + len(rivals)) * flops / (0.1 * bench.ceiling)):
                continue
            start = latents[:, :, :3]
            reference = exactly(model, lambda exact: exact.decode(start))
            whole = {bench.ours: model.decode, **rivals}
            errors = (
                {}
                if reference is None
                else {name: measure.error(decode(start), reference) for name, decode in whole.items()}
            )
            del reference
            turns = {bench.ours: lambda model=model: stream(model, latents)}
            turns |= {name: lambda c=call: drop(c(latents)) for name, call in rivals.items()}
            bench.compare(what, turns, flops, errors)
            del model, rivals, whole, turns
            bench.close()


def stream(model: WanVAE, latents: Tensor) -> None:
    for _ in model.decode_chunks(latents):
        pass


def drop(result: Tensor) -> None:
    pass


def compiled(bench: Bench) -> None:
    """Blocks through torch.compile beside the same blocks as they are, on the same tensors."""
    clip = bench.clips[0]
    model = random_dit(clip.preset.dit, bench.device)
    with torch.device("meta"):
        faster = WanDiT(model.config)
    faster.load_state_dict(model.state_dict(), assign=True)
    for block in faster.eval().requires_grad_(False).blocks:
        block.compile(backend="eager" if bench.tiny else "inductor")
    given, plain, run = dit_inputs(clip, bench.device), model.session(), faster.session()
    turns = {"ours, compiled": lambda: run(*given), "ours": lambda: plain(*given)}
    turns["ours, compiled"]()  # compiles
    bench.compare(
        f"{clip.model} forward with torch.compile, {clip.name}", turns, forward_flops(model.config, clip.tokens, PROMPT)
    )


def forward_flops(config: DiTConfig, tokens: int, text: int) -> float:
    """Multiplications and additions of one forward within a run: the text's keys are there already."""
    d, f = config.dim, config.ffn_dim
    block = 2 * tokens * (6 * d * d + 2 * d * f) + 4 * tokens * (tokens + text) * d
    return config.layers * block + 2 * tokens * d * 4 * (config.in_channels + config.out_channels)


def decode_flops(config: VAEConfig, latents: Tensor) -> float:
    """Of our own decode, counted on shapes alone: of one and of five latent frames, from where it goes on evenly."""
    with torch.device("meta"):
        vae = WanVAE(config)
    counts = []
    for frames in (1, 5):
        with FlopCounterMode(display=False) as counter:
            for _ in vae.raw_chunks(torch.empty(*latents.shape[:2], frames, *latents.shape[3:], device="meta")):
                pass
        counts.append(counter.get_total_flops())
    return counts[0] + (counts[1] - counts[0]) / 4 * (latents.shape[2] - 1)


def exactly(model, run: Callable):
    """run(a float32 copy of the model), without TensorFloat-32; None where there is no memory for it."""
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return run(copy.deepcopy(model).float())
    except torch.OutOfMemoryError:
        return None
