"""Rows that a program gives: the same as JSONL's, and refused with the same care."""

import json
from pathlib import Path
from typing import Any

import pytest

from producer.manifests.manifest import BadRow, ReadOptions, Row, read_manifest, read_rows
from schemas.errors import ManifestError
from schemas.spec import JobSpec

ROWS: list[dict[str, Any]] = [
    {"prompt": "a cat", "seed": 2**64 - 1, "width": 512, "height": 768, "refiner": {"start": 0.9}},
    {"Prompt": "a cat", "Category": "cats", "refiner.mode": "off", "count": 3, "tags": ["a", "b"]},
    {"prompt": "a cat", "scheduler": "DPM++ 2M Karras", "output": {"format": "jpeg"}, "negative_prompt": None},
    {"prompt": "a dog"},
    {"prompt": "a dog"},
]
SPECS = [
    {"prompt": "a cat", "seed": 1},
    {"prompt": "a cat", "seed": 2**64 - 1, "negative_prompt": "", "output": {"format": "jpeg", "quality": 80}},
    {"prompt": "a cat", "seed": 7, "scheduler": "DPM++ 2M Karras", "refiner": {"mode": "img2img", "strength": 0.2}},
    {"prompt": "a cat", "seed": 7, "original_size": [512, 512], "refiner": {"start_step": 3}, "clip_skip": 1},
]


def read(*items: object, **options: Any) -> list[Row | BadRow]:
    return list(read_rows(items, ReadOptions(**options)))


def test_rows_of_a_program_are_those_of_a_jsonl_file(tmp_path: Path) -> None:
    manifest = tmp_path / "rows.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    options = ReadOptions(defaults={"num_inference_steps": "12"}, columns={"count": "clip_skip"})
    assert list(read_rows(ROWS, options)) == list(read_manifest(manifest, options))


@pytest.mark.parametrize("fields", SPECS)
def test_a_spec_is_rendered_as_it_is(fields: dict[str, Any]) -> None:
    spec = JobSpec.parse(fields)
    first, again = read(spec, spec)
    assert isinstance(first, Row)
    assert isinstance(again, Row)
    assert (first.spec, first.repeat, first.meta) == (spec, 0, {})
    assert (again.spec, again.repeat) == (spec, 1)


def test_a_spec_is_complete_and_no_default_changes_it() -> None:
    (row,) = read(JobSpec.parse(SPECS[0]), defaults={"width": "512"})
    assert str(row).startswith("rows:1: the row is a JobSpec, which is complete")


class Stranger:
    def __repr__(self) -> str:
        return "a stranger"


def nested(levels: int) -> object:
    found: object = 1
    for _ in range(levels):
        found = [found]
    return found


def loop() -> dict[str, Any]:
    found: dict[str, Any] = {"prompt": "a cat"}
    found["itself"] = found
    return found


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        ({"prompt": "a cat", "Width": 1001}, 'column "Width": "1001": is not divisible by 8'),
        ({"prompt": "a cat", "refiner": {"begin": 1}}, 'column "refiner.begin" is no field of the refiner'),
        ({}, 'column "prompt": is missing'),
        ({"prompt": Stranger()}, 'the row has in "prompt" a stranger: JSON has no type for it'),
        ({"prompt": "a cat", "tags": [Stranger()]}, 'the row has in "tags" [a stranger]: JSON has no type for it'),
        ({"prompt": "a cat", "seed": 10**5_000}, 'the row has in "seed" a number of too many digits'),
        (loop(), 'the row has in "itself" a number of too many digits, or something that holds itself'),
        ({1: 2}, "the row has the key 1; keys are text"),
        (["a cat"], "the row should be a mapping or a JobSpec, not ['a cat']"),
        (None, "the row should be a mapping or a JobSpec, not None"),
        ({"prompt": "a cat", "deep": nested(40)}, "the row is nested too deep; 32 levels are the most"),
        ({"prompt": "a cat", "deep": nested(100_000)}, "the row is nested too deep"),
        ({"prompt": "x" * 1_000_001}, "the row is longer than 1 MB as JSON"),
        ({"prompt": "\0"}, 'column "prompt": "\\x00": contains a NUL character'),
        ({"prompt": "a cat", "score": float("nan")}, 'column "score": "NaN": is not a finite number'),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_row_is_named_by_its_number_and_reason(item: object, sentence: str) -> None:
    good, bad, after = read({"prompt": "a cat"}, item, {"prompt": "a dog"})
    assert str(bad).startswith(f"rows:2: {sentence}")
    assert isinstance(good, Row)
    assert isinstance(after, Row)


def test_no_rows_are_refused() -> None:
    with pytest.raises(ManifestError, match="rows has no rows"):
        read()
    with pytest.raises(ManifestError, match="no row of rows has it"):
        read({"prompt": "a cat"}, columns={"caption": "prompt"})
