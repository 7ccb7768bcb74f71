"""The sizes that SDXL was trained at, and the aspect ratios that stand for them."""

import math
from typing import Any

import pytest

from schemas.buckets import BUCKETS, USUAL_RATIOS, bucket_of, has_trained_pixel_count, names_of, nearest_bucket
from schemas.errors import SpecError
from schemas.spec import JobSpec


def spec(**fields: Any) -> JobSpec:
    return JobSpec.parse({"prompt": "a cat", "seed": 1, **fields})


def refusal(**fields: Any) -> str:
    with pytest.raises(SpecError) as error:
        spec(**fields)
    assert [problem.field for problem in error.value.problems] == ["aspect_ratio"]
    return str(error.value)


def test_the_buckets_are_those_that_sdxl_was_trained_at() -> None:
    assert len(set(BUCKETS)) == len(BUCKETS) == 41
    assert {size.portrait for size in BUCKETS} == set(BUCKETS)
    assert [size.ratio for size in BUCKETS] == sorted(size.ratio for size in BUCKETS)
    assert all(side % 64 == 0 for size in BUCKETS for side in size)
    assert {(1024, 1024), (1344, 768), (832, 1216), (2048, 512), (512, 1856)} <= set(BUCKETS)


@pytest.mark.parametrize(
    ("ratio", "width", "height"),
    [
        ("1:1", 1024, 1024),
        ("16:9", 1344, 768),
        ("9:16", 768, 1344),
        ("3:2", 1216, 832),
        (" 2 : 3 ", 832, 1216),
        ("2.39:1", 1536, 640),
        ("1920:1080", 1344, 768),
        ("4:1", 2048, 512),
        ("0.25:1", 512, 2048),
    ],
)
def test_an_aspect_ratio_is_the_width_and_height_of_the_nearest_bucket(ratio: str, width: int, height: int) -> None:
    by_ratio, by_sides = spec(aspect_ratio=ratio), spec(width=width, height=height)
    assert by_ratio == by_sides
    assert by_ratio.digest == by_sides.digest
    assert "aspect_ratio" not in by_ratio.canonical


def test_no_other_bucket_is_nearer_as_a_factor() -> None:
    for ratio in [n / 100 for n in range(20, 500)]:
        found = nearest_bucket(ratio, 1)
        distances = {size: abs(math.log(size.ratio / ratio)) for size in BUCKETS}
        assert distances[found] == pytest.approx(min(distances.values()))
        assert nearest_bucket(1, ratio) == found.portrait


@pytest.mark.parametrize("size", BUCKETS, ids=str)
def test_every_name_of_a_bucket_leads_back_to_it(size: Any) -> None:
    assert [bucket_of(name) for name in names_of(size)] == [size] * len(names_of(size))


def test_every_usual_ratio_is_a_name_of_one_bucket() -> None:
    assert sorted(name for size in BUCKETS for name in names_of(size) if name in USUAL_RATIOS) == sorted(USUAL_RATIOS)


@pytest.mark.parametrize(
    "given", ["16x9", "16/9", "16:", ":9", "0:1", "1:0", "0.0:3", "-16:9", "a:b", "1:2:3", "1e3:1", "²:1", "", 1.78, 16]
)
def test_an_aspect_ratio_that_is_none_is_refused_by_name(given: object) -> None:
    assert 'is not two positive numbers as in "16:9" or "2.39:1", width first' in refusal(aspect_ratio=given)


@pytest.mark.parametrize("given", [None, True, [16, 9], {"w": 16}])
def test_an_aspect_ratio_of_another_type_is_refused_by_name(given: object) -> None:
    assert "is not two positive numbers" in refusal(aspect_ratio=given)


@pytest.mark.parametrize("given", ["4.01:1", "1:5", "999999:1", "0.000001:999999"])
def test_an_aspect_ratio_beyond_the_widest_bucket_is_refused(given: str) -> None:
    assert f"aspect_ratio: {given!r}: is beyond 4:1, the widest" in refusal(aspect_ratio=given)


@pytest.mark.parametrize(
    ("sides", "named"), [({"width": 512}, "width"), ({"width": 1024, "height": 1024}, "width and height")]
)
def test_an_aspect_ratio_beside_a_side_is_refused(sides: dict[str, int], named: str) -> None:
    assert f"stands beside {named}; give either the ratio, or width and height" in refusal(aspect_ratio="1:1", **sides)


def test_every_bucket_has_the_trained_number_of_pixels_and_what_is_far_from_them_has_not() -> None:
    assert all(has_trained_pixel_count(*size) for size in BUCKETS)
    assert all(has_trained_pixel_count(*size) for size in [(1032, 1024), (1000, 1000), (1088, 1024)])
    assert not any(has_trained_pixel_count(*size) for size in [(512, 512), (640, 480), (1280, 1024), (2048, 2048)])
