"""The file that an image becomes: format and quality."""

from typing import Any

import pytest

from schemas.errors import SpecError
from schemas.output import Output
from schemas.spec import JobSpec


def spec(**output: Any) -> JobSpec:
    return JobSpec.parse({"prompt": "a cat", "seed": 1, "output": output})


def test_without_a_word_it_is_a_png() -> None:
    assert spec() == JobSpec.parse({"prompt": "a cat", "seed": 1})
    assert spec().output == Output(format="png", quality=None)
    assert "output" not in spec().canonical


def test_a_jpeg_without_a_quality_is_one_of_95() -> None:
    assert spec(format="jpeg").canonical == spec(format="jpeg", quality="95").canonical
    assert spec(format="jpeg").output.quality == 95
    assert spec(format="jpeg").digest != spec(format="jpeg", quality=94).digest


@pytest.mark.parametrize(
    ("fields", "lossless", "suffix"),
    [
        ({"format": "png"}, True, "png"),
        ({"format": "webp"}, True, "webp"),
        ({"format": "webp", "quality": "100"}, False, "webp"),
        ({"format": "jpeg"}, False, "jpg"),
    ],
)
def test_a_format_is_lossless_or_not_and_has_a_suffix(fields: dict[str, Any], lossless: bool, suffix: str) -> None:
    output = spec(**fields).output
    assert (output.lossless, output.suffix) == (lossless, suffix)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"quality": "90"}, "output.quality: 90: is nothing that png has: it is lossless; webp and jpeg have one"),
        ({"format": "jpg"}, "output.format: 'jpg': should be 'png', 'webp' or 'jpeg'"),
        ({"format": "webp", "quality": 0}, "output.quality: 0: should be greater than or equal to 1"),
        ({"format": "webp", "quality": 101}, "output.quality: 101: should be less than or equal to 100"),
        ({"format": "jpeg", "quality": "high"}, "output.quality: 'high': is not a whole number"),
        ({"format": "avif", "quality": 50}, "output.format: 'avif': should be 'png', 'webp' or 'jpeg'"),
        ({"lossless": True}, "output.lossless: is not a field of a spec"),
    ],
)
def test_what_no_encoder_would_do_is_refused_by_name(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError) as error:
        spec(**fields)
    assert str(error.value) == sentence


@pytest.mark.parametrize("fields", [{}, {"format": "webp"}, {"format": "webp", "quality": 1}, {"format": "jpeg"}])
def test_it_survives_the_round_trip(fields: dict[str, Any]) -> None:
    assert JobSpec.from_json(spec(**fields).canonical) == spec(**fields)


def test_jobs_of_different_formats_share_a_pack() -> None:
    assert spec(format="webp", quality=80).pack_key == spec().pack_key
