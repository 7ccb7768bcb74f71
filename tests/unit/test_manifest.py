"""Manifests: what is read, what is refused, and with which words."""

import json
import random
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from producer.expanding.repeats import Repeats
from producer.manifests.lines import MAX_LINE_BYTES
from producer.manifests.manifest import BadRow, ReadOptions, Row, read_manifest
from schemas.digest import sha256_hex
from schemas.errors import ManifestError


def read(path: Path, content: str | bytes, **options: object) -> list[Row | BadRow]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_manifest(path, ReadOptions(**options)))


def rows_of(path: Path, content: str | bytes, **options: object) -> list[Row]:
    found = read(path, content, **options)
    assert not [str(row) for row in found if isinstance(row, BadRow)]
    return [row for row in found if isinstance(row, Row)]


def one_bad(path: Path, content: str | bytes, **options: object) -> BadRow:
    [bad] = [row for row in read(path, content, **options) if isinstance(row, BadRow)]
    return bad


def refusal(path: Path, content: str | bytes, **options: object) -> str:
    with pytest.raises(ManifestError) as error:
        read(path, content, **options)
    return str(error.value)


@pytest.fixture
def tsv(tmp_path: Path) -> Path:
    return tmp_path / "prompts.tsv"


@pytest.fixture
def csv_file(tmp_path: Path) -> Path:
    return tmp_path / "prompts.csv"


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    return tmp_path / "prompts.jsonl"


@pytest.fixture
def txt(tmp_path: Path) -> Path:
    return tmp_path / "prompts.txt"


# What is read


def test_columns_are_fields_without_regard_to_case_spaces_and_dashes(tsv: Path) -> None:
    header = "PROMPT\tNegative Prompt\tnum-inference-steps\tRefiner.Start\tCategory\n"
    [row] = rows_of(tsv, header + "a cat\tblurry\t12\t0.9\tAnimals\n")
    assert (row.spec.prompt, row.spec.negative_prompt, row.spec.num_inference_steps) == ("a cat", "blurry", 12)
    assert row.spec.refiner.start == 0.9
    assert row.meta == {"Category": "Animals"}


def test_an_empty_cell_is_absent(tsv: Path) -> None:
    [row] = rows_of(tsv, "Prompt\tNegative prompt\tWidth\tNote\na cat\t\t \t\n")
    assert (row.spec.negative_prompt, row.spec.width, row.meta) == (None, 1024, {})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "Prompt\tAspect ratio\na\t16:9\n"),
        ("a.csv", "Prompt,aspect-ratio\na,16:9\n"),
        ("a.jsonl", '{"prompt": "a", "aspect_ratio": "16:9"}\n'),
    ],
)
def test_an_aspect_ratio_is_the_row_with_that_width_and_height(tmp_path: Path, name: str, content: str) -> None:
    [by_sides] = rows_of(tmp_path / "sides.tsv", "Prompt\tWidth\tHeight\na\t1344\t768\n")
    [row] = rows_of(tmp_path / name, content)
    assert (row.spec, row.meta) == (by_sides.spec, {})  # the derived seed too


def test_an_aspect_ratio_may_be_mapped_and_set(tsv: Path, txt: Path) -> None:
    [mapped] = rows_of(tsv, "Prompt\tShape\na\t2:3\n", columns={"Shape": "aspect_ratio"})
    [given] = rows_of(txt, "a\n", defaults={"Aspect ratio": "2:3"})
    assert mapped.spec == given.spec
    assert (given.spec.width, given.spec.height) == (832, 1216)


@pytest.mark.parametrize(
    ("row", "defaults", "size"),
    [
        ("16:9\t\t", {"width": "512", "height": "640"}, (1344, 768)),
        ("16:9\t\t", {"aspect_ratio": "1:1"}, (1344, 768)),
        ("\t512\t640", {"aspect_ratio": "1:1"}, (512, 640)),
        ("\t\t640", {"width": "512"}, (512, 640)),
        ("\t\t", {"aspect_ratio": "9:16"}, (768, 1344)),
    ],
)
def test_a_rows_own_size_wins_over_the_default_however_it_is_given(
    tsv: Path, row: str, defaults: dict[str, str], size: tuple[int, int]
) -> None:
    [found] = rows_of(tsv, f"Prompt\tAspect ratio\tWidth\tHeight\na\t{row}\n", defaults=defaults)
    assert (found.spec.width, found.spec.height) == size


def test_half_a_size_beside_a_default_ratio_is_refused(tsv: Path) -> None:
    bad = one_bad(tsv, "Prompt\tWidth\na\t512\n", defaults={"aspect_ratio": "1:1"})
    assert (bad.column, bad.value) == (None, None)
    assert bad.reason == "--set aspect_ratio=1:1: stands beside width; give either the ratio, or width and height"


def test_a_wrong_aspect_ratio_is_named_by_its_column(tsv: Path) -> None:
    bad = one_bad(tsv, "Prompt\tAspect Ratio\tWidth\na\t16x9\t\nb\t1:1\t\n")
    assert (bad.line, bad.column, bad.value) == (2, "Aspect Ratio", "16x9")
    bad = one_bad(tsv, "Prompt\tAspect Ratio\tWidth\na\t16:9\t512\n")
    assert (bad.column, bad.value) == ("Aspect Ratio", "16:9")


@pytest.mark.parametrize("defaults", [{"aspect_ratio": "5:1"}, {"aspect_ratio": "1:1", "height": "512"}])
def test_a_wrong_default_ratio_is_refused_once(txt: Path, defaults: dict[str, str]) -> None:
    assert refusal(txt, "a\nb\n", defaults=defaults).startswith("--set aspect_ratio=")


def test_quotes_are_text_in_tsv(tsv: Path) -> None:
    [row] = rows_of(tsv, 'Prompt\n"PEACE" on a wall, "\n')
    assert row.spec.prompt == '"PEACE" on a wall, "'


def test_csv_cells_may_hold_commas_quotes_and_lines(csv_file: Path) -> None:
    first, second = rows_of(csv_file, 'Prompt,Width\n"one, ""two""\nthree",256\nfour,320\n')
    assert (first.spec.prompt, first.spec.width, first.line) == ('one, "two"\nthree', 256, 2)
    assert (second.spec.prompt, second.line) == ("four", 4)


def test_json_values_keep_their_type_and_text_is_read_as_in_a_table(jsonl: Path) -> None:
    [row] = rows_of(jsonl, '{"prompt": "a", "width": "256", "height": 320, "negative_prompt": "", "seed": "5"}\n')
    assert (row.spec.width, row.spec.height, row.spec.negative_prompt, row.spec.seed) == (256, 320, "", 5)


def test_the_refiner_may_be_nested_or_dotted_in_json(jsonl: Path) -> None:
    nested = json.dumps({"prompt": "a", "refiner": {"Start": 0.9, "mode": None}})
    dotted = json.dumps({"prompt": "a", "refiner.start": "0.9"})
    first, second = rows_of(jsonl, f"{nested}\n{dotted}\n")
    assert first.spec.refiner == second.spec.refiner
    assert first.spec.refiner.start == 0.9


def test_json_meta_becomes_text(jsonl: Path) -> None:
    [row] = rows_of(jsonl, '{"prompt": "a", "Id": 7, "Tags": ["ü", true], "Note": "x", "None": null}\n')
    assert row.meta == {"Id": "7", "Tags": '["ü", true]', "Note": "x"}


def test_a_text_file_has_a_prompt_a_line_and_blank_lines_are_skipped(txt: Path) -> None:
    rows = rows_of(txt, "a cat\n\n   \n a\tdog, running \n")
    assert [(row.line, row.spec.prompt) for row in rows] == [(1, "a cat"), (4, " a\tdog, running ")]


@pytest.mark.parametrize("name", ["prompts.tsv", "prompts.csv", "prompts.txt", "prompts.jsonl", "PROMPTS.TSV"])
def test_mixed_line_ends_a_byte_order_mark_and_blank_lines_are_read(tmp_path: Path, name: str) -> None:
    line = '{"prompt": "%s"}' if name.endswith("jsonl") else "%s"
    header = [] if name.endswith(("txt", "jsonl")) else ["Prompt"]
    lines = [*header, line % "eins", "", line % "zwei", line % "drei ü"]
    content = "\r\n".join(lines[:-1]) + "\n" + lines[-1]
    rows = rows_of(tmp_path / name, content.encode("utf-8-sig"))
    assert [row.spec.prompt for row in rows] == ["eins", "zwei", "drei ü"]
    assert rows[-1].line == len(lines)


def test_the_limit_counts_rows_of_the_file_good_or_bad(tsv: Path) -> None:
    rows = read(tsv, "Prompt\tWidth\na\t256\nb\t7\nc\t256\n", limit=2)
    assert [type(row) for row in rows] == [Row, BadRow]


# --map and --set


def test_map_names_the_field_of_a_column(tsv: Path) -> None:
    [row] = rows_of(tsv, "Caption text\tid\na cat\t7\n", columns={"caption_text": "Prompt"})
    assert (row.spec.prompt, row.meta) == ("a cat", {"id": "7"})


def test_a_rows_own_value_wins_over_set(tsv: Path) -> None:
    defaults = {"width": "512", "refiner.start": "0.9", "Refiner.Handoff": "diffusers"}
    own, empty = rows_of(tsv, "Prompt\tWidth\tRefiner.start\na\t256\t0.7\nb\t\t\n", defaults=defaults)
    assert (own.spec.width, own.spec.refiner.start, own.spec.refiner.handoff) == (256, 0.7, "diffusers")
    assert (empty.spec.width, empty.spec.refiner.start, empty.spec.refiner.handoff) == (512, 0.9, "diffusers")


PICTURE = "ab" * 32


@pytest.mark.parametrize(
    ("row", "defaults"),
    [
        ({"refiner.mode": "off"}, {"refiner.start": "0.9"}),
        ({"refiner.mode": "off"}, {"refiner.strength": "0.4", "refiner.prompt": "fur", "refiner.aesthetic_score": "7"}),
        ({"refiner.mode": "img2img"}, {"refiner.start": "0.9"}),
        ({"refiner.mode": "img2img"}, {"refiner.start": "0.9", "refiner.handoff": "diffusers"}),
        ({"refiner.mode": "ensemble"}, {"refiner.strength": "0.4"}),
        ({"refiner": {"mode": "off"}}, {"refiner.start": "0.9"}),
        ({"refiner.start_step": 30}, {"refiner.start": "0.9"}),
        ({"refiner.start_percent": 85}, {"refiner.start": "0.9"}),
        ({"refiner.start": 0.7}, {"refiner.start_step": "30"}),
        ({}, {"strength": "0.5"}),
        ({"output.format": "png"}, {"output.quality": "90"}),
    ],
)
def test_a_default_gives_way_where_the_row_leaves_it_nothing_to_say(
    jsonl: Path, row: dict[str, object], defaults: dict[str, str]
) -> None:
    content = json.dumps({"prompt": "x", **row})
    assert rows_of(jsonl, content, defaults=defaults) == rows_of(jsonl, content)  # the derived seed too


def test_a_default_that_gives_way_in_one_row_fills_the_others(tsv: Path) -> None:
    content = f"Prompt\tInit image\trefiner.mode\toutput.format\na\t\timg2img\tpng\nb\t{PICTURE}\t\twebp\n"
    defaults = {"strength": "0.5", "refiner.start": "0.9", "output.quality": "90"}
    a, b = (row.spec for row in rows_of(tsv, content, defaults=defaults))
    assert (a.strength, a.refiner.start, a.output.quality) == (None, None, None)
    assert (b.strength, b.refiner.start, b.output.quality) == (0.5, 0.9, 90)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("strength", "0.5"),
        ("clip_skip", "2"),
        ("prompt_2", "y"),
        ("target_size", "512,512"),
        ("guidance_rescale", "0.7"),
        ("refiner.start", "0.9"),
    ],
)
def test_what_the_base_is_told_by_default_says_nothing_to_a_row_of_the_refiner_alone(
    tsv: Path, field: str, value: str
) -> None:
    content = f"Prompt\tInit image\trefiner.mode\nx\t{PICTURE}\tonly\n"
    assert rows_of(tsv, content, defaults={field: value}) == rows_of(tsv, content)
    own = one_bad(tsv, f"Prompt\tInit image\trefiner.mode\t{field}\nx\t{PICTURE}\tonly\t{value}\n")
    assert own.column == field


@pytest.mark.parametrize(
    ("header", "cells", "column"),
    [
        ("refiner.mode\trefiner.start", "off\t0.9", "refiner.start"),
        ("refiner.start_step\trefiner.start", "30\t0.9", "refiner"),
        ("output.format\toutput.quality", "png\t90", "output.quality"),
        ("strength", "0.5", "strength"),
    ],
)
def test_a_rows_own_contradiction_is_refused_whatever_the_defaults_are(
    tsv: Path, header: str, cells: str, column: str
) -> None:
    defaults = {"refiner.start": "0.7", "strength": "0.3"}
    assert one_bad(tsv, f"Prompt\t{header}\nx\t{cells}\n", defaults=defaults).column == column


@pytest.mark.parametrize(
    ("defaults", "sentence"),
    [
        (
            {"refiner.start": "0.9", "refiner.mode": "off"},
            "--set refiner.start=0.9: says nothing with refiner.mode off",
        ),
        ({"output.quality": "90", "output.format": "png"}, "--set output.quality=90: is nothing that png has"),
        (
            {"refiner.start": "0.9", "refiner.start_step": "30"},
            "--set refiner.start=0.9 and --set refiner.start_step=30: needs one of start, start_step, start_percent",
        ),
    ],
)
def test_defaults_that_contradict_each_other_are_refused_before_any_row(
    tsv: Path, defaults: dict[str, str], sentence: str
) -> None:
    content = "Prompt\trefiner.mode\toutput.format\nx\timg2img\twebp\n"
    assert refusal(tsv, content, defaults=defaults).startswith(sentence)


@pytest.mark.parametrize(
    ("header", "cells", "defaults", "sentence"),
    [
        ("seed", "1", {"refiner.strength": "0.4"}, "--set refiner.strength=0.4: says nothing with"),
        ("seed", "1", {"output.quality": "90"}, "--set output.quality=90: is nothing that png has"),
        (
            "refiner.strength\trefiner.start_step", "\t30", {"refiner.handoff": "diffusers"},
            "--set refiner.handoff=diffusers: knows start only, and not start_step",
        ),
        (
            "refiner.start", "0.8", {"refiner.mode": "img2img"},
            'column "refiner.start": "0.8": says nothing with refiner.mode img2img (--set refiner.mode=img2img)',
        ),
        (
            "guidance_scale\tnegative_prompt", "1\t", {"negative_prompt": "blurry", "refiner.mode": "off"},
            "--set negative_prompt=blurry: says nothing unless guidance_scale is above 1 (--set refiner.mode=off)",
        ),
        (
            "scheduler_options.use_exponential_sigmas", "true", {"scheduler": "dpm++ 2m karras"},
            'column "scheduler_options.use_karras_sigmas": "true": excludes use_exponential_sigmas:'
            " there is one noise schedule (--set scheduler=dpm++ 2m karras)",
        ),
    ],
)  # fmt: skip
def test_a_row_that_is_wrong_for_a_default_says_which_set_it_was(
    tsv: Path, header: str, cells: str, defaults: dict[str, str], sentence: str
) -> None:
    bad = one_bad(tsv, f"Prompt\t{header}\nx\t{cells}\n", defaults=defaults)
    assert str(bad).startswith(f"{tsv}:2: {sentence}")


def test_a_prompt_may_come_from_set(tsv: Path) -> None:
    assert [row.spec.prompt for row in rows_of(tsv, "Seed\n1\n2\n", defaults={"prompt": "a cat"})] == ["a cat"] * 2


@pytest.mark.parametrize(
    ("defaults", "sentence"),
    [
        ({"width": "1001"}, "--set width=1001: is not divisible by 8; the nearest sides are 1000 and 1008"),
        ({"refiner.start": "1"}, "--set refiner.start=1: should be less than 1"),
        ({"wdith": "8"}, "--set wdith=8: there is no field 'wdith'; is width meant? fields are prompt, "),
        ({"refiner": "off"}, "there is no field 'refiner'"),
        ({"negative_prompt": ""}, "--set negative_prompt=: an empty value sets nothing; leave it out"),
        ({"width": "64", "Width": "72"}, "--set Width=72: this field is set twice"),
    ],
)
def test_a_wrong_set_is_wrong_once(tsv: Path, defaults: dict[str, str], sentence: str) -> None:
    assert sentence in refusal(tsv, "Prompt\na\nb\n", defaults=defaults)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"Text": "prompt"}, 'has no column "text"; it has "Caption", "Id"'),
        ({"Caption": "promt"}, "--map Caption=promt: there is no field 'promt'"),
        ({"Caption": "prompt", "Id": "prompt"}, 'columns "Caption", "Id" are both read as prompt'),
        ({"Caption": "prompt", "caption": "seed"}, "this column is mapped twice"),
    ],
)
def test_a_wrong_map_is_refused(tsv: Path, columns: dict[str, str], sentence: str) -> None:
    assert sentence in refusal(tsv, "Caption\tId\na\t1\n", columns=columns)


@pytest.mark.parametrize(
    "options",
    [{"columns": {"\x1b[31m": "seed"}}, {"columns": {"a": "\x1b"}}, {"defaults": {"\x1b": "1"}},
     {"defaults": {"width": "\x1b"}}],
)  # fmt: skip
@pytest.mark.parametrize("name", ["prompts.tsv", "prompts.jsonl"])
def test_a_refused_option_is_printable(tmp_path: Path, name: str, options: dict[str, dict[str, str]]) -> None:
    content = '{"prompt": "a"}\n' if name.endswith("jsonl") else "Prompt\x07\nx\n"
    assert refusal(tmp_path / name, content, **options).isprintable()


def test_a_mapped_column_that_no_json_row_has_is_refused(jsonl: Path) -> None:
    assert "no row of" in refusal(jsonl, '{"prompt": "a"}\n', columns={"Bild": "seed"})


def test_a_text_file_has_no_columns_to_map(txt: Path) -> None:
    assert "has no columns" in refusal(txt, "a\n", columns={"a": "prompt"})


# Seeds and repeats


def test_a_derived_seed_is_pinned(txt: Path) -> None:
    first, second = rows_of(txt, "a cat\na cat\n", base_seed=7)
    assert (first.spec.seed, first.repeat) == (6_987_388_026_829_529_111, 0)
    assert (second.spec.seed, second.repeat) == (10_437_049_940_062_375_003, 0)


def test_a_derived_seed_does_not_depend_on_the_place_or_the_format(tsv: Path, jsonl: Path) -> None:
    in_table = rows_of(tsv, "Prompt\tWidth\tScheduler\ndog\t\t\ncat\t1024\teuler\nbird\t\t\n")
    in_json = rows_of(jsonl, '{"prompt": "cat"}\n')
    assert in_table[1].spec == in_json[0].spec


def test_the_format_of_the_file_changes_no_derived_seed(tsv: Path) -> None:
    png, webp, again = rows_of(tsv, "Prompt\toutput.format\na\t\na\twebp\na\tpng\n")
    assert png.spec.seed == webp.spec.seed
    assert again.spec.seed != png.spec.seed  # a repeat of the first row, and the second is none
    assert png.spec.digest != webp.spec.digest


def test_a_derived_seed_depends_on_base_seed_and_spec(tsv: Path) -> None:
    seeds = {
        row.spec.seed
        for base_seed in (0, 1)
        for row in rows_of(tsv, "Prompt\tWidth\na\t256\na\t320\nb\t256\n", base_seed=base_seed)
    }
    assert len(seeds) == 6


def test_equal_rows_with_a_seed_are_numbered(tsv: Path) -> None:
    rows = rows_of(tsv, "Prompt\tSeed\na\t1\na\t1\na\t2\na\t\na\t1\n")
    assert [row.repeat for row in rows] == [0, 1, 0, 0, 2]
    assert rows[3].spec.seed not in {1, 2}


@pytest.mark.parametrize("explicit_first", [True, False])
def test_a_row_that_gives_the_seed_which_another_derives_is_a_repeat_of_it(tsv: Path, explicit_first: bool) -> None:
    [derived] = rows_of(tsv, "Prompt\na cat\n")
    lines = [f"a cat\t{derived.spec.seed}\n", "a cat\t\n"]
    rows = rows_of(tsv, "".join(["Prompt\tSeed\n", *(lines if explicit_first else lines[::-1]), "a cat\t\n"]))
    assert {row.spec.seed for row in rows[:2]} == {derived.spec.seed}
    assert [row.repeat for row in rows] == [0, 1, 0]
    assert len({(row.spec.digest, row.repeat) for row in rows}) == 3


def test_meta_makes_no_difference_to_seed_and_repeat(tsv: Path) -> None:
    with_meta = rows_of(tsv, "Prompt\tId\na\t1\na\t2\n")
    without = rows_of(tsv, "Prompt\na\na\n")
    assert [(row.spec, row.repeat) for row in with_meta] == [(row.spec, row.repeat) for row in without]


def test_repeats_are_counted_also_when_they_were_written_to_the_file_long_ago() -> None:
    chance = random.Random(1)
    digests = [sha256_hex(str(n)) for n in range(22_000)]
    asked = [*digests, *chance.choices(digests, k=3_000), *digests[:22_000:7], digests[0]]
    seen: Counter[str] = Counter()
    with Repeats() as repeats:
        for digest in asked:
            assert repeats.num_before(digest) == seen[digest]
            seen[digest] += 1


def test_repeats_leave_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path))
    with Repeats() as repeats:
        assert [repeats.num_before(sha256_hex(str(n % 150_000))) for n in (*range(150_000), 0, 149_999)][-2:] == [1, 1]
        assert not list(tmp_path.iterdir())


# Bad rows


def test_a_bad_row_says_file_line_column_value_and_reason(tsv: Path) -> None:
    bad = one_bad(tsv, "Prompt\tWidth\na\t256\nb\t1001\nc\t256\n")
    assert (bad.line, bad.column, bad.value) == (3, "Width", "1001")
    wanted = f'{tsv}:3: column "Width": "1001": is not divisible by 8; the nearest sides are 1000 and 1008'
    assert str(bad) == wanted


def test_one_bad_row_names_every_wrong_field(tsv: Path) -> None:
    bad = one_bad(tsv, "Prompt\tWidth\tThe Seed\tScheduler\n\t7\t-1\tfast\n", columns={"The Seed": "seed"})
    assert bad.column == "Prompt"
    for part in ('"Width": "7": should be greater', '"The Seed": "-1": is not between', '"Scheduler": "fast": unknown'):
        assert f"column {part}" in bad.reason


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("width", "true", "valid integer"),
        ("width", "256.0", "valid integer"),
        ("width", "[256]", "valid integer"),
        ("width", '"two"', "is not a whole number"),
        ("guidance_scale", "true", "valid number"),
        ("guidance_scale", "NaN", "finite number"),
        ("guidance_scale", "-Infinity", "finite number"),
        ("guidance_scale", "1e400", "finite number"),
        ("seed", "18446744073709551616", "is not between 0 and 18446744073709551615"),
        ("scheduler", '"fastest"', "unknown scheduler"),
        ("scheduler", "3", "valid string"),
        ("negative_prompt", "5", "valid string"),
        ("negative_prompt", '"a\\u0000b"', "NUL"),
        ("negative_prompt", '"\\ud800"', "surrogate"),
        ("refiner", '"off"', "should be an object"),
        ("refiner.start", "1.0", "less than 1"),
        ("Category", "NaN", "finite number"),
        ("Category", "[1e400]", "finite number"),
        ("Category", '"a\\u0000b"', "NUL"),
        ("Category", '"\\ud800"', "surrogate"),
    ],
)
def test_a_wrong_json_value_is_named_by_its_column(jsonl: Path, column: str, value: str, reason: str) -> None:
    good = '{"prompt": "a"}\n'
    bad = one_bad(jsonl, f'{good}{{"prompt": "a", "{column}": {value}}}\n{good}')
    assert (bad.line, bad.column) == (2, column)
    assert reason in bad.reason
    assert str(bad).isprintable()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[1, 2]", "is not a JSON object"),
        ("{'prompt': 'a'}", "is not JSON: Expecting property name"),
        ('{"prompt": "a"} {"prompt": "b"}', "is not JSON: Extra data"),
        ('{"prompt": "a", "prompt": "b"}', 'column "prompt": stands twice in one object'),
        ('{"prompt": "a", "x": {"y": 1, "y": 2}}', 'column "y": stands twice in one object'),
        ('{"prompt": "a", "refiner": {"start": 0.5}, "refiner.start": 0.6}', "stands twice"),
        ('{"prompt": "a", "Width": 256, "width": 256}', 'columns "Width", "width" are both read as width'),
        ('{"prompt": "a", "refiner": {"strat": 0.5}}', "is no field of the refiner"),
        ('{"width": 256, "promt": "a"}', 'column "prompt": is missing; the row has "width", "promt"'),
        ('{"prompt": "a", "": 1}', "column 2 has no name"),
        ('{"prompt": "a", "x": %s}' % ("9" * 5000), "too many digits"),
        ('{"prompt": "a", "x": ' + "[" * 40 + "]" * 40 + "}", "nested too deep"),
        ('{"prompt": "a", "x": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deep"),
        ('{"a":' * 100_000, "nested too deep"),
        (json.dumps({f"k{n}": n for n in range(1001)}), "1000 are the most"),
    ],
)  # fmt: skip
def test_a_json_line_that_is_no_row_is_bad_and_the_others_are_read(jsonl: Path, line: str, reason: str) -> None:
    good = '{"prompt": "a"}\n'
    found = read(jsonl, f"{good}{line}\n{good}")
    assert [type(row) for row in found] == [Row, BadRow, Row]
    assert reason in str(found[1])
    assert len(str(found[1])) < 1000


def test_many_brackets_in_a_prompt_are_not_nesting(jsonl: Path) -> None:
    assert len(rows_of(jsonl, json.dumps({"prompt": "[{" * 500}))) == 1


@pytest.mark.parametrize(
    ("cells", "column", "reason"),
    [
        (b"a \xff cat\t256", "Prompt", "is not UTF-8 (0xff at byte 3)"),
        (b"a\t25\x006", "Width", "contains a NUL character"),
        (b"a", None, "the row has 1 column, the header has 2"),
        (b"a\t256\tx", None, "the row has 3 columns, the header has 2"),
        (b"a\tb\rc", None, "the line has a carriage return inside"),
        (b"a" * MAX_LINE_BYTES + b"\t256", None, "the line is longer than 1 MB"),
        (b"\t256", "Prompt", "is missing"),
        (b"x" * 20_001 + b"\t256", "Prompt", "at most 20000"),
    ],
)
@pytest.mark.parametrize("suffix", ["tsv", "csv"])
def test_a_bad_line_of_a_table_is_bad_alone(
    tmp_path: Path, suffix: str, cells: bytes, column: str | None, reason: str
) -> None:
    content = b"Prompt\tWidth\na\t256\n" + cells + b"\nb\t256\n"
    content = content.replace(b"\t", b",") if suffix == "csv" else content
    found = read(tmp_path / f"prompts.{suffix}", content)
    assert [(type(row), row.line) for row in found] == [(Row, 2), (BadRow, 3), (Row, 4)]
    assert (found[1].column, reason in found[1].reason) == (column, True)


@pytest.mark.parametrize("line", [b"\xff", b"a\0b", b"a\rb", b"x" * (MAX_LINE_BYTES + 1)])
def test_a_bad_line_of_a_text_file_is_bad_alone(txt: Path, line: bytes) -> None:
    found = read(txt, b"a\n" + line + b"\nb\n")
    assert [(type(row), row.line) for row in found] == [(Row, 1), (BadRow, 2), (Row, 3)]


def test_a_csv_quote_that_is_never_closed_loses_no_other_row(csv_file: Path) -> None:
    found = read(csv_file, 'Prompt,Width\na,256\n"b,256\nc,256\nd,256\n')
    assert [(type(row), row.line) for row in found] == [(Row, 2), (BadRow, 3), (Row, 4), (Row, 5)]
    assert "a quote that is never closed" in found[1].reason


def test_a_csv_quote_that_is_closed_by_another_rows_quote_swallows_no_row(csv_file: Path) -> None:
    found = read(csv_file, 'Prompt,Width\n"b,256\nc,256\n"d",256\n')
    assert [(type(row), row.line) for row in found] == [(BadRow, 2), (Row, 3), (Row, 4)]
    assert "text after a closing quote" in found[0].reason


def test_a_csv_row_of_several_lines_with_too_many_columns_shows_how_far_it_goes(csv_file: Path) -> None:
    bad = one_bad(csv_file, 'Prompt,Width\n"b\nc",256,7\n')
    assert (bad.line, "goes on to line 3: is a quote not closed?" in bad.reason) == (2, True)


def test_a_csv_row_has_a_bound_however_it_is_quoted(csv_file: Path) -> None:
    found = read(csv_file, f'Prompt\n"{"b" * 200_000}"\nc\n')
    assert [(type(row), row.line) for row in found] == [(BadRow, 2), (Row, 3)]
    csv_file.write_text("Prompt\n" + 'x","y\n' * 200_000)  # each line opens the next cell: one row without an end
    assert _peaks(read_manifest(csv_file, ReadOptions(limit=2)))[-1] < 2_000_000


def test_what_is_shown_of_a_value_is_short_and_printable(tsv: Path) -> None:
    bad = one_bad(tsv, "Prompt\tWidth\na\t\x1b[31m\u202e" + "9" * 500 + "\n")
    assert bad.value is not None
    assert bad.value.startswith("\\x1b[31m\\u202e99")
    assert bad.value.endswith("... (506 characters)")
    assert str(bad).isprintable()


# Files that are refused


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is empty"),
        ("\ufeff", "is empty"),
        ("\n\n", "is empty"),
        ("Prompt\tWidth\n", "has no rows"),
        ("Prompt\n\n", "has no rows"),
        ("Text\tWidth\nx\t1\n", 'has no prompt column; it has "Text", "Width"; say which is the prompt: --map'),
        ("prompt;seed\nx;1\n", 'it has "prompt;seed"; its columns seem to have semicolons between them; save it with'),
        ("Prompt\tWidth\twidth\nx\t1\t1\n", 'columns "Width", "width" are both read as width'),
        ("Prompt\tMy Note\tmy-note\nx\t1\t1\n", "are both read as my_note"),
        ("Prompt\t\nx\t1\n", "column 2 has no name"),
        ("Prompt\tRefiner\nx\toff\n", "is no field of the refiner; they are refiner.mode, refiner.start"),
        ("Prompt\trefiner.strat\nx\t1\n", "is no field of the refiner"),
        ("Prompt\tOutput\nx\twebp\n", "is no field of the output; they are output.format, output.quality"),
        ("Pro\0mpt\nx\n", "the header contains a NUL character"),
        (b"Pr\xffmpt\nx\n", "the header is not UTF-8"),
        ("Prompt\rx\ry\r", "the header has a carriage return inside"),
        ("Prompt\nx\n".encode("utf-16-le"), "is UTF-16 without a byte order mark"),
        ("Prompt\nx\n".encode("utf-16-be"), "is UTF-16 without a byte order mark"),
        ("Prompt\nx\n".encode("utf-32"), "is UTF-32; save it as UTF-8"),
        (b"Prompt\t" + b"x" * MAX_LINE_BYTES, "the header is longer than 1 MB"),
        ("\x1b[31mText\tWidth\nx\t1\n", 'it has "\\x1b[31mText", "Width"'),
        ("Prompt\tA\u202e\ta\u202e\nx\t1\t1\n", 'columns "A\\u202e", "a\\u202e" are both read as a\\u202e'),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_one_sentence(tsv: Path, content: str | bytes, sentence: str) -> None:
    said = refusal(tsv, content)
    assert sentence in said
    assert str(tsv) in said
    assert said.isprintable()


@pytest.mark.parametrize("name", ["prompts.jsonl", "prompts.txt"])
def test_a_file_of_blank_lines_has_no_rows(tmp_path: Path, name: str) -> None:
    assert "has no rows" in refusal(tmp_path / name, " \n\n")


def test_missing_files_folders_and_unknown_suffixes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.tsv").mkdir()
    (tmp_path / "prompts.xlsx").touch()
    for name, sentence in (
        ("absent.tsv", "there is no file"),
        ("folder.tsv", "is a folder"),
        ("prompts.xlsx", 'unknown suffix ".xlsx"; manifests are .tsv, .csv, .jsonl, .txt'),
    ):
        with pytest.raises(ManifestError, match=sentence):
            next(read_manifest(tmp_path / name, ReadOptions()))


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl", "txt", "x\x1bls"])
def test_a_file_with_an_unprintable_name_is_refused_in_a_printable_sentence(tmp_path: Path, suffix: str) -> None:
    said = refusal(tmp_path / f"a\x1b[31m\udcff.{suffix}", "")
    assert "a\\x1b[31m\\udcff" in said
    assert said.isprintable()


def test_a_limit_below_one_is_refused(tsv: Path) -> None:
    assert "--limit 0" in refusal(tsv, "Prompt\na\n", limit=0)


# Size


def test_memory_does_not_grow_with_the_manifest(txt: Path) -> None:
    txt.write_text("".join(f"a painting of cat number {n}\n" for n in range(15_000)))
    # 100 kB are 25 bytes a row: nothing is kept of any, once the counts are written
    before, peak = _peaks(read_manifest(txt, ReadOptions()), after=11_000)
    assert peak < before + 100_000


def test_a_huge_line_is_never_held_in_memory(txt: Path) -> None:
    with open(txt, "wb") as file:
        file.writelines(b"x" * 1_000_000 for _ in range(50))
        file.write(b"\na cat\n")
    assert _peaks(read_manifest(txt, ReadOptions()))[-1] < 6_000_000


def _peaks(rows: Iterator[Row | BadRow], after: int = 0) -> list[int]:
    """What Python held at most while the rows were read and forgotten: the first so many, and all of them."""
    tracemalloc.start()
    peaks = []
    try:
        for number, _ in enumerate(rows, 1):
            if number == after:
                peaks.append(tracemalloc.get_traced_memory()[1])
        return [*peaks, tracemalloc.get_traced_memory()[1]]
    finally:
        tracemalloc.stop()


def test_the_demo_manifest_is_small_and_has_no_bad_row() -> None:
    demo = Path(__file__).parents[2] / "examples" / "demo.tsv"
    rows = [row for row in read_manifest(demo, ReadOptions()) if isinstance(row, Row)]
    assert len(rows) == 24
    assert sum(row.spec.width * row.spec.height for row in rows) <= 24 * 256 * 256
    assert {row.spec.num_inference_steps for row in rows} == {10, 12}
    assert len({row.spec.scheduler for row in rows}) == 3
    assert all(row.meta.keys() == {"Category"} for row in rows)


# Options of the scheduler, and where the refiner takes over


def test_options_of_the_scheduler_are_dotted_columns(tsv: Path) -> None:
    [row] = rows_of(tsv, "Prompt\tScheduler\tScheduler_Options.Use_Karras_Sigmas\nx\tUniPC\tTRUE\n")
    assert row.spec.scheduler_options == (("use_karras_sigmas", True),)
    assert row.meta == {}


def test_options_of_the_scheduler_are_an_object_in_jsonl(jsonl: Path) -> None:
    line = {"prompt": "x", "scheduler": "dpm++ 2m", "scheduler_options": {"solver_order": 3, "euler_at_final": True}}
    [row] = rows_of(jsonl, json.dumps(line))
    assert row.spec.scheduler_options == (("euler_at_final", True), ("solver_order", 3))


def test_a_wrong_option_is_named_by_its_column(tsv: Path) -> None:
    bad = one_bad(tsv, "Prompt\tScheduler\tscheduler_options.solver_order\nx\tddim\t2\n")
    assert bad.column == "scheduler_options.solver_order"
    assert "is no option of DDIMScheduler; it has timestep_spacing" in bad.reason


def test_a_column_that_is_no_option_of_any_scheduler_is_refused(tsv: Path) -> None:
    assert "is no field of the scheduler's options; they are" in refusal(tsv, "Prompt\tscheduler_options.eta\nx\t1\n")


def test_an_option_for_all_rows_is_held_against_the_scheduler_of_each(tsv: Path) -> None:
    content = "Prompt\tScheduler\nx\tunipc\ny\tddim\n"
    good, bad = read(tsv, content, defaults={"scheduler_options.solver_order": "3"})
    assert isinstance(good, Row)
    assert "is no option of DDIMScheduler" in str(bad)
    with pytest.raises(ManifestError, match=r"--set scheduler_options.solver_order=3: is no option of DDIMScheduler"):
        read(tsv, "Prompt\nx\n", defaults={"scheduler_options.solver_order": "3", "scheduler": "ddim"})


@pytest.mark.parametrize(
    ("refiner", "name", "value"),
    [
        ({"startStep": 32}, "start_step", 32),
        ({"model": "civitai:101195@128080", "startStepPercentage": 90}, "start_percent", 90.0),
        ({"start_step": 12}, "start_step", 12),
    ],
)
def test_runwares_refiner_object_is_read_as_it_is(jsonl: Path, refiner: dict, name: str, value: float) -> None:
    [row] = rows_of(jsonl, json.dumps({"prompt": "x", "refiner": refiner}))
    assert getattr(row.spec.refiner, name) == value
    assert row.spec.refiner.start is None
    assert row.meta == ({"refiner.model": refiner["model"]} if "model" in refiner else {})


def test_two_places_for_the_handoff_are_refused(jsonl: Path) -> None:
    bad = one_bad(jsonl, '{"prompt": "x", "refiner": {"start": 0.8, "startStep": 32}}\n{"prompt": "y"}')
    assert "needs one of start, start_step, start_percent, and has start and start_step" in str(bad)
