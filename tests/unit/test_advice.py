"""Advice at submit: what is unusual about a row is said once for each kind, and changes nothing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from producer.manifests import foreign_names
from producer.manifests.columns import COUNT, FIELDS
from producer.manifests.counted_advice import CountedAdvice
from producer.manifests.manifest import BadRow, ReadOptions, Row, read_manifest
from schemas.advice import advice
from schemas.buckets import BUCKETS
from schemas.pair import BUILT_IN_PAIRS
from schemas.spec import JobSpec
from schemas.written_spec import WrittenSpec

SIZES = "(`nightshift sizes` lists all)"


def spec(**fields: Any) -> JobSpec:
    return JobSpec.parse({"prompt": "a cat", "seed": 1, **fields})


def codes(**fields: Any) -> list[str]:
    return [found.code for found in advice(spec(**fields))]


def sentence(**fields: Any) -> str:
    [found] = advice(spec(**fields))
    return found.sentence


@pytest.mark.parametrize("size", BUCKETS, ids=str)
def test_the_defaults_at_a_trained_size_need_no_advice(size: Any) -> None:
    assert advice(spec(width=size.width, height=size.height)) == ()


@pytest.mark.parametrize(
    ("width", "height", "said"),
    [
        (640, 480, "640×480 is 0.31 megapixels; SDXL was trained at about 1.05, which is 1152×896 for the"),
        (768, 1360, None),
        (2048, 2048, "is 4.19 megapixels; SDXL was trained at about 1.05, which is 1024×1024"),
        (480, 3840, "which is 512×2048 for the nearest ratio"),
    ],
)  # fmt: skip
def test_a_size_far_from_the_trained_ones_is_named_with_the_nearest_of_them(
    width: int, height: int, said: str | None
) -> None:
    if said is None:
        assert codes(width=width, height=height) == []
    else:
        assert said in sentence(width=width, height=height)
        assert sentence(width=width, height=height).endswith(SIZES)


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        ({"num_inference_steps": 20, "refiner": {"start": 0.9}}, "2 of 20"),
        ({"num_inference_steps": 40, "refiner": {"start_step": 39}}, "1 of 40"),
        ({"num_inference_steps": 30, "refiner": {"start_percent": 94}}, "2 of 30"),
        ({"num_inference_steps": 20, "scheduler": "euler beta", "refiner": {"start": 0.85}}, "2 of 20"),
        ({"num_inference_steps": 40, "scheduler": "dpm++ 2m karras", "refiner": {"start": 0.998}}, "2 of 40"),
    ],
)
def test_a_refiner_of_fewer_than_three_steps_is_named(fields: dict[str, Any], steps: str) -> None:
    assert sentence(**fields) == (
        f"the refiner gets {steps} steps, which hardly shows; usual are the last 10 to 15 % of 30 to 40 steps"
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"num_inference_steps": 20, "refiner": {"start": 0.85}},
        {"num_inference_steps": 40, "refiner": {"start_step": 37}},
        {"num_inference_steps": 20, "scheduler": "euler karras", "refiner": {"start": 0.9}},
        {"num_inference_steps": 20, "refiner": {"start": 0.9, "handoff": "diffusers"}},
        {"num_inference_steps": 3, "refiner": {"mode": "off"}},
        {"num_inference_steps": 5, "refiner": {"mode": "img2img"}},
        {"num_inference_steps": 5, "refiner": {"mode": "only"}, "init_image": "0" * 64},
    ],
)
def test_what_is_usual_or_cannot_be_told_is_not_mentioned(fields: dict[str, Any]) -> None:
    assert codes(**fields) == []


@pytest.mark.parametrize(
    ("fields", "side", "remedy"),
    [
        ({"num_inference_steps": 20, "scheduler": "unipc", "refiner": {"start": 0.96}}, "refiner", "earlier"),
        ({"num_inference_steps": 1}, "base", "later"),
        ({"refiner": {"start": 0.75}, "init_image": "0" * 64, "strength": 0.2}, "base", "later"),
    ],
)
def test_a_handoff_that_cannot_be_rendered_is_foretold(fields: dict[str, Any], side: str, remedy: str) -> None:
    assert sentence(**fields) == (
        f"the handoff leaves the {side} no step, so such a job fails when it is rendered;"
        f" hand off {remedy}, or set refiner.mode to off"
    )


@pytest.mark.parametrize(
    ("refiner", "said"),
    [
        ({"start": 0.5}, "at 0.5 of the noise schedule"),
        ({"start_percent": 69.5}, "after 69.5 % of the steps"),
        ({"start_step": 27}, "after 27 of 40 steps"),
    ],
)
def test_an_early_handoff_is_named_as_it_was_given(refiner: dict[str, Any], said: str) -> None:
    said = f"the refiner starts {said}; it refines and cannot compose, so 0.8 (80 %) or later is usual"
    assert sentence(refiner=refiner) == said
    assert sentence(refiner=refiner, scheduler="euler karras") == said


@pytest.mark.parametrize("refiner", [{"start": 0.7}, {"start_percent": 70}, {"start_step": 28}])
def test_a_handoff_at_seven_tenths_is_not_early(refiner: dict[str, Any]) -> None:
    assert codes(refiner=refiner) == codes(refiner=refiner, scheduler="euler karras") == []


def test_a_row_may_need_several_kinds_of_advice() -> None:
    found = codes(width=512, height=512, num_inference_steps=4, refiner={"start": 0.6})
    assert found == ["pixel_count", "few_refiner_steps", "early_handoff"]


def rows(num: int) -> Iterator[Row | BadRow]:
    yield BadRow("prompts.tsv", 2, "Width", "7", "is too small")
    for n in range(num):
        yield Row(n + 3, WrittenSpec.of(spec(width=64 * (n % 64 + 1), prompt=f"cat {n}")), 0, {})


def test_each_kind_is_counted_and_the_rows_pass_unchanged() -> None:
    counted = CountedAdvice(BUILT_IN_PAIRS["sdxl"])
    assert list(counted.passed(rows(200))) == list(rows(200))
    [warned] = counted.warnings
    assert (warned.code, warned.num_rows, warned.first_line) == ("pixel_count", 200 - 9, 3)
    assert str(warned).startswith("warning: 191 rows (first: line 3): 64×1024 is 0.07 megapixels;")


def test_a_single_row_is_named_by_its_line() -> None:
    counted = CountedAdvice(BUILT_IN_PAIRS["sdxl"])
    list(counted.passed(rows(1)))
    assert str(counted.warnings[0]).startswith("warning: line 3: 64×1024 is")


@pytest.mark.parametrize("pair", ["tiny", "full"])
def test_a_pair_that_was_trained_for_nothing_has_no_advice(pair: str) -> None:
    counted = CountedAdvice(BUILT_IN_PAIRS[pair])
    assert len(list(counted.passed(rows(20)))) == 21
    assert counted.warnings == []


def test_advice_begins_with_the_first_row_of_a_manifest(tmp_path: Path) -> None:
    manifest = tmp_path / "prompts.tsv"
    manifest.write_text("Prompt\tAspect ratio\tWidth\tHeight\na\t16:9\t\t\nb\t\t512\t512\nc\t\t512\t640\n")
    counted = CountedAdvice(BUILT_IN_PAIRS["sdxl"])
    list(counted.passed(read_manifest(manifest, ReadOptions())))
    assert [(warned.num_rows, warned.first_line) for warned in counted.warnings] == [(2, 3)]


def unread(tmp_path: Path, name: str, content: str, **options: Any) -> list[tuple[int, int, str]]:
    manifest = tmp_path / name
    manifest.write_text(content)
    counted = CountedAdvice(BUILT_IN_PAIRS["tiny"])
    list(counted.passed(read_manifest(manifest, ReadOptions(**options))))
    assert {warned.code for warned in counted.warnings} <= {"unread_column"}
    return [(warned.num_rows, warned.first_line, warned.sentence) for warned in counted.warnings]


def test_a_column_that_is_a_field_elsewhere_is_named_with_the_field_and_stays_meta(tmp_path: Path) -> None:
    content = "prompt\tCFG scale\tsteps\tNote\na\t7\t20\tx\nb\t\t30\ty\n"
    assert unread(tmp_path, "prompts.tsv", content) == [
        (1, 2, 'column "CFG scale" is meta, and decides no pixel; if it is guidance_scale,'
               ' say --map "CFG scale=guidance_scale"'),
        (2, 2, 'column "steps" is meta, and decides no pixel; if it is num_inference_steps,'
               ' say --map "steps=num_inference_steps"'),
    ]  # fmt: skip
    rows_read = [row for row in read_manifest(tmp_path / "prompts.tsv", ReadOptions()) if isinstance(row, Row)]
    assert [row.meta["steps"] for row in rows_read] == ["20", "30"]
    assert [row.spec.num_inference_steps for row in rows_read] == [40, 40]


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ('{"prompt": "a", "steps": 20, "num_inference_steps": 30}\n', {}),
        ('{"prompt": "a", "steps": 20}\n', {"columns": {"steps": "num_inference_steps"}}),
        ('{"prompt": "a", "steps": null, "stepsister": "x", "Category": "y"}\n', {}),
    ],
)
def test_a_column_is_not_named_where_its_field_is_given_or_it_has_no_value(
    tmp_path: Path, content: str, options: dict[str, Any]
) -> None:
    assert unread(tmp_path, "prompts.jsonl", content, **options) == []


@pytest.mark.parametrize(
    ("column", "field"),
    [
        ("guidanceScale", "guidance_scale"),
        ("refiner_start", "refiner.start"),
        ("sampler_name", "scheduler"),
        ("numberResults", "count"),
        ("use_karras_sigmas", "scheduler_options.use_karras_sigmas"),
    ],
)
def test_a_field_is_known_by_what_other_programs_call_it(tmp_path: Path, column: str, field: str) -> None:
    [(_, _, sentence)] = unread(tmp_path, "prompts.jsonl", json.dumps({"prompt": "a", column: "1"}))
    assert f"if it is {field}, say" in sentence


def test_as_many_warnings_are_kept_as_there_are_fields_however_columns_are_called(tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": "a", f"{'_' * n}steps": n}) for n in range(1, 40)]
    [(num_rows, first_line, _)] = unread(tmp_path, "prompts.jsonl", "\n".join(lines))
    assert (num_rows, first_line) == (39, 1)


def test_every_field_that_is_named_for_a_column_is_one() -> None:
    assert set(foreign_names._ELSEWHERE.values()) <= {*FIELDS, COUNT}
    assert all(foreign_names.squashed(name) == name for name in foreign_names._ELSEWHERE)
