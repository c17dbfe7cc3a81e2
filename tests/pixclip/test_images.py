import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pixclip.images import FORMATS, ImageError, opaque, open_image, read_image

ORIENTATION = 0x0112


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def two_colours(width_px: int = 60, height_px: int = 40) -> Image.Image:
    """Red on the left half, blue on the right."""
    pixels = np.zeros((height_px, width_px, 3), dtype=np.uint8)
    pixels[:, : width_px // 2, 0] = 255
    pixels[:, width_px // 2 :, 2] = 255
    return Image.fromarray(pixels)


def png_that_claims(width_px: int, height_px: int) -> bytes:
    """A PNG of a few bytes whose header promises a huge image."""
    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("byte_order", ["<u2", ">u2"])
def test_a_picture_of_sixteen_bits_keeps_its_greys(byte_order):
    greys = np.arange(256, dtype=np.uint8)[None].repeat(2, 0)
    wide = Image.fromarray((greys.astype(np.uint16) * 257).astype(byte_order))
    assert wide.mode.startswith("I;16")
    for form in ("PNG", "TIFF"):
        assert np.array_equal(np.asarray(open_image(encoded(wide, form)))[..., 0], greys)


def wide_png(samples: np.ndarray) -> bytes:
    """A PNG of 16 bits a sample [H, W, channels], which Pillow cannot write itself."""
    height_px, width_px, channels = samples.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    lines = samples.astype(">u2").reshape(height_px, -1)
    data = b"".join(b"\0" + line.tobytes() for line in lines)
    header = struct.pack(">IIBBBBB", width_px, height_px, 16, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def wide_tiff(samples: np.ndarray, order: str = "<", **tags: tuple[int, int]) -> bytes:
    """An uncompressed TIFF of 16 bits a sample [H, W, channels]; `tags` as name=(number, value)."""
    height_px, width_px, channels = samples.shape
    bits_at = 8 + 2 + 12 * (10 + len(tags)) + 4
    entries = {
        256: (3, 1, width_px),
        257: (3, 1, height_px),
        258: (3, channels, 16 if channels == 1 else bits_at),
        259: (3, 1, 1),
        262: (3, 1, 1 if channels == 1 else 2),
        273: (4, 1, bits_at + 2 * channels),
        277: (3, 1, channels),
        278: (3, 1, height_px),
        279: (4, 1, samples.size * 2),
        284: (3, 1, 1),
    } | {number: (3, 1, value) for number, value in tags.values()}
    table = struct.pack(order + "H", len(entries))
    for number, (kind, count, value) in sorted(entries.items()):
        form = "I" if kind == 4 or count > 1 else "HH"
        fields = (value,) if form == "I" else (value, 0)
        table += struct.pack(order + "HHI" + form, number, kind, count, *fields)
    bits = struct.pack(order + f"{channels}H", *[16] * channels)
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return start + table + b"\0" * 4 + bits + samples.astype(order + "u2").tobytes()


def ramp(bits: int, channels: int) -> np.ndarray:
    """From black to the white of so many bits; an alpha channel is opaque."""
    greys = np.linspace(0, 2**bits - 1, 64).round().astype(np.uint16)
    samples = np.broadcast_to(greys[None, :, None], (8, 64, channels)).copy()
    if channels in (2, 4):
        samples[..., -1] = 2**bits - 1
    return samples


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_fewer_bits_in_a_png_of_sixteen_are_no_black_picture(bits, channels):
    pixels = np.asarray(open_image(wide_png(ramp(bits, channels)))).astype(float)
    assert np.abs(pixels - np.linspace(0, 255, 64)[None, :, None]).max() < 1.5


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("order", ["<", ">"])
def test_fewer_bits_in_a_tiff_of_sixteen_are_no_black_picture(bits, channels, order):
    pixels = np.asarray(open_image(wide_tiff(ramp(bits, channels), order))).astype(float)
    assert np.abs(pixels - np.linspace(0, 255, 64)[None, :, None]).max() < 1.5


def test_a_tiff_that_tells_its_greatest_value_is_believed():
    dim = ramp(10, 1)  # of 12 bits, and nothing in the picture is bright
    pixels = np.asarray(open_image(wide_tiff(dim, greatest=(281, 4095))))
    assert abs(int(pixels.max()) - 64) <= 1


def test_colours_of_twelve_bits_keep_their_hue():
    samples = ramp(12, 3)
    samples[..., 1] //= 2
    samples[..., 2] = 0
    red, green, blue = open_image(wide_png(samples)).getpixel((63, 4))
    assert (red, blue) == (255, 0)
    assert abs(green - 128) <= 1


def test_a_turned_picture_of_twelve_bits_is_turned_and_bright():
    data = wide_tiff(ramp(12, 3), orientation=(274, 6))
    opened = read_image(data)
    assert (opened.orientation, opened.upright.size) == (6, (8, 64))
    assert opened.upright.getpixel((4, 63)) == (255, 255, 255)


def test_a_tiff_whose_samples_are_packed_in_twelve_bits_is_no_black_picture():
    even, odd = ramp(12, 1)[..., 0][:, ::2], ramp(12, 1)[..., 0][:, 1::2]
    packed = np.stack([even >> 4, (even & 15) << 4 | odd >> 8, odd & 255], axis=-1)
    data = wide_tiff(ramp(12, 1))[: -8 * 64 * 2] + packed.astype(np.uint8).tobytes()
    num_bytes = struct.pack("<HHII", 279, 4, 1, 8 * 64 * 2)
    data = data.replace(num_bytes, struct.pack("<HHII", 279, 4, 1, packed.size))
    data = data.replace(
        struct.pack("<HHIHH", 258, 3, 1, 16, 0), struct.pack("<HHIHH", 258, 3, 1, 12, 0)
    )
    pixels = np.asarray(open_image(data)).astype(float)
    assert np.abs(pixels - np.linspace(0, 255, 64)[None, :, None]).max() < 1.5


def test_numbers_with_a_sign_are_no_colours():
    data = wide_tiff(ramp(12, 1), sample_format=(339, 2))
    with pytest.raises(ImageError, match="scale them to 0 to 255"):
        open_image(data)


def test_a_black_picture_of_sixteen_bits_stays_black():
    for channels in (1, 3):
        assert not np.asarray(open_image(wide_png(ramp(12, channels) * 0))).any()


def reason_of(data: bytes, **options: int) -> str:
    with pytest.raises(ImageError) as caught:
        open_image(data, **options)
    return caught.value.reason


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_opened_as_rgb(form):
    image = open_image(encoded(two_colours(), form))
    assert (image.mode, image.size) == ("RGB", (60, 40))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1", "I;16"])
def test_every_colour_mode_becomes_rgb(mode):
    form = "TIFF" if mode == "CMYK" else "PNG"
    source = Image.new(mode, (8, 6)) if mode == "I;16" else two_colours(8, 6).convert(mode)
    assert open_image(encoded(source, form)).mode == "RGB"


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_numbers_without_a_range_are_no_colours(dtype):
    image = Image.fromarray(np.full((4, 4), 1000, dtype=dtype))
    for opened in (lambda: open_image(encoded(image, "TIFF")), lambda: opaque(image)):
        with pytest.raises(ImageError, match="scale them to 0 to 255"):
            opened()


@pytest.mark.parametrize(
    ("orientation", "size", "red_pixel"),
    [
        (1, (60, 40), (1, 20)),
        (3, (60, 40), (58, 20)),  # half a turn
        (6, (40, 60), (20, 1)),  # a quarter turn clockwise
        (8, (40, 60), (20, 58)),  # a quarter turn the other way
    ],
)
def test_the_exif_orientation_is_applied(orientation, size, red_pixel):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = open_image(encoded(two_colours(), "JPEG", exif=exif, quality=95))
    assert image.size == size
    red, _, blue = image.getpixel(red_pixel)
    assert red > 200
    assert blue < 60


def test_the_exif_orientation_is_applied_only_once():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    upright = open_image(encoded(two_colours(), "JPEG", exif=exif))
    again = open_image(encoded(upright, "JPEG", exif=upright.getexif()))
    assert again.size == upright.size


def transparent_red(mode: str) -> Image.Image:
    """Red everywhere, of which the right half is transparent."""
    image = Image.new("RGBA", (20, 10), (255, 0, 0, 255))
    image.paste((255, 0, 0, 0), (10, 0, 20, 10))
    return image if mode == "RGBA" else image.quantize()


@pytest.mark.parametrize(("mode", "form"), [("RGBA", "PNG"), ("RGBA", "TIFF"), ("P", "PNG")])
def test_what_is_transparent_becomes_white(mode, form):
    image = open_image(encoded(transparent_red(mode), form))
    assert image.mode == "RGB"
    assert (image.getpixel((2, 5)), image.getpixel((15, 5))) == ((255, 0, 0), (255, 255, 255))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_means_what_pillow_means(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(two_colours(), "PNG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(np.asarray(open_image(data)), np.asarray(expected))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_stored_size_and_the_orientation_are_told(form, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    opened = read_image(encoded(two_colours(), form, exif=exif))
    assert (opened.stored_width, opened.stored_height, opened.orientation) == (60, 40, orientation)
    assert opened.upright.size == ((40, 60) if orientation >= 5 else (60, 40))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_means_nothing_is_upright(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    opened = read_image(encoded(two_colours(), "JPEG", exif=exif))
    assert (opened.orientation, opened.upright.size) == (1, (60, 40))


def test_a_jpeg_decoded_smaller_still_tells_its_stored_size():
    opened = read_image(encoded(two_colours(), "JPEG"), shrink=4)
    assert (opened.stored_width, opened.upright.width) == (60, 15)


def test_damaged_metadata_does_not_cost_a_good_image():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[0x010E] = "a description"
    data = encoded(two_colours(), "JPEG", exif=exif)
    description_tag = b"\x01\x0e\x00\x02"
    assert description_tag in data
    damaged = data.replace(description_tag, b"\x01\x00\x00\x02")  # a number's tag, a text's type
    with pytest.raises(struct.error):
        ImageOps.exif_transpose(Image.open(io.BytesIO(damaged)))
    assert open_image(damaged).size == (40, 60)


def test_a_huge_image_is_refused_from_its_header_alone():
    assert reason_of(png_that_claims(40_000, 40_000)) in {"too_many_pixels", "not_an_image"}
    assert reason_of(png_that_claims(10_000, 6_000)) == "too_many_pixels"


def test_the_pixel_limit_is_a_limit_of_the_pixels():
    data = encoded(two_colours(60, 40))
    assert open_image(data, max_pixels=2400).size == (60, 40)
    assert reason_of(data, max_pixels=2399) == "too_many_pixels"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>404 not found</html>",
        b"GIF89a",
        b"%PDF-1.4",
        b"\xff\xd8\xff",
        b"%!PS-Adobe-3.0",
    ],
    ids=["empty", "page", "bare GIF", "PDF", "bare JPEG", "PostScript"],
)
def test_what_is_no_image_is_refused(data):
    assert reason_of(data) == "not_an_image"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_image_is_refused(form):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, form)
    assert reason_of(data[: len(data) // 2]) in {"truncated_image", "not_an_image"}


def test_a_format_outside_the_list_is_refused():
    assert reason_of(encoded(two_colours(), "PPM")) == "not_an_image"


def damaged_samples() -> list[bytes]:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[0x010E] = "a description"
    return [encoded(two_colours(), form, exif=exif) for form in ("JPEG", "PNG", "WEBP", "TIFF")] + [
        encoded(two_colours(), form) for form in ("GIF", "BMP")
    ]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about damaged tags
@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(damaged_samples()),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    st.floats(0, 1),
)
def test_damaged_bytes_give_an_image_or_an_image_error(data, changes, keep):
    damaged = bytearray(data[: int(len(data) * max(keep, 0.05)) or 1])
    for position, value in changes:
        damaged[int(position * len(damaged))] = value
    try:
        image = open_image(bytes(damaged), max_pixels=1_000_000)
    except ImageError:
        return
    assert image.mode == "RGB"
