"""Captions, tokenizer and text encoder of the demo model."""

import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scripts.demo_model.clips import BACKGROUNDS, CHINESE, COLOURS, ENGLISH, MOTIONS, SCENES, SHAPES, Scene
from wan_core.config import NEGATIVE_PROMPT, TextConfig
from wan_core.testing import train_tokenizer
from wan_core.text import UMT5, Tokenizer

CONFIG = TextConfig(dim=128, dim_attn=128, ffn_dim=192, heads=4, layers=2, vocab=384)
UNCONDITIONAL = ("", NEGATIVE_PROMPT)  # both stand for "no prompt" in training


def captions(scene: Scene) -> list[str]:
    """Every sentence that describes the scene."""
    return [scene.caption(template) for template in (*ENGLISH, *CHINESE)]


def tokenizer_proto() -> bytes:
    """A sentencepiece model of the captions and the default negative prompt."""
    corpus = [NEGATIVE_PROMPT, *(sentence for scene in SCENES for sentence in captions(scene))]
    random.Random(0).shuffle(corpus)
    words = {"背景", "一个", *SHAPES.values(), *(row[0] for table in (COLOURS, BACKGROUNDS) for row in table.values())}
    words |= {row[1] for row in MOTIONS.values()}
    words |= {f"▁{word}" for scene in SCENES for word in scene.caption(ENGLISH[0]).lower().split()}
    return train_tokenizer(CONFIG.vocab, corpus, sorted(words))


@torch.no_grad()
def new_encoder(seed: int) -> UMT5:
    """A text encoder to train from nothing, with T5's initial deviations. Source: arXiv 1910.10683, its code."""
    generator = torch.Generator().manual_seed(seed)
    encoder, c = UMT5(CONFIG), CONFIG
    deviations = {
        "attn.q": (c.dim * c.dim_attn // c.heads) ** -0.5,
        "attn.k": c.dim**-0.5,
        "attn.v": c.dim**-0.5,
        "attn.o": c.dim_attn**-0.5,
        "gate.0": c.dim**-0.5,
        "fc1": c.dim**-0.5,
        "fc2": c.ffn_dim**-0.5,
        "pos_embedding.embedding": c.dim**-0.5,
        "token_embedding": 1.0,
    }
    for name, weight in encoder.state_dict().items():
        if weight.ndim == 2:  # norms stay 1
            deviation = next(d for ending, d in deviations.items() if name.removesuffix(".weight").endswith(ending))
            weight.copy_(torch.randn(weight.shape, generator=generator) * deviation)
    return encoder


def encode(encoder: UMT5, tokenizer: Tokenizer, prompts: Sequence[str]) -> list[Tensor]:
    """Embeddings (n, dim) of each prompt, float32."""
    return [encoder(*tokenizer(prompt))[0].float() for prompt in prompts]


def encode_together(encoder: UMT5, ids: Sequence[Tensor]) -> Tensor:
    """Token ids (n_k,) → embeddings (B, n, dim) with zeros after each text; differentiable."""
    padded = nn.utils.rnn.pad_sequence(list(ids), batch_first=True)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(one) for one in ids], batch_first=True)
    return encoder(padded, mask) * mask.unsqueeze(-1)
