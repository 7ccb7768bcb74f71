"""One row, many images: templates, sweeps and counts of a manifest's rows, their seeds, and the bound on them all."""

import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from nightshift import app, loaded
from producer.expanding.axes import parsed_axes
from producer.expanding.drawings import TEMPLATE_FIELDS
from producer.expanding.expansion import Expansion, TemplateMode
from producer.expanding.sweeps import Sweep, parsed_sweep
from producer.manifests.manifest import BadRow, ReadOptions, Row, read_manifest
from schemas.errors import InputError, ManifestError
from schemas.fields import MAX_SEED

SAMPLE, ALL = TemplateMode.SAMPLE, TemplateMode.ALL


@pytest.fixture
def tsv(tmp_path: Path) -> Path:
    return tmp_path / "prompts.tsv"


def read(path: Path, content: str, expansion: Expansion, **options: object) -> list[Row | BadRow]:
    path.write_text(content)
    return list(read_manifest(path, ReadOptions(expansion=expansion, **options)))


def rows_of(path: Path, content: str, expansion: Expansion, **options: object) -> list[Row]:
    found = read(path, content, expansion, **options)
    assert not [str(row) for row in found if isinstance(row, BadRow)]
    return [row for row in found if isinstance(row, Row)]


def bad_rows(path: Path, content: str, expansion: Expansion, **options: object) -> list[str]:
    found = read(path, content, expansion, **options)
    return [str(row).removeprefix(str(path)) for row in found if isinstance(row, BadRow)]


def prompts(rows: list[Row]) -> list[str]:
    return [row.spec.prompt for row in rows]


def seeds(rows: list[Row]) -> list[int]:
    return [row.spec.seed for row in rows]


def sweep(*given: str, zipped: bool = False) -> Sweep:
    found = parsed_sweep(given, zipped=zipped)
    assert found is not None
    return found


# Templates


def test_without_templates_braces_are_text(tsv: Path) -> None:
    [row] = rows_of(tsv, "Prompt\na {cat|dog} in __place__\n", Expansion())
    assert (row.spec.prompt, row.meta) == ("a {cat|dog} in __place__", {})


def test_all_renders_every_combination_of_every_field_that_is_a_template(tsv: Path) -> None:
    manifest = "Prompt\tNegative prompt\tNote\na {cat|dog}\t{|blurry}\t{x|y}\n"
    rows = rows_of(tsv, manifest, Expansion(ALL))
    assert [(row.spec.prompt, row.spec.negative_prompt) for row in rows] == [
        ("a cat", ""),
        ("a cat", "blurry"),
        ("a dog", ""),
        ("a dog", "blurry"),
    ]
    assert rows[0].meta == {
        "Note": "{x|y}",
        "template.prompt": "a {cat|dog}",
        "template.negative_prompt": "{|blurry}",
    }


def test_a_default_may_be_a_template_and_gives_way_where_it_says_nothing(tsv: Path) -> None:
    manifest = "Prompt\trefiner.mode\na cat\t\na dog\toff\n"
    rows = rows_of(tsv, manifest, Expansion(ALL), defaults={"refiner.prompt": "{fur|hair}"})
    assert [(row.spec.prompt, row.spec.refiner.prompt) for row in rows] == [
        ("a cat", "fur"),
        ("a cat", "hair"),
        ("a dog", None),
    ]
    swept = Expansion(ALL, sweep=sweep("refiner.mode=off,ensemble"))
    rows = rows_of(tsv, "Prompt\na cat\n", swept, defaults={"refiner.prompt": "{fur|hair}"})
    assert [row.spec.refiner.prompt for row in rows] == [None, "fur", None, "hair"]


def test_a_sample_is_drawn_anew_from_its_recorded_seed_and_base_seed(tsv: Path) -> None:
    manifest = "Prompt\na {cat|dog|owl|fox} {in|by} the {sea|wood|town}\n"
    [row] = rows_of(tsv, manifest, Expansion(SAMPLE))
    [again] = rows_of(tsv, manifest, Expansion(SAMPLE))
    assert (row.spec, row.meta) == (again.spec, again.meta)
    assert row.meta["template.prompt"] == manifest.splitlines()[1]
    assert 0 <= int(row.meta["template.seed"]) <= MAX_SEED
    [other] = rows_of(tsv, manifest, Expansion(SAMPLE), base_seed=1)
    assert other.meta["template.seed"] != row.meta["template.seed"]


def test_each_image_of_a_sampled_row_has_its_own_drawing_as_if_the_row_stood_so_often(tsv: Path) -> None:
    template = "a {cat|dog|owl|fox} {in|by} the {sea|wood|town}"
    counted = rows_of(tsv, f"Prompt\n{template}\n", Expansion(SAMPLE, count=12))
    repeated = rows_of(tsv, "Prompt\n" + f"{template}\n" * 12, Expansion(SAMPLE))
    assert [(row.spec, row.repeat, row.meta) for row in counted] == [
        (row.spec, row.repeat, row.meta) for row in repeated
    ]
    assert len(set(prompts(counted))) > 4


TEMPLATED = "a {cat|dog|owl|fox} {in|by} the {sea|wood|town}"


@given(
    others=st.lists(st.sampled_from(["x {a|b}", "a plain one", "{p|q|r} {s|t}"]), max_size=6), place=st.integers(0, 6)
)
@settings(max_examples=25, deadline=None)
def test_a_drawing_does_not_change_when_other_rows_are_added(
    tmp_path_factory: pytest.TempPathFactory, others: list[str], place: int
) -> None:
    path = tmp_path_factory.mktemp("drawn") / "prompts.tsv"
    [alone] = rows_of(path, f"Prompt\n{TEMPLATED}\n", Expansion(SAMPLE))
    lines = [*others[:place], TEMPLATED, *others[place:]]
    among = rows_of(path, "Prompt\n" + "\n".join(lines) + "\n", Expansion(SAMPLE))
    [found] = [row for row in among if row.meta.get("template.prompt") == TEMPLATED]
    assert (found.spec, found.meta) == (alone.spec, alone.meta)


def test_rows_that_differ_anywhere_but_in_their_file_s_format_are_drawn_apart(tsv: Path) -> None:
    manifest = f"Prompt\tWidth\toutput.format\n{TEMPLATED}\t64\tpng\n{TEMPLATED}\t128\t\n{TEMPLATED}!\t64\t\n"
    rows = rows_of(tsv, manifest, Expansion(SAMPLE))
    assert len({row.meta["template.seed"] for row in rows}) == 3
    [webp] = rows_of(tsv, f"Prompt\tWidth\toutput.format\n{TEMPLATED}\t64\twebp\n", Expansion(SAMPLE))
    assert webp.meta == rows[0].meta


def test_a_drawing_is_the_same_from_a_table_and_from_json(tsv: Path) -> None:
    [row] = rows_of(tsv, f"Prompt\tWidth\n{TEMPLATED}\t512\n", Expansion(SAMPLE))
    [same] = rows_of(
        tsv.with_suffix(".jsonl"), json.dumps({"prompt": TEMPLATED, "width": 512}) + "\n", Expansion(SAMPLE)
    )
    assert row.spec == same.spec


def test_a_row_without_a_template_records_none(tsv: Path) -> None:
    [row] = rows_of(tsv, "Prompt\na cat\n", Expansion(SAMPLE))
    assert row.meta == {}


def test_a_malformed_template_is_a_bad_row_with_its_place(tsv: Path) -> None:
    manifest = "Prompt\tNegative\na {cat\tblurry\na dog\t{x\n"
    assert bad_rows(tsv, manifest, Expansion(ALL), columns={"Negative": "negative_prompt"}) == [
        ':2: column "Prompt": "a {cat": has a { at character 3 that no } closes',
        ':3: column "Negative": "{x": has a { at character 1 that no } closes',
    ]


def test_a_malformed_default_is_wrong_once(tsv: Path) -> None:
    with pytest.raises(ManifestError, match=r"^--set negative_prompt=\{x: has a \{ at character 1 that no \} closes$"):
        read(tsv, "Prompt\na cat\na dog\n", Expansion(ALL), defaults={"negative_prompt": "{x"})


def test_a_column_called_as_what_is_recorded_is_refused(tsv: Path) -> None:
    [bad] = bad_rows(tsv, "Prompt\ttemplate.prompt\na {cat|dog}\tmine\n", Expansion(ALL))
    assert bad.startswith(':2: column "template.prompt": "mine": --templates records under names with template.')


def test_wildcards_without_templates_say_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--wildcards says nothing without --templates"):
        Expansion(wildcards=tmp_path)


# Sweeps


def test_a_sweep_combines_its_fields_in_the_order_given_at_the_row_s_seed(tsv: Path) -> None:
    [plain] = rows_of(tsv, "Prompt\na cat\n", Expansion())
    found = sweep("scheduler=euler,dpm++ 2m", "guidance_scale=4:6:1")
    rows = rows_of(tsv, "Prompt\na cat\n", Expansion(sweep=found))
    assert [(row.spec.scheduler, row.spec.guidance_scale) for row in rows] == [
        (scheduler, guidance)
        for scheduler in ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler")
        for guidance in (4, 5, 6)
    ]
    assert set(seeds(rows)) == {plain.spec.seed}
    assert rows[1].spec == plain.spec


def test_a_zipped_sweep_walks_its_fields_together(tsv: Path) -> None:
    found = sweep("seed=7,8", "width=64,128", zipped=True)
    rows = rows_of(tsv, "Prompt\na cat\n", Expansion(sweep=found))
    assert [(row.spec.seed, row.spec.width) for row in rows] == [(7, 64), (8, 128)]


@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=4), zipped=st.booleans())
@settings(deadline=None)
def test_a_sweep_has_as_many_cells_as_it_says_in_the_order_of_its_fields(lengths: list[int], zipped: bool) -> None:
    fields = ("seed", "width", "height", "num_inference_steps")
    given = [
        f"{field}={','.join(str(64 + 8 * n) for n in range(num))}" for field, num in zip(fields, lengths, strict=False)
    ]
    if zipped and (len(given) < 2 or len(set(lengths)) > 1):
        with pytest.raises(InputError, match="--zip"):
            parsed_sweep(given, zipped=True)
        return
    found = sweep(*given, zipped=zipped)
    cells = [tuple(int(value.text) for value in cell) for cell in found.cells]
    assert len(cells) == len(set(cells)) == found.num_cells
    assert cells == sorted(cells)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ("guidance_scale=4:8:1", "4 5 6 7 8"),
        ("guidance_scale=4:5:0.4", "4 4.4 4.8"),
        ("guidance_scale=0.1:0.3:0.1", "0.1 0.2 0.3"),
        ("guidance_scale=2:1:-0.5,7", "2 1.5 1 7"),
        ("refiner.start=off,0.7:0.8:0.1", "off 0.7 0.8"),
        ("seed=18446744073709551614:18446744073709551615:1", "18446744073709551614 18446744073709551615"),
        ("aspect_ratio=16:9,1:1", "16:9 1:1"),
        ("prompt=4:8:1", "4:8:1"),
        ('seed="4:8:1"', "4:8:1"),
    ],
)
def test_a_range_is_its_values_to_the_end_where_a_number_stands(values: str, found: str) -> None:
    assert [value.text for value in sweep(values).each[0].values] == found.split(" ")
    assert [value.text for value in parsed_axes(values, None).x.values] == found.split(" ")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["seed=1:5:0"], "--sweep seed=1:5:0: the range 1:5:0 never arrives"),
        (["seed=5:1:1"], "never arrives"),
        (["seed=0:18446744073709551615:1"], "has 18,446,744,073,709,551,616 values; an axis has at most 10,000"),
        (["seed=1:3:1,2"], "the value 2 stands there twice"),
        (["stepz=1"], "there is no field 'stepz'"),
        (["seed=1", "Seed=2"], "--sweep seed and --sweep seed are the same field"),
        (["refiner.start=0.8", "width=64", "refiner.start_step=9"], "both say where the refiner takes over"),
    ],
)
def test_a_wrong_sweep_is_refused_in_one_sentence(given: list[str], sentence: str) -> None:
    with pytest.raises(InputError) as error:
        parsed_sweep(given, zipped=False)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            ["seed=1,2", "width=64,128,192"],
            "--zip walks through equally many values of each --sweep: seed has 2, width",
        ),
        (["seed=1,2"], "--zip walks several --sweep together"),
        ([], "--zip walks several --sweep together"),
    ],
)
def test_what_cannot_be_zipped_is_refused(given: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        parsed_sweep(given, zipped=True)


def test_a_value_that_no_spec_could_have_is_wrong_once(tsv: Path) -> None:
    with pytest.raises(InputError, match=r"^sweep width=1001: is not divisible by 8"):
        read(tsv, "Prompt\na cat\na dog\n", Expansion(sweep=sweep("width=64,1001")))


def test_a_bad_cell_is_named_and_the_others_are_rendered(tsv: Path) -> None:
    found = read(
        tsv, "Prompt\tnum_inference_steps\na dog\t10\n", Expansion(sweep=sweep("refiner.start_step=8,20"), count=3)
    )
    assert [isinstance(row, Row) for row in found] == [True, True, True, False]
    assert str(found[-1]).endswith(
        ":2: sweep refiner.start_step=20: leaves 20 of 10 steps to the base; base and refiner need one each"
    )


def test_a_swept_prompt_takes_the_place_of_the_row_s_template(tsv: Path) -> None:
    rows = rows_of(tsv, "Prompt\n{a|b}\n", Expansion(ALL, sweep=sweep("prompt={x},y")))
    assert prompts(rows) == ["{x}", "y"]
    assert len(set(seeds(rows))) == 1


def test_a_manifest_without_prompts_may_be_swept_through_some(tsv: Path) -> None:
    rows = rows_of(tsv, "Note\nx\n", Expansion(sweep=sweep("prompt=a cat,a dog")))
    assert prompts(rows) == ["a cat", "a dog"]


# Counts


def test_the_images_of_a_row_are_those_of_as_many_equal_rows(tsv: Path) -> None:
    counted = rows_of(tsv, "Prompt\na cat\na dog\n", Expansion(count=3))
    repeated = rows_of(tsv, "Prompt\n" + "a cat\n" * 3 + "a dog\n" * 3, Expansion())
    assert [row.spec for row in counted] == [row.spec for row in repeated]
    assert len(set(seeds(counted))) == 6


def test_a_seed_of_the_row_s_own_is_the_first_of_several_in_a_row(tsv: Path) -> None:
    rows = rows_of(tsv, "Prompt\tSeed\na cat\t7\n", Expansion(count=3))
    assert seeds(rows) == [7, 8, 9]
    assert seeds(rows_of(tsv, "Prompt\na cat\n", Expansion(count=2), defaults={"seed": "5"})) == [5, 6]


def test_a_column_says_how_many_for_its_row(tsv: Path) -> None:
    rows = rows_of(tsv, "Prompt\tCount\na cat\t2\na dog\t\n", Expansion(count=3))
    assert prompts(rows) == ["a cat"] * 2 + ["a dog"] * 3
    assert [row.meta for row in rows] == [{}] * 5
    assert len(rows_of(tsv, "Prompt\tN\na cat\t2\n", Expansion(), columns={"N": "count"})) == 2
    assert len(rows_of(tsv.with_suffix(".jsonl"), '{"prompt": "a cat", "count": 2}\n', Expansion())) == 2


@pytest.mark.parametrize("given", ["0", "-1", "2.5", "many", "1000001", "9" * 5_000])
def test_a_count_that_is_none_is_a_bad_row(tsv: Path, given: str) -> None:
    [bad] = bad_rows(tsv, f"Prompt\tcount\na cat\t{given}\n", Expansion())
    assert bad.startswith(':2: column "count": "')
    assert bad.endswith("is not a whole number from 1 to 1,000,000")


def test_seeds_beyond_the_greatest_are_refused(tsv: Path) -> None:
    [bad] = bad_rows(tsv, f"Prompt\tSeed\na cat\t{MAX_SEED - 1}\n", Expansion(count=3))
    assert bad.endswith(f"leaves no room for 3 seeds in a row; the greatest is {MAX_SEED}")
    assert seeds(rows_of(tsv, f"Prompt\tSeed\na cat\t{MAX_SEED - 1}\n", Expansion(count=2))) == [MAX_SEED - 1, MAX_SEED]


def test_a_wrong_seed_is_said_once(tsv: Path) -> None:
    [bad] = bad_rows(tsv, "Prompt\tSeed\na cat\tx\n", Expansion(count=3))
    assert bad == ':2: column "Seed": "x": is not a whole number'


def test_count_beside_swept_seeds_is_refused(tsv: Path) -> None:
    with pytest.raises(InputError, match="--count and --sweep seed both say"):
        Expansion(sweep=sweep("seed=1,2"), count=2)
    [bad] = bad_rows(tsv, "Prompt\tcount\na cat\t2\n", Expansion(sweep=sweep("seed=1,2")))
    assert bad == ':2: column "count": "2": says nothing beside --sweep seed, which says which seeds there are'


def test_a_grid_has_one_image_for_each_cell(tsv: Path) -> None:
    [bad] = bad_rows(tsv, "Prompt\tcount\na cat\t2\n", Expansion(), axes=parsed_axes("seed=1,2", None))
    assert "a grid has one image for each cell" in bad
    assert len(rows_of(tsv, "Prompt\tcount\na cat\t1\n", Expansion(), axes=parsed_axes("seed=1,2", None))) == 2


# All together


def test_templates_then_sweeps_then_counts(tsv: Path) -> None:
    rows = rows_of(tsv, "Prompt\na {cat|dog}\n", Expansion(ALL, sweep=sweep("width=64,128"), count=2))
    assert [(row.spec.prompt, row.spec.width) for row in rows] == [
        (prompt, width) for prompt in ("a cat", "a dog") for width in (64, 64, 128, 128)
    ]
    assert seeds(rows)[:2] == seeds(rows)[2:4]
    assert seeds(rows)[4:6] == seeds(rows)[6:]
    assert len(set(seeds(rows))) == 4


def test_each_drawing_is_swept_at_its_own_seed(tsv: Path) -> None:
    rows = rows_of(tsv, f"Prompt\n{TEMPLATED}\n", Expansion(SAMPLE, sweep=sweep("width=64,128"), count=2))
    assert prompts(rows)[0] == prompts(rows)[1]
    assert prompts(rows)[2] == prompts(rows)[3]
    assert seeds(rows)[0] == seeds(rows)[1] != seeds(rows)[2] == seeds(rows)[3]


def test_a_grid_of_templates_has_a_sheet_for_each_text(tsv: Path) -> None:
    rows = rows_of(tsv, "Prompt\na {cat|dog}\n", Expansion(ALL), axes=parsed_axes("guidance_scale=4,5", None))
    assert prompts(rows) == ["a cat", "a cat", "a dog", "a dog"]
    assert seeds(rows)[0] == seeds(rows)[1] != seeds(rows)[2] == seeds(rows)[3]


# The bound


def refusal(path: Path, content: str, expansion: Expansion, max_jobs: int) -> tuple[int, str]:
    """How many rows came before the refusal, and its sentence."""
    path.write_text(content)
    rows = read_manifest(path, ReadOptions(expansion=expansion, max_jobs=max_jobs))
    made: list[Row | BadRow] = []
    with pytest.raises(ManifestError) as error:
        made.extend(rows)
    return len(made), str(error.value)


def test_as_many_jobs_as_may_be_are_made_and_one_more_is_refused_with_the_number(tsv: Path) -> None:
    manifest, expansion = "Prompt\na {cat|dog}\na {b|c|d}\n", Expansion(ALL, sweep=sweep("width=64,128"), count=2)
    assert len(rows_of(tsv, manifest, expansion, max_jobs=20)) == 20
    num, sentence = refusal(tsv, manifest, expansion, 19)
    assert num == 8
    assert sentence == (
        "the manifest would be 20 jobs, and --max-jobs is 19: take fewer rows with --limit, ask for fewer images of"
        " each, or raise --max-jobs"
    )


def test_a_plain_manifest_is_bounded_and_counted_to_its_end(tsv: Path) -> None:
    num, sentence = refusal(tsv, "Prompt\n" + "a cat\n" * 30, Expansion(), 10)
    assert num == 10
    assert "would be 30 jobs, and --max-jobs is 10" in sentence


def test_combinations_without_end_are_refused_with_their_number_before_any_is_made(tsv: Path) -> None:
    num, sentence = refusal(tsv, "Prompt\n" + "{a|b}" * 60 + "\na cat\n", Expansion(ALL), 1_000_000)
    assert num == 0
    assert "would be 1,152,921,504,606,846,977 jobs (line 2 alone 1,152,921,504,606,846,976)" in sentence
    num, sentence = refusal(tsv, "Prompt\n" + "{a|b}" * 900 + "\n", Expansion(ALL), 1_000_000)
    assert f"would be {10**30:,} or more jobs" in sentence


def test_bad_rows_do_not_count_as_jobs(tsv: Path) -> None:
    manifest = "Prompt\tWidth\na cat\t1001\na cat\t1001\na cat\t64\n"
    assert len(read(tsv, manifest, Expansion(), max_jobs=1)) == 3


def test_memory_does_not_grow_with_what_a_row_becomes(tsv: Path) -> None:
    tsv.write_text("Prompt\n" + "{a|b}" * 12 + "\n")
    options = ReadOptions(expansion=Expansion(ALL, sweep=sweep("num_inference_steps=2:4:1")))
    rows = read_manifest(tsv, options)
    for _ in range(500):
        next(rows)
    tracemalloc.start()
    for _ in range(2_000):
        next(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    rows.close()
    assert peak < 1_000_000


# The commands


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path / "home"))
    return tmp_path


def submitted(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["submit", *map(str, arguments), "--pair", "tiny", "--json"])


def test_submit_takes_templates_sweeps_counts_and_a_bound(home: Path) -> None:
    (home / "wildcards").mkdir()
    (home / "wildcards" / "animals.txt").write_text("cat\ndog\n")
    manifest = home / "prompts.txt"
    manifest.write_text("a __animals__\na {red|blue} __animals__\n")
    expanding = ("--templates", "all", "--wildcards", home / "wildcards", "--sweep", "guidance_scale=4:8:1")
    zipped = ("--sweep", "seed=1:5:1", "--zip")
    assert json.loads(submitted(manifest, *expanding, "--count", "2").stdout)["num_jobs"] == 60
    assert json.loads(submitted(manifest, *expanding, *zipped, "--base-seed", "7").stdout)["num_jobs"] == 30
    refused = submitted(manifest, *expanding, "--max-jobs", "29")
    assert isinstance(refused.exception, ManifestError)
    assert "would be 30 jobs, and --max-jobs is 29" in str(refused.exception)


@pytest.mark.parametrize("command", ["submit", "render", "grid"])
def test_every_option_that_expands_rows_is_documented(command: str) -> None:
    options = {"--templates", "--wildcards", "--sweep", "--zip", "--count", "--base-seed", "--max-jobs"}
    found = {name for parameter in loaded(command).params for name in parameter.opts}
    assert options & found == (options if command != "grid" else options - {"--sweep", "--zip", "--count"})
    page = (Path(__file__).parents[2] / "docs" / "bulk.md").read_text()
    assert [option for option in options if f"`{option}" not in page] == []
    assert [name for name in TEMPLATE_FIELDS if f"`{name}`" not in page] == []
