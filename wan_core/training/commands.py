"""What `python -m wan_core train vae | expert | lora` does: the trainers on a folder of clips."""

import argparse
import hashlib
import random
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..checkpoints import load_dit, load_text_encoder, load_vae
from ..checkpoints.model_files import find_model
from ..checkpoints.summary import resolve_preset
from ..checkpoints.tokenizer import open_tokenizer
from ..conditioning import image_to_video
from ..config import Preset, VAEConfig
from ..devices import default_device, usable_device
from ..errors import InputError
from ..lora.train import add_lora, save_lora
from ..shapes import check_shape
from ..validate import real_number, whole_number
from .data import captions_of, crops, list_clips, read_clip
from .expert import LatentDataset, NoiseRange, new_expert, start_from, train_expert
from .run import RunConfig, TrainingRun
from .vae import VAELoss, VAELossWeights, new_vae, normalise_latents


def _run_config(options: argparse.Namespace) -> RunConfig:
    real_number("--rate", options.rate, 0, above=True)
    real_number("--ema", options.ema, 0, 1)
    for name in ("steps", "batch", "save_every"):
        whole_number(f"--{name.replace('_', '-')}", getattr(options, name), 1, 2**31)
    return RunConfig(
        steps=options.steps,
        rate=options.rate,
        warmup=min(100, options.steps // 10),
        ema=options.ema,
        save_every=options.save_every,
        seed=options.seed,
        autocast=options.bf16,
    )


def train_vae(options: argparse.Namespace) -> int:
    """Frames first, then clips; ends with the latents normalised to the official statistics."""
    config, device = _run_config(options), usable_device(options.device or default_device())
    whole_number("--dim", options.dim, 1, 1024)
    if options.side % 8 or options.frames % 4 != 1:
        raise InputError(
            f"clips of {options.frames} frames and {options.side} pixels", "4n + 1 frames, a multiple of 8 pixels"
        )
    clips = [_whole_clip(file, options) for file in list_clips(options.data)]
    vae = new_vae(VAEConfig(dim=options.dim, decoder_dim=options.dim), options.seed).to(device)
    run = TrainingRun(options.out, {"vae": vae}, config)
    loss = VAELoss(VAELossWeights(kl=options.kl, gan_from=options.gan_from))
    print(f"perceptual term: {loss.perceptual}")
    image_steps = config.steps // 2 if options.image_steps is None else options.image_steps

    def losses(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        frames = 1 if step < image_steps else options.frames
        video = crops(clips, options.batch * (options.frames if frames == 1 else 1), frames, options.side, run.rng())
        return loss(vae, (video.to(device), None), step, generator)

    run.train(losses)
    run.apply_ema()
    rng = random.Random(options.seed)
    normalise_latents(vae, lambda n: crops(clips, 4, options.frames, options.side, rng).to(device), 16)
    return _write(vae.state_dict(), Path(options.out) / "vae.safetensors")


def _whole_clip(file: Path, options: argparse.Namespace) -> Tensor:
    from ..media.images import clip_info, load_image
    from .data import IMAGES

    if file.suffix.lower() in IMAGES:
        return load_image(str(file))[:, None]
    return read_clip(file, *clip_info(str(file)))


def train_transformer(options: argparse.Namespace) -> int:
    """One expert, or LoRA for it; clips and captions are encoded once and kept beside the checkpoints."""
    config, device = _run_config(options), usable_device(options.device or default_device())
    preset, found = resolve_preset(options.model), find_model(options.model)
    if options.expert == "all" and preset.two_experts:
        raise InputError("--expert all for a pair of experts", "high or low")
    if options.expert != "all" and not preset.two_experts:
        raise InputError(f"--expert {options.expert} for a single model", "--expert all")
    if preset.task not in ("t2v", "i2v"):
        raise InputError(f"training of {preset.name}", "a text-to-video or an image-to-video model")
    boundary = preset.boundary if options.boundary is None else options.boundary
    levels = NoiseRange.of(options.expert, 0.0 if boundary is None else boundary, options.shift)
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    data = encode_folder(options, preset, found, device)
    own = found.low if options.expert == "low" else found.high
    if options.new:
        model = new_expert(preset.dit, options.seed)
    else:
        given = load_dit(options.start or own, None if options.start else preset.dit, torch.float32)
        model = start_from(new_expert(preset.dit, options.seed), given.state_dict())
    model = model.to(device)
    if options.lora:
        add_lora(model, options.rank, options.alpha, options.seed)
        model = model.to(device)
    train_expert(model, data, levels, TrainingRun(folder, {"dit": model}, config), options.batch)
    name = f"{'lora' if options.lora else 'expert'}_{options.expert}.safetensors"
    if options.lora:
        save_lora(model, folder / name)
        print(folder / name)
        return 0
    return _write(model.state_dict(), folder / name)


@torch.no_grad()
def encode_folder(options: argparse.Namespace, preset: Preset, found, device: torch.device) -> LatentDataset:
    """The clips and captions of a folder as latents and embeddings, read from `cache.pt` where it fits."""
    files = list_clips(options.data)
    frames, height, width = (
        given or default
        for given, default in (
            (options.frames, preset.frames),
            (options.height, preset.height),
            (options.width, preset.width),
        )
    )
    check_shape(frames, height, width, preset.vae, preset.dit)
    captions = [captions_of(file) for file in files]
    facts = [frames, height, width, preset.name, str(found.vae), str(found.text_encoder), captions, options.expert]
    stamp = hashlib.sha256(
        repr(facts + [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]).encode()
    ).hexdigest()
    cache = Path(options.out) / "cache.pt"
    if cache.is_file():
        kept = torch.load(cache, weights_only=True)
        if kept.pop("stamp") == stamp:
            return LatentDataset(**kept)
    vae = load_vae(found.vae, preset.vae, device=device)
    latents, y = [], []
    for file in files:
        clip = read_clip(file, frames, height, width).to(device)
        latents.append(vae.encode(clip[None]).cpu())
        if preset.task == "i2v":
            y.append(image_to_video(vae, clip[:, 0], frames).cpu())
    del vae
    encoder = load_text_encoder(found.text_encoder, preset.text, device=device)
    tokenizer = open_tokenizer(found.tokenizer, preset.dit.text_len)
    nothing = ["", preset.negative_prompt]
    sentences = [*nothing, *(text for group in captions for text in group)]
    texts = [encoder(*(x.to(device) for x in tokenizer(text)))[0].float().cpu() for text in sentences]
    text_of, place = [], len(nothing)
    for group in captions:
        text_of.append(list(range(place, place + len(group))))
        place += len(group)
    kept = {
        "latents": torch.cat(latents),
        "texts": texts,
        "text_of": text_of,
        "unconditional": list(range(len(nothing))),
        "y": torch.cat(y) if y else None,
    }
    torch.save(kept | {"stamp": stamp}, cache)
    return LatentDataset(**kept)


def _write(state: dict[str, Tensor], path: Path) -> int:
    save_file({name: value.detach().contiguous().cpu() for name, value in state.items()}, path)
    print(path)
    return 0
