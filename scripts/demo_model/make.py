"""Makes the demo model from nothing: `python -m scripts.demo_model.make FOLDER`. A few hours on two CPU cores.

Every run keeps its checkpoints in FOLDER, so that the command can be stopped and repeated.
"""

import argparse
import json
import random
from pathlib import Path

import torch

from scripts.demo_model import train_vae
from scripts.demo_model.text import tokenizer_proto
from scripts.demo_model.train_experts import (
    I2V,
    STAGES,
    T2V,
    encode_clips,
    samples,
    train_base,
    train_expert_stage,
    with_images,
)
from scripts.demo_model.write import write_pair, write_shared
from wan_core.checkpoints import load_text_encoder, load_vae
from wan_core.demo.release import TEXT, VAE, shared_folder
from wan_core.text import Tokenizer
from wan_core.training.vae import normalise_latents


def make(folder: Path) -> None:
    """Train every part and write the shipped files."""
    folder.mkdir(parents=True, exist_ok=True)
    proto = tokenizer_proto()
    tokenizer = Tokenizer.from_proto(proto)
    vae = train_vae.train(folder)
    rng = random.Random(7)
    normalise_latents(vae, lambda n: train_vae.named_batch(rng, 8), 16)
    train_vae.train_decoder(vae, folder)
    encoded = encode_clips(vae, folder / "clips.pt")
    base, encoder = train_base(encoded, tokenizer, folder)
    write_shared(vae, encoder, proto)
    # From here on the text encoder and the VAE are what the files hold, after rounding.
    encoder, vae = load_text_encoder(shared_folder() / TEXT), load_vae(shared_folder() / VAE)
    data = samples(encoded, encoder, tokenizer)
    with_first_frame = with_images(data, encoded, vae)
    trained = {"base": base.state_dict()}
    for stage in STAGES:
        model = train_expert_stage(
            stage, with_first_frame if stage.preset == I2V else data, trained[stage.start], folder
        )
        trained[stage.name] = model.state_dict()
    for task in (T2V, I2V):
        write_pair(task, trained[f"{task[:3]}-high"], trained[f"{task[:3]}-low"])
    save_logs(folder, Path(__file__).parent / "log")


def save_logs(folder: Path, to: Path) -> None:
    """Keep every run's losses, a line each 50 steps."""
    to.mkdir(exist_ok=True)
    for file in sorted(folder.glob("*/log.jsonl")):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        kept = [line for line in lines if line["step"] % 50 == 0]
        (to / f"{file.parent.name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for checkpoints and logs")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    make(options.folder)


if __name__ == "__main__":
    main()
