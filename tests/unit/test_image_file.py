"""What an image file says of itself: written by the worker, read by both sides, and by A1111's readers."""

import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from farm.image_file import ImageFile, parse_image_file, read_image_file
from schemas.errors import InputError, NotFoundError
from schemas.output import Output
from worker.image_files.containers import Metadata, with_metadata
from worker.image_files.encoding import decoded, encoded
from worker.image_files.metadata import _SOURCE_TYPE, _XMP

OUTPUTS = [Output(format="png"), Output(format="webp"), Output(format="webp", quality=80), Output(format="jpeg")]
EXIF_OUTPUTS = OUTPUTS[1:]
PIXELS = np.random.default_rng(1).integers(0, 256, (50, 67, 3), dtype=np.uint8)

HARD_TEXTS = [
    "a cat",
    "first line\nsecond line\r\nthird\n\n",
    "a cat\nNegative prompt: a dog\nSteps: 1, Sampler: none",
    'quotes " and \\ and , and : and <xml attr="&amp;">',
    "ein Fuchs, gemütlich",
    "雪の中の狐",
    "🦊 and \U00020bb7, astral",
    "\u202eשלום and مرحبا\u202c",
    "nightshift:{}",
    " leading and trailing spaces ",
    "\x01\x1f\x7f\ufeff\uffff",
    "x" * 20_000,
]


def saved(output: Output, parameters: str = "a cat", xmp: str = _XMP, **record: Any) -> bytes:
    metadata = Metadata(parameters, {"nightshift": 1, **record}, xmp)
    return with_metadata(encoded(PIXELS, output, 6), output, metadata)


def parsed(content: bytes) -> ImageFile:
    return parse_image_file(content, "x.png")


@pytest.mark.parametrize("text", HARD_TEXTS)
@pytest.mark.parametrize("output", OUTPUTS)
def test_any_text_comes_back_whole(output: Output, text: str) -> None:
    file = parsed(saved(output, f"{text}\nNegative prompt: {text[:5]}", spec={"prompt": text}))
    assert file.parameters == f"{text}\nNegative prompt: {text[:5]}"
    assert file.nightshift_record() == {"nightshift": 1, "spec": {"prompt": text}}
    assert file.digital_source_type == _SOURCE_TYPE
    assert (file.format, file.width, file.height) == (output.format, 67, 50)


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_record_of_any_size_comes_back_whole(output: Output) -> None:
    meta = {"Note": "🦊 " * 70_000, "Other": "x" * 65_533}
    assert parsed(saved(output, meta=meta)).nightshift_record()["meta"] == meta


@pytest.mark.parametrize("output", OUTPUTS)
def test_metadata_does_not_touch_the_pixels(output: Output) -> None:
    assert np.array_equal(decoded(saved(output, meta={"a": "b" * 99_999})), decoded(encoded(PIXELS, output, 6)))


@pytest.mark.parametrize("output", EXIF_OUTPUTS)
def test_exif_is_as_a1111_and_its_readers_have_it(output: Output) -> None:
    """Big-endian TIFF and big-endian UTF-16 without a byte order mark, after eight bytes that say so."""
    with Image.open(io.BytesIO(saved(output, "雪\ncat 🦊"))) as image:
        exif = image.getexif()
        comment = exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    assert exif.endian == ">"
    assert comment == b"UNICODE\0" + "雪\ncat 🦊".encode("utf-16-be")


@pytest.mark.parametrize("text", ["x", "ab"])
def test_a_webp_is_put_together_as_libwebp_does_it(text: str) -> None:
    """Both lengths of each chunk: even and odd."""
    content = saved(Output(format="webp"), text, xmp=text)
    with Image.open(io.BytesIO(content)) as image:
        exif, stream = image.info["exif"], io.BytesIO()
        image.save(stream, "WEBP", lossless=True, quality=20, exif=exif, xmp=text.encode())
    assert content == stream.getvalue()


def test_a_png_is_put_together_as_pillow_does_it() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a cat")
    info.add_itxt("nightshift", '{"nightshift": 1, "prompt": "雪"}')
    info.add_itxt("XML:com.adobe.xmp", _XMP)
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "PNG", compress_level=6, pnginfo=info)
    assert saved(OUTPUTS[0], prompt="雪") == stream.getvalue()


@pytest.mark.parametrize(("num_characters", "fits"), [(32_737, True), (32_738, False), (40_000, False)])
def test_a_jpeg_whose_exif_would_be_too_long_goes_without_the_text_and_has_the_record(
    num_characters: int, fits: bool
) -> None:
    text = "雪" * num_characters
    file = parsed(saved(Output(format="jpeg"), text, prompt=text))
    assert file.parameters == (text if fits else None)
    assert file.nightshift_record()["prompt"] == text
    assert file.digital_source_type == _SOURCE_TYPE


def test_comments_of_other_programs_do_not_disturb() -> None:
    content = saved(Output(format="jpeg"), prompt="x" * 70_000)
    comment = b"\xff\xfe" + struct.pack(">H", 9) + b"CREATOR"
    start = content.index(b"\xff\xfe")
    assert parsed(content[:start] + comment + content[start:]).nightshift_record()["prompt"] == "x" * 70_000


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_file_of_another_program_has_no_record_and_says_so(output: Output) -> None:
    file = parsed(encoded(PIXELS, output, 6))
    assert (file.parameters, file.record, file.digital_source_type) == (None, None, None)
    with pytest.raises(InputError, match=r"x\.png carries no record of Nightshift"):
        file.nightshift_record()


def with_exif(image_format: str, tag: int, value: str) -> bytes:
    exif = Image.Exif()
    exif[tag] = value
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, image_format, exif=exif)
    return stream.getvalue()


@pytest.mark.parametrize("image_format", ["WEBP", "JPEG"])
def test_a_photograph_with_a_description_has_no_record(image_format: str) -> None:
    assert parsed(with_exif(image_format, ExifTags.Base.ImageDescription, "my cat")).record is None


def png_with(**texts: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_itxt(key, text)
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


@pytest.mark.parametrize(
    "record", ["", "{", "[]", "{}", '{"nightshift": "1"}', '{"nightshift": 1, "a": NaN}', '"\\ud800"', "[" * 100_000,
               '{"nightshift": 1, "a": "\\ud83e"}', '{"nightshift": ' + "1" * 5_000 + "}"]
)  # fmt: skip
def test_a_broken_record_is_refused(record: str) -> None:
    with pytest.raises(InputError, match=r"the record in x\.png is broken"):
        parsed(png_with(nightshift=record))


@pytest.mark.parametrize(
    "xmp",
    [
        '<rdf:Description Iptc4xmpExt:DigitalSourceType="http://a/b"/>',
        "<rdf:Description Iptc4xmpExt:DigitalSourceType = 'http://a/b'/>",
        "<Iptc4xmpExt:DigitalSourceType>http://a/b</Iptc4xmpExt:DigitalSourceType>",
        '<Iptc4xmpExt:DigitalSourceType rdf:resource="http://a/b"/>',
    ],
)
def test_the_source_type_is_read_however_it_is_written(xmp: str) -> None:
    assert parsed(saved(Output(format="jpeg"), xmp=xmp)).digital_source_type == "http://a/b"


def test_an_entity_in_the_xmp_stays_a_name() -> None:
    bomb = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><a Iptc4xmpExt:DigitalSourceType="&e;"/>'
    assert parsed(saved(Output(format="png"), xmp=bomb)).digital_source_type == "&e;"


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF\4\0\0\0WEBP"])
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(InputError, match=r"x\.png is no PNG, WebP or JPEG that can be read"):
        parsed(content)


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_file_that_was_cut_off_or_damaged_is_read_or_refused_and_nothing_else(output: Output) -> None:
    content, random = saved(output, spec={"prompt": "a cat"}), np.random.default_rng(1)
    for length in range(0, len(content), 97):
        read_or_refused(content[:length])
    for _ in range(300):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 5):
            damaged[place] = random.integers(0, 256)
        read_or_refused(bytes(damaged))


def read_or_refused(content: bytes) -> None:
    with suppress(InputError):
        assert parsed(content).format in ("png", "webp", "jpeg")


@pytest.mark.parametrize("side", [10_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused(side: int) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    with pytest.raises(InputError, match="can be read"):
        parsed(content + png_with()[33:])


def test_files_on_disk_are_read_and_their_errors_name_them(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(saved(Output(format="jpeg")))
    assert read_image_file(tmp_path / "cat.jpg").name == str(tmp_path / "cat.jpg")
    with pytest.raises(NotFoundError, match=r"there is no file .*dog\.png"):
        read_image_file(tmp_path / "dog.png")
    with pytest.raises(InputError, match="is no file"):
        read_image_file(tmp_path)
