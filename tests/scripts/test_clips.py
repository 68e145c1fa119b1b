"""The procedural clips, and the judge that reads them back."""

import random

import pytest
import torch

from scripts.demo_model.clips import SCENES, clip
from scripts.demo_model.judge import fidelity, interval, look, shares
from scripts.demo_model.text import captions, tokenizer_proto
from wan_core.demo.sheet import contact_sheet
from wan_core.media.pixels import to_uint8
from wan_core.text import Tokenizer
from wan_core.video import export_to_video, read_video


@pytest.mark.slow
def test_the_judge_reads_every_kind_of_clip_after_the_mp4(tmp_path):
    rng = random.Random(0)
    for scene in rng.sample(SCENES, 20):
        noisy = clip(scene, rng)[0]
        noisy = noisy + 0.05 * torch.randn(noisy.shape)
        frames = read_video(export_to_video(to_uint8(noisy), tmp_path / "clip.mp4"))
        assert look(frames).agrees(scene) == {"colour": True, "motion": True, "shape": True}, scene
        assert fidelity(frames, scene) > 22


def test_the_judge_sees_what_is_wrong():
    rng = random.Random(0)
    scene = next(s for s in SCENES if (s.shape, s.colour, s.motion, s.background) == ("circle", "red", "left", "black"))
    for change in ({"shape": "square"}, {"colour": "blue"}, {"motion": "up"}):
        other = next(s for s in SCENES if vars(s) == vars(scene) | change)
        frames = to_uint8(clip(other, rng)[0])
        (name,) = change
        assert look(frames).agrees(scene) == {"colour": True, "motion": True, "shape": True} | {name: False}
        assert fidelity(frames, scene) < fidelity(frames, other) - 3
    empty = to_uint8(torch.zeros(3, 17, 64, 64))
    assert (
        look(empty).agrees(scene) == {"colour": False, "motion": False, "shape": False} and fidelity(empty, scene) == 0
    )


def test_objects_stay_in_the_frame():
    rng = random.Random(1)
    for scene in rng.sample(SCENES, 100):
        cover = clip(scene, rng)[1]
        edges = cover[..., 0, :], cover[..., -1, :], cover[..., 0], cover[..., -1]
        assert max(float(edge.max()) for edge in edges) < 0.3  # a blurred corner at most


def test_one_in_six_combinations_is_held_out_and_every_word_is_seen():
    held, seen = ([s for s in SCENES if s.held_out == kept] for kept in (True, False))
    assert 6 * len(held) == len(SCENES)
    for one, other in (("shape", "colour"), ("colour", "motion"), ("shape", "motion")):  # only triples are new
        assert len({(getattr(s, one), getattr(s, other)) for s in seen}) == len(
            {(getattr(s, one), getattr(s, other)) for s in SCENES}
        )


def test_the_tokenizer_knows_every_caption():
    tokenizer = Tokenizer.from_proto(tokenizer_proto())
    for scene in random.Random(2).sample(SCENES, 30):
        texts = captions(scene)
        assert len({tuple(tokenizer(text)[0][0].tolist()) for text in texts}) == len(texts) == 9
        assert all(2 not in tokenizer(text)[0] for text in texts)  # 2 is the unknown token


def test_interval():
    low, high = interval(57, 60)
    assert 0.86 < low < 0.87 and 0.98 < high < 0.99  # Wilson
    assert shares([{"colour": True}] * 3 + [{"colour": False}]) == {"colour": "3/4 (75%, 30% to 95%)"}


def test_a_contact_sheet_shows_first_and_last_frame():
    frames = to_uint8(torch.linspace(-1, 1, 17).view(1, -1, 1, 1).expand(3, 17, 8, 8))
    sheet = contact_sheet(frames, columns=5, scale=2)
    assert (
        sheet.size == (4 + 5 * 20, 20)
        and sheet.getpixel((6, 6)) == (0, 0, 0)
        and sheet.getpixel((98, 10)) == (255, 255, 255)
    )
