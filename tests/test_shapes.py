import pytest

from wan_core.config import PRESETS
from wan_core.errors import InputError
from wan_core.shapes import (
    VideoShape,
    area_size,
    check_shape,
    cover_size,
    latent_frames,
    nearest_frames,
    nearest_sizes,
    video_frames,
)
from wan_core.validate import either

A14B, FIVE_B = PRESETS["t2v-a14b"], PRESETS["ti2v-5b"]


@pytest.mark.parametrize(
    "preset, shape, tokens",
    [
        (A14B, (81, 720, 1280), 75_600),
        (A14B, (81, 480, 832), 32_760),
        (FIVE_B, (121, 704, 1280), 27_280),
    ],
)
def test_token_counts(preset, shape, tokens):
    assert VideoShape(*shape).tokens(preset.vae, preset.dit) == tokens


@pytest.mark.parametrize("frames", range(1, 201))
def test_every_frame_count_is_legal_or_names_the_nearest(frames):
    if frames % 4 == 1:
        assert check_shape(frames, 480, 832, A14B.vae, A14B.dit).frames == frames
        assert video_frames(latent_frames(frames)) == frames
        return
    below, above = nearest_frames(frames)
    assert below % 4 == above % 4 == 1 and below < frames < above == below + 4
    with pytest.raises(InputError, match=f"num_frames is {frames}.*nearest count is {below} or {above}"):
        check_shape(frames, 480, 832, A14B.vae, A14B.dit)


@pytest.mark.parametrize("preset, multiple", [(A14B, 16), (FIVE_B, 32)])
def test_every_size_is_legal_or_names_the_nearest(preset, multiple):
    for size in range(1, 257):
        if size % multiple == 0:
            assert check_shape(5, size, size, preset.vae, preset.dit).width == size
            continue
        nearest = nearest_sizes(size, multiple)
        assert all(n % multiple == 0 and 0 < abs(n - size) < multiple for n in nearest) and max(nearest) > size
        with pytest.raises(
            InputError, match=f"{size}×{size}.*multiples of {multiple}.*width is {either(nearest)}, height"
        ):
            check_shape(5, size, size, preset.vae, preset.dit)


@pytest.mark.parametrize(
    "shape",
    [
        (10**9 * 4 + 1, 480, 832),
        (-3, 480, 832),
        (0, 480, 832),
        (5, 0, 832),
        (5, -16, 832),
        (5, 480, 2**40),
        (5, float("nan"), 832),
        (5.5, 480, 832),
        ("5", 480, 832),
        (True, 480, 832),
    ],
)
def test_hostile_numbers_are_refused(shape):
    with pytest.raises(InputError):
        check_shape(*shape, A14B.vae, A14B.dit)


@pytest.mark.parametrize(
    "image, area, size",
    [  # (height, width)
        ((1080, 1920), 720 * 1280, (720, 1280)),
        ((480, 832), 720 * 1280, (720, 1248)),
        ((800, 800), 720 * 1280, (960, 960)),
        ((1080, 1920), 480 * 832, (464, 832)),
        ((480, 832), 480 * 832, (464, 832)),
        ((500, 500), 480 * 832, (624, 624)),
    ],
)
def test_image_to_video_sizes_are_official(image, area, size):
    assert area_size(*image, area) == size


@pytest.mark.parametrize("image, size", [((720, 1280), (704, 1248)), ((1000, 1000), (928, 960))])
def test_5b_sizes_are_official(image, size):
    assert cover_size(*image, 704 * 1280) == size
