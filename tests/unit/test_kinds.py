"""What rows share is judged once, and a row is told the same as if it were judged alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.expanding.seeds import seed_digest, seed_of
from producer.manifests import kinds
from producer.manifests.columns import FIELDS, spec_fields
from producer.manifests.jsonl import _flat_object, _LineError, _parsed
from producer.manifests.kinds import CheckedRow, Kinds
from producer.manifests.manifest import ReadOptions, Row, read_manifest
from schemas.digest import canonical_json, sha256_hex
from schemas.errors import FieldProblem, SpecError
from schemas.fields import MAX_PROMPT_CHARACTERS, accepted_seed, is_prompt
from schemas.spec import JobSpec
from schemas.written_spec import SpecKind, WrittenSpec
from tests.unit.hostile import any_text, json_values, numbers, numbers_as_text, rows, storable_text

SHARED = st.fixed_dictionaries(
    {},
    optional={
        "negative_prompt": storable_text,
        "prompt_2": storable_text,
        "width": st.sampled_from([64, "64", 1024, 7, True, 64.0]),
        "num_inference_steps": st.sampled_from([40, "12", 1, 1.0, True]),
        "guidance_scale": st.sampled_from([1, 1.0, True, "1", 0.0, -0.0, 7.5]),
        "scheduler": st.sampled_from(["euler", "DPM++ 2M Karras", "fast"]),
        "scheduler_options.use_karras_sigmas": st.sampled_from([True, "true", 1]),
        "refiner.mode": st.sampled_from(["off", "img2img", "ensemble"]),
        "refiner.start": st.sampled_from([0.8, "0.9", 1, None]),
        "output.format": st.sampled_from(["png", "webp", "jpeg"]),
        "target_size": st.sampled_from(["512,512", [512, 512], [512.0, 512], [True, 1], (512, 512)]),
        "loras": st.just([{"name": "a", "sha256": "cd" * 32, "weight": 0.5}]),
    },
)
PROMPTS = any_text | json_values | st.sampled_from(["a cat", "x" * MAX_PROMPT_CHARACTERS, "x" * 20_001, True, 1])
SEEDS = numbers | numbers_as_text | json_values | st.sampled_from([" 7 ", "007", 2**64 - 1, 2**64, True, 7.0])


def parsed(values: Mapping[str, object]) -> JobSpec | list[FieldProblem]:
    try:
        return JobSpec.parse(spec_fields({"seed": 0, **values}))
    except SpecError as error:
        return list(error.problems)


def assert_is(row: CheckedRow, spec: JobSpec) -> None:
    written = row.kind.written(row.prompt, spec.seed)
    assert (written.canonical, written.digest) == (spec.canonical, spec.digest)
    assert (written.kind.pack_key, written.spec) == (spec.pack_key, spec)
    assert row.kind.without_seed(row.prompt) == canonical_json(spec.content_without_seed)
    picture = {name: value for name, value in spec.content_without_seed.items() if name != "output"}
    assert row.kind.picture(row.prompt) == canonical_json(picture)


@given(shared=SHARED | rows(), prompt=PROMPTS, seed=SEEDS)
def test_a_row_of_a_known_kind_is_judged_as_if_it_came_alone(
    shared: dict[str, Any], prompt: object, seed: object
) -> None:
    known = {name: value for name, value in shared.items() if name in FIELDS and value is not None}
    seen, alone = Kinds(None), parsed({**known, "prompt": prompt, "seed": seed})
    first = seen.checked({**known, "prompt": "a dog", "seed": 1})
    for row in (seen.checked({**known, "prompt": prompt, "seed": seed}),) * 2:
        if isinstance(alone, JobSpec):
            assert isinstance(row, CheckedRow)
            assert isinstance(first, CheckedRow)
            assert (row.kind, row.prompt, row.seed) == (first.kind, alone.prompt, alone.seed)
            assert_is(row, alone)
        else:
            assert repr(row) == repr(alone)  # NaN is not equal to itself


@given(kinds=st.lists(st.tuples(SHARED, st.booleans()), max_size=6))
def test_kinds_that_were_seen_before_make_no_difference(kinds: list[tuple[dict[str, Any], bool]]) -> None:
    seen = Kinds(None)
    for shared, has_seed in kinds * 2:
        values = {**shared, "prompt": 'a "cat" \u96ea', **({"seed": "7"} if has_seed else {})}
        values = {name: value for name, value in values.items() if value is not None}
        row, alone = seen.checked(values), parsed(values)
        if isinstance(row, CheckedRow):
            assert isinstance(alone, JobSpec)
            assert row.seed == (7 if has_seed else None)
            assert_is(row, alone)
        else:
            assert repr(row) == repr(alone)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ({"num_inference_steps": 2}, {"num_inference_steps": 2.0}),
        ({"guidance_scale": 1}, {"guidance_scale": True}),
        ({"target_size": [512, 1]}, {"target_size": [512, True]}),
        ({"target_size": (512, 1)}, {"target_size": (512.0, 1)}),
    ],
)
def test_numbers_that_python_calls_equal_are_different_kinds(good: dict[str, Any], bad: dict[str, Any]) -> None:
    seen = Kinds(None)
    assert isinstance(seen.checked({"prompt": "a", "seed": 1, **good}), CheckedRow)
    assert isinstance(seen.checked({"prompt": "a", "seed": 1, **bad}), list)


def test_one_kind_is_made_for_rows_that_differ_in_prompt_and_seed() -> None:
    seen = Kinds(None)
    made = [seen.checked({"prompt": f"cat {n}", "seed": n, "width": "64"}) for n in range(5)]
    assert len({id(row.kind) for row in made if isinstance(row, CheckedRow)}) == 1


def test_what_is_remembered_of_kinds_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_REMEMBERED_CHARACTERS", 5_000)
    seen = Kinds(None)
    for n in range(50):
        checked = seen.checked({"prompt": "a", "seed": 1, "negative_prompt": f"{n}" * 500})
        assert isinstance(checked, CheckedRow)
    assert 0 < len(seen._known) <= 10


@given(prompt=PROMPTS, seed=SEEDS)
def test_prompt_and_seed_have_one_rule(prompt: object, seed: object) -> None:
    assert is_prompt(prompt) == isinstance(parsed({"prompt": prompt}), JobSpec)
    spec = parsed({"prompt": "a", "seed": seed})
    assert accepted_seed(seed) == (spec.seed if isinstance(spec, JobSpec) else None)


def test_a_seed_is_derived_from_the_same_text_as_ever() -> None:
    spec = JobSpec.parse({"prompt": 'a "cat" \u96ea', "width": 64, "seed": 1, "output": {"format": "webp"}})
    content = {"prompt": spec.prompt, "width": 64}
    text = canonical_json({"base_seed": "7", "repeat": 2, "spec": content})
    picture = WrittenSpec.of(spec).kind.picture(spec.prompt)
    assert seed_of(seed_digest(7, picture, 2)) == int(sha256_hex(text)[:16], 16)


def test_a_row_gives_the_spec_that_its_line_says(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    lines = [{"prompt": f"cat {n}", "width": 64 * (1 + n % 3), "seed": n} for n in range(9)]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for row, line in zip(read_manifest(path, ReadOptions()), lines, strict=True):
        assert isinstance(row, Row)
        assert row.spec == JobSpec.parse(line)
        assert row.written == WrittenSpec.of(row.spec)


def test_specs_of_one_kind_are_equal_where_prompt_and_seed_are() -> None:
    spec = JobSpec.parse({"prompt": "a", "seed": 1, "width": 64})
    other = SpecKind(JobSpec.parse({"prompt": "b", "seed": 2, "width": 64}))
    assert other.written("a", 1) == WrittenSpec.of(spec)
    assert SpecKind(JobSpec.parse({"prompt": "b", "seed": 2})).written("a", 1) != WrittenSpec.of(spec)


# JSON


JSON_PARTS = st.sampled_from(
    ['{', '}', '"a"', '"b"', '"a" ', ':', ' :', ',', '1', '1.5', 'NaN', '1e400', 'null', 'true', '[', ']', '"\\""',
     '"\\\\"', '"\\u0022"', '"\\":"', '"x\\":1,\\"y"', '"\\ud800"', ' ', '\n', '\x0b', '"\t"', '\\', '"']
)  # fmt: skip


@given(
    text=st.lists(JSON_PARTS, max_size=14).map("".join)
    | st.lists(st.tuples(st.sampled_from(['"a"', '"b"', '"a" ']), JSON_PARTS), max_size=4).map(
        lambda pairs: "{" + ",".join(f"{key}:{value}" for key, value in pairs) + "}"
    )
    | rows().map(json.dumps)
)
def test_the_quick_reader_of_json_reads_as_the_careful_one_or_leaves_it_to_it(text: str) -> None:
    quick = _flat_object(text)
    if quick is not None:
        assert repr(quick) == repr(_parsed(text))


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"a" :1,"a":2}',
        '{"a": "b", "a": 2}',
        '{"a":"\\"", "a":""}',
        r'{"a":"\\","a":"\\","b":"\\","c":"\\"}',  # as many quotes fewer as the second key has more
    ],
)
def test_a_key_that_stands_twice_is_never_read_quickly(text: str) -> None:
    assert _flat_object(text) is None
    with pytest.raises(_LineError, match="stands twice"):
        _parsed(text)


def test_a_plain_line_is_read_quickly() -> None:
    for text in ('{"prompt": "a \\"cat\\"", "seed": 18446744073709551615}\n', '{"a": "\\u96ea", "b": 0.5, "c": null}'):
        assert _flat_object(text) == json.loads(text)
