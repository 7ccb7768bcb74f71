"""Whatever an image file says of itself is read, or refused in a sentence; and what we write is what we read."""

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from farm.image_file import (
    MAX_FILE_BYTES,
    MAX_RECORD_CHARACTERS,
    MAX_RECORD_NESTING,
    ImageFile,
    parse_image_file,
    read_image_file,
)
from schemas.errors import InputError
from schemas.output import Output
from schemas.spec import JobSpec
from tests.unit.hostile import any_bytes, assert_is_sentence, json_values, some_text, storable_text
from tests.unit.test_finishing import ENVIRONMENT, PROVENANCE
from worker.image_files.containers import Metadata, with_metadata
from worker.image_files.encoding import encoded
from worker.image_files.metadata import image_metadata, parameters_text

PIXELS = np.random.default_rng(1).integers(0, 256, (16, 24, 3), dtype=np.uint8)
OUTPUTS = [Output(format="png"), Output(format="webp"), Output(format="webp", quality=80), Output(format="jpeg")]
ENCODED = [encoded(PIXELS, output, 6) for output in OUTPUTS]
SPEC = JobSpec.parse({"prompt": "a cat", "seed": 7})
METADATA = image_metadata(SPEC, PROVENANCE, ENVIRONMENT, {"Category": "cats"})
FILES = [with_metadata(content, output, METADATA) for content, output in zip(ENCODED, OUTPUTS, strict=True)]
HEADERS = [b"\x89PNG\r\n\x1a\n", b"RIFF\xff\0\0\0WEBPVP8X", b"\xff\xd8\xff\xe1", b""]


def read_or_refused(content: bytes) -> ImageFile | None:
    try:
        file = parse_image_file(content, "x.png")
    except InputError as error:
        assert_is_sentence(error)
        return None
    assert file.format in ("png", "webp", "jpeg")
    json.dumps(file.record, allow_nan=False, ensure_ascii=False).encode()
    return file


@given(header=st.sampled_from(HEADERS), content=any_bytes | st.binary(max_size=400))
def test_any_bytes_are_an_image_or_refused(header: bytes, content: bytes) -> None:
    read_or_refused(header + content)


@given(
    content=st.sampled_from(FILES),
    edits=st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 3_000),
    put_in=st.just(b"") | st.binary(max_size=40),
    place=st.integers(0, 1_500),
)
def test_any_damage_is_read_or_refused(
    content: bytes, edits: list[tuple[int, int]], cut: int, put_in: bytes, place: int
) -> None:
    damaged = bytearray(content)
    for where, value in edits:
        damaged[where % len(damaged)] = value
    damaged[place:place] = put_in
    read_or_refused(bytes(damaged[: cut or None]))
    read_or_refused(bytes(damaged))


@given(record=json_values, text=st.text(max_size=50))
def test_any_record_of_a_png_is_read_or_refused(record: Any, text: str) -> None:
    for said in (json.dumps(record), json.dumps({"nightshift": 1, "spec": record}), text):
        info = PngImagePlugin.PngInfo()
        info.add_itxt("nightshift", said)
        stream = io.BytesIO()
        Image.fromarray(PIXELS).save(stream, "PNG", pnginfo=info)
        read_or_refused(stream.getvalue())


@given(
    place=st.sampled_from(range(len(OUTPUTS))),
    parameters=storable_text,
    meta=st.dictionaries(some_text, storable_text, max_size=3),
)
def test_any_text_and_meta_come_back_whole(place: int, parameters: str, meta: dict[str, str]) -> None:
    metadata = Metadata(parameters, {"nightshift": 1, "meta": meta, "spec": {"prompt": parameters}}, METADATA.xmp)
    file = read_or_refused(with_metadata(ENCODED[place], OUTPUTS[place], metadata))
    assert file is not None
    assert file.parameters == parameters
    assert file.nightshift_record() == metadata.record
    assert file.digital_source_type is not None


@given(prompt=some_text, negative=some_text, name=some_text)
def test_a1111s_text_has_any_prompt_as_it_is_and_the_settings_on_its_last_line(
    prompt: str, negative: str, name: str
) -> None:
    spec = JobSpec.parse({"prompt": prompt, "negative_prompt": negative, "seed": 7})
    environment = ENVIRONMENT.model_copy(update={"base": name, "refiner": name})
    text = parameters_text(spec, PROVENANCE, environment)
    assert text.startswith(f"{prompt}\nNegative prompt: {negative}\nSteps: 40, Sampler: Euler, ")
    settings = text.removeprefix(f"{prompt}\nNegative prompt: {negative}\n")
    assert "\n" not in settings
    assert settings.endswith(", Version: nightshift 0.1.0")


# What would take too much


def png_with_record(record: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("nightshift", record)
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ('{"nightshift": 1, "a": 1e400}', "is broken: it is no JSON in whole characters"),
        ('{"nightshift": 1, "a": ' + "[" * 40 + "]" * 40 + "}", f"has more than {MAX_RECORD_NESTING} levels"),
        ('{"nightshift": 1, "a": ' + "[" * 900 + "]" * 900 + "}", f"has more than {MAX_RECORD_NESTING} levels"),
        ('{"nightshift": 1, "a": ' + "[" * 10_000 + "]" * 10_000 + "}", "is broken"),
        (" " * (MAX_RECORD_CHARACTERS + 1), f"has more than {MAX_RECORD_CHARACTERS:,} characters"),
    ],
)
def test_a_record_that_could_not_be_shown_is_refused(record: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        parse_image_file(png_with_record(record), "x.png")


@pytest.mark.parametrize("header", HEADERS[:3])
def test_a_file_of_ten_gigabytes_is_refused_unread(tmp_path: Path, header: bytes) -> None:
    with open(tmp_path / "huge.png", "wb") as file:
        file.write(header)
        file.truncate(10_000_000_000)
    with pytest.raises(InputError, match=f"has more than {MAX_FILE_BYTES:,} bytes"):
        read_image_file(tmp_path / "huge.png")


def test_a_text_that_unpacks_to_far_more_is_refused() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("nightshift", "a" * 60_000_000, zip=True)
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "PNG", pnginfo=info)
    assert len(stream.getvalue()) < 100_000
    with pytest.raises(InputError, match="can be read"):
        parse_image_file(stream.getvalue(), "x.png")


def test_an_endless_xmp_is_searched_in_no_time() -> None:
    xmp = "DigitalSourceType=" + " " * 4_000_000
    began = time.process_time()
    file = read_or_refused(with_metadata(ENCODED[0], OUTPUTS[0], Metadata("", {"nightshift": 1}, xmp)))
    assert file is not None
    assert file.digital_source_type is None
    assert time.process_time() - began < 2
