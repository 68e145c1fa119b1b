import numpy as np
import pytest
import torch
from PIL import Image

from wan_core.errors import InputError, VideoError
from wan_core.media.images import clip_info, load_image, load_mask, load_video
from wan_core.media.mp4 import write_mp4

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


@pytest.fixture
def saved(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def test_every_form_of_an_image_is_the_same_tensor(saved):
    reference = torch.from_numpy(PIXELS).permute(2, 0, 1).float() / 127.5 - 1
    forms = [
        saved,
        str(saved),
        Image.open(saved),
        PIXELS,
        PIXELS / np.float32(255),
        reference,
        np.ascontiguousarray(PIXELS[:, :, ::-1])[..., ::-1],
    ]
    forms += [torch.from_numpy(PIXELS).permute(2, 0, 1), reference[None], np.dstack((PIXELS, PIXELS[..., :1]))]
    for form in forms:
        assert torch.allclose(load_image(form), reference, atol=1e-6)
    grey = PIXELS[..., 0]
    assert torch.equal(load_image(grey), load_image(np.dstack([grey] * 3)))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_other_modes_become_rgb(mode):
    assert load_image(Image.fromarray(PIXELS).convert(mode)).shape == (3, 20, 30)


def test_damaged_images_are_refused(saved, tmp_path):
    whole = saved.read_bytes()
    for length in range(1, len(whole), 97):
        (tmp_path / "cut.png").write_bytes(whole[:length])
        with pytest.raises(InputError, match="is not an image"):
            load_image(tmp_path / "cut.png")
    with pytest.raises(InputError):
        load_image("a\0b.png")


def test_a_photo_taken_sideways_is_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "photo.png", exif=exif)
    assert load_image(tmp_path / "photo.png").shape == (3, 30, 20)


@pytest.mark.parametrize(
    "source",
    [
        None,
        7,
        "missing.png",
        __file__,
        np.zeros((4, 20, 2)),
        torch.zeros(20, 30, 3),
        torch.full((3, 4, 4), float("nan")),
        torch.full((3, 4, 4), 255.0),
        torch.zeros(3, 0, 4),
    ],
)
def test_what_is_no_image_is_refused(source):
    with pytest.raises(InputError):
        load_image(source)


def test_every_form_of_a_clip_is_the_same_tensor(tmp_path):
    frames = np.repeat(np.array([10, 128, 250], np.uint8), 16 * 16 * 3).reshape(3, 16, 16, 3)
    write_mp4([frames], tmp_path / "clip.mp4", 16)
    tensor = torch.from_numpy(frames).permute(3, 0, 1, 2).float() / 127.5 - 1
    for form in (frames, list(frames), [Image.fromarray(f) for f in frames], tensor, tmp_path / "clip.mp4"):
        assert clip_info(form) == (3, 16, 16)
        assert torch.allclose(load_video(form, 3, 16, 16), tensor, atol=0.03)
        assert load_video(form, 1, 32, 48).shape == (3, 1, 32, 48)


@pytest.mark.parametrize("source", [None, [], "missing.mp4", np.zeros((4, 4, 3)), torch.zeros(1, 4, 4, 4)])
def test_what_is_no_clip_is_refused(source):
    with pytest.raises(InputError):
        load_video(source, 1, 16, 16)


def test_every_form_of_a_mask():
    half = np.zeros((16, 16), np.uint8)
    half[:, 8:] = 255
    forms = [
        half,
        half // 255,
        half > 0,
        half[..., None],
        half[None].repeat(5, 0),
        torch.from_numpy(half),
        torch.from_numpy(half / 255),
        torch.from_numpy(half / 255)[None, None],
        Image.fromarray(half),
        [Image.fromarray(half)] * 5,
    ]
    for form in forms:
        mask = load_mask(form, 5, 16, 16)
        assert mask.shape == (1, 5, 16, 16) and mask[..., :8].max() < 1e-6 and mask[..., 8:].min() > 1 - 1e-6


def test_a_clip_that_breaks_off_is_not_filled_with_anything(tmp_path, monkeypatch):
    from wan_core.media import images

    monkeypatch.setattr(images, "clip_info", lambda source, name: (5, 16, 16))  # what a damaged file's index states
    monkeypatch.setattr(images, "iter_video", lambda path, limit: iter([np.zeros((16, 16, 3), np.uint8)]))
    with pytest.raises(VideoError, match="1 of its frames"):
        load_video(tmp_path / "clip.mp4", 5, 16, 16)


@pytest.mark.parametrize(
    "source", [torch.full((4, 4), 2.0), torch.ones(0, 0), torch.zeros(2, 5, 4, 4), np.zeros((3, 4, 5), np.uint8)]
)
def test_what_is_no_mask_is_refused(source):
    with pytest.raises(InputError, match="mask"):
        load_mask(source, 5, 16, 16)
