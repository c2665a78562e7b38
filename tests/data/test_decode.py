"""Every kind of image file comes out as a person sees it."""

import numpy as np
import pytest
from PIL import Image

from dvae.data.decode import Decoder
from dvae.errors import UserError
from dvae.tasks.vae.inputs import read_images

# As exact as a format can be.
OPTIONS = {"jpg": {"quality": 95, "subsampling": 0}, "webp": {"lossless": True}}
WHITE, BLUE = (255, 255, 255), (0, 0, 255)


def _read(path, size=(8, 8), channels=3, fit="crop", background=WHITE):
    pixels = Decoder((channels, *size), fit, background)(path)
    assert pixels.shape == (channels, *size)
    assert pixels.dtype == np.uint8
    return np.moveaxis(pixels, 0, -1).astype(int)


GREY = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)
COLOUR = np.stack([GREY, GREY[::-1], GREY.T], -1)
ALPHA = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8).T


def _over(colour, alpha, background=WHITE):
    share = alpha[..., None] / 255
    return np.rint(colour * share + np.array(background) * (1 - share)).astype(int)


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff", "webp", "gif", "jpg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_formats(tmp_path, ending, channels):
    path = tmp_path / f"image.{ending}"
    tile = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    tile[:, 8:] = (10, 20, 30)
    Image.fromarray(tile).save(path, **OPTIONS.get(ending, {}))
    expected = tile if channels == 3 else np.array(Image.fromarray(tile).convert("L"))[..., None]
    found = _read(path, (16, 16), channels)
    assert np.abs(found - expected.astype(int)).max() <= (3 if ending == "jpg" else 0)


def _palette(path):
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8), "P")
    image.putpalette(COLOUR.reshape(-1, 3).tobytes())
    image.save(path)
    return COLOUR


def _transparent_palette(path):
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8), "P")
    image.putpalette(COLOUR.reshape(-1, 3).tobytes())
    image.save(path, transparency=ALPHA.tobytes())
    return _over(COLOUR, ALPHA)


def _rgba(path):
    Image.fromarray(np.dstack([COLOUR, ALPHA])).save(path)
    return _over(COLOUR, ALPHA)


def _grey_with_alpha(path):
    Image.fromarray(np.dstack([GREY, ALPHA]), "LA").save(path)
    return _over(np.stack([GREY] * 3, -1), ALPHA)


def _grey(path):
    Image.fromarray(GREY).save(path)
    return np.stack([GREY] * 3, -1)


def _colour_key(path):
    Image.fromarray(GREY).save(path, transparency=int(GREY[3, 3]))
    return _over(np.stack([GREY] * 3, -1), np.where(GREY[3, 3] == GREY, 0, 255))


def _black_and_white(path):
    Image.fromarray(GREY > 100).save(path)
    return np.stack([np.where(GREY > 100, 255, 0)] * 3, -1)


def _16_bits(path):
    """Pillow clips such values at 255 unless they are scaled first."""
    Image.fromarray(GREY.astype(np.uint16) * 257).save(path)
    return np.stack([GREY] * 3, -1)


@pytest.mark.parametrize(
    "write",
    [
        _palette,
        _transparent_palette,
        _rgba,
        _grey_with_alpha,
        _grey,
        _colour_key,
        _black_and_white,
        _16_bits,
    ],
)
def test_modes(tmp_path, write):
    path = tmp_path / "image.png"
    expected = write(path)
    assert np.abs(_read(path) - expected).max() <= 1
    luma = np.array(Image.fromarray(expected.astype(np.uint8)).convert("L"))[..., None]
    assert np.abs(_read(path, channels=1) - luma.astype(int)).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bits_in_both_byte_orders(tmp_path, order):
    path = tmp_path / "image.tiff"
    mode = {"<": "I;16", ">": "I;16B"}[order]
    values = (GREY.astype(np.uint16) * 257).astype(f"{order}u2")
    Image.frombytes(mode, (8, 8), values.tobytes()).save(path)
    assert np.array_equal(_read(path, channels=1)[..., 0], GREY)


@pytest.mark.parametrize("ending", ["jpg", "tiff"])
def test_cmyk(tmp_path, ending):
    path = tmp_path / f"image.{ending}"
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(path)
    assert np.abs(_read(path) - [255, 0, 0]).max() <= 3


def test_transparency_shows_the_background(tmp_path):
    path = tmp_path / "image.png"
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(path)
    assert (_read(path, background=BLUE) == BLUE).all()
    # Hidden colours do not shine through at edges when the image is scaled.
    half = np.zeros((8, 8, 4), np.uint8)
    half[:, :3] = (0, 255, 0, 255)
    half[:, 3:] = (255, 0, 0, 0)
    Image.fromarray(half).save(path)
    assert _read(path, (4, 4), background=BLUE)[..., 0].max() == 0


UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tiff"])
def test_exif_orientation(tmp_path, orientation, ending):
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :16], stored[:8, 16:], stored[8:, :16] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image.{ending}"
    Image.fromarray(stored).save(path, exif=exif, **OPTIONS.get(ending, {}))
    expected = UPRIGHT[orientation](stored)
    found = _read(path, expected.shape[:2])
    assert np.abs(found - expected.astype(int)).max() <= (8 if ending == "jpg" else 0)


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tiff"])
def test_an_animation_shows_its_first_frame(tmp_path, ending):
    path = tmp_path / f"image.{ending}"
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    options = OPTIONS.get(ending, {})
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    assert (_read(path) == [255, 0, 0]).all()


def test_fit(tmp_path):
    path = tmp_path / "image.png"
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, 4:12] = (0, 255, 0)
    Image.fromarray(wide).save(path)
    assert (_read(path, fit="crop") == [0, 255, 0]).all()
    padded = _read(path, (16, 16), fit="pad", background=BLUE)
    assert (padded[:4] == BLUE).all()
    assert (padded[12:] == BLUE).all()
    assert (padded[4:12] == wide).all()
    stretched = _read(path, (8, 8), fit="stretch")
    assert (stretched[:, 3:5] == [0, 255, 0]).all()
    assert (stretched[:, [0, -1]] == 0).all()


def test_a_large_photograph_keeps_its_brightness(tmp_path):
    """It is decoded at a smaller scale."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3)).astype(np.uint8)
    large = Image.fromarray(noise).resize((960, 640), Image.Resampling.BICUBIC)
    large.save(tmp_path / "large.jpg", quality=95)
    large.save(tmp_path / "large.png")
    found, exact = (_read(tmp_path / f"large.{ending}", (32, 32)) for ending in ("jpg", "png"))
    assert np.abs(found - exact).mean() < 3
    assert abs(found.mean() - exact.mean()) < 0.5


def test_floating_point_numbers_are_refused(tmp_path):
    path = tmp_path / "image.tiff"
    Image.fromarray(np.ones((8, 8), np.float32)).save(path)
    with pytest.raises(ValueError, match="expected 8 or 16 bits for a pixel"):
        _read(path)


def test_images_of_ones_own_are_read_like_a_folder(tmp_path):
    path = tmp_path / "image.png"
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(path)
    decoder = Decoder((3, 4, 4), "crop", BLUE)
    assert read_images([path], decoder)[0, :, 0, 0].tolist() == list(BLUE)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match="images: expected image files, found another: .*image.png"):
        read_images([path], decoder)
