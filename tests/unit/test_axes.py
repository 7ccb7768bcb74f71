"""Axes of a grid: how they are written, what they replace in a row, and that all cells of a row share its seed."""

from pathlib import Path

import pytest

from producer.expanding.axes import AxisValue, filled, parsed_axes
from producer.manifests.manifest import BadRow, ReadOptions, Row, read_manifest
from schemas.errors import InputError


def texts(x: str) -> list[str]:
    return [value.text for value in parsed_axes(x, None).x.values]


def cell(*axes: str) -> tuple[AxisValue, ...]:
    """The first cell of these axes."""
    return next(parsed_axes(axes[0], axes[1] if len(axes) > 1 else None).cells)


def grid(path: Path, content: str, x: str, y: str | None = None, **options: object) -> list[Row | BadRow]:
    path.write_text(content)
    return list(read_manifest(path, ReadOptions(axes=parsed_axes(x, y), **options)))


def rows_of(path: Path, content: str, x: str, y: str | None = None, **options: object) -> list[Row]:
    found = grid(path, content, x, y, **options)
    assert not [str(row) for row in found if isinstance(row, BadRow)]
    return [row for row in found if isinstance(row, Row)]


def bad_rows(path: Path, content: str, x: str, y: str | None = None, **options: object) -> list[str]:
    return [str(row).removeprefix(f"{path}") for row in grid(path, content, x, y, **options)]


@pytest.fixture
def tsv(tmp_path: Path) -> Path:
    return tmp_path / "prompts.tsv"


# How they are written


def test_a_field_is_named_as_set_names_it() -> None:
    axes = parsed_axes("Refiner.Start=off, 0.8 ,0.9", "Guidance Scale=5")
    assert (axes.x.field, axes.y and axes.y.field) == ("refiner.start", "guidance_scale")
    assert [str(value) for value in axes.x.values] == ["refiner.start=off", "refiner.start=0.8", "refiner.start=0.9"]


def test_cells_go_from_left_to_right_then_down() -> None:
    found = [" ".join(value.text for value in cell) for cell in parsed_axes("seed=1,2", "width=64,128").cells]
    assert found == ["1 64", "2 64", "1 128", "2 128"]


def test_a_value_with_a_comma_stands_in_quotes() -> None:
    assert texts('prompt="a cat, asleep", a dog ,"say ""hi"", fox", 5" pipe') == [
        "a cat, asleep",
        "a dog",
        'say "hi", fox',
        '5" pipe',
    ]


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        ("refiner.start", None, "--x refiner.start: an axis is FIELD=VALUE,VALUE"),
        ("=1", None, "an axis is FIELD=VALUE,VALUE"),
        ("stepz=1,2", None, "--x stepz=1,2: there is no field 'stepz'; fields are prompt"),
        ("seed=1,,2", None, "--x seed=1,,2: a value is empty"),
        ("seed=", None, "a value is empty"),
        ("seed=1,2,", None, "a value is empty"),
        ("seed=1,2,1", None, "the value 1 stands there twice"),
        ('prompt=cat,"cat"', None, "the value cat stands there twice"),
        ('prompt="a "b,c', None, "cannot tell where the value"),
        ('prompt="a,b', None, "cannot tell where the value"),
        ("seed=" + ",".join(map(str, range(21))), None, "at most 20 values, not 21"),
        ("seed=1", "Seed=2", "--x seed and --y seed are the same field"),
        ("refiner.start=0.8", "refiner.start_step=9", "both say where the refiner takes over"),
        ("refiner.start=off,0.8", "refiner.mode=off,ensemble", "both say whether there is a refiner"),
        ("seed=1", "nope=2", "--y nope=2: there is no field 'nope'"),
        ("seed=\x1b[31m", "seed=\x1b[31m", "are the same field"),
        ("\x1b[31m=1", None, r"there is no field '\\\\x1b\[31m'"),
    ],
)
def test_a_wrong_axis_is_refused_in_one_sentence(x: str, y: str | None, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as error:
        parsed_axes(x, y)
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)


# What they replace


def test_off_is_the_base_alone_and_drops_what_else_the_row_says_of_the_refiner() -> None:
    row = {"prompt": "cat", "refiner.start_percent": "85", "refiner.aesthetic_score": "7", "refiner.mode": "ensemble"}
    assert filled(row, cell("refiner.start=off"), {}) == {"prompt": "cat", "refiner.mode": "off"}
    assert filled(row, cell("refiner.mode=off"), {}) == {"prompt": "cat", "refiner.mode": "off"}


def test_a_start_takes_the_place_of_the_other_starts_and_of_a_mode_without_one() -> None:
    row = {"refiner.start_step": "9", "refiner.mode": "img2img", "refiner.strength": "0.4", "refiner.prompt": "fur"}
    assert filled(row, cell("refiner.start=0.9"), {}) == {
        "refiner.start": "0.9",
        "refiner.mode": "ensemble",
        "refiner.prompt": "fur",
    }


def test_a_mode_drops_what_says_nothing_in_it_from_the_other_axis_too() -> None:
    assert filled({"refiner.start": "0.9"}, cell("refiner.mode=img2img"), {}) == {"refiner.mode": "img2img"}
    assert filled({}, cell("refiner.mode=off", "refiner.start=0.9"), {}) == {"refiner.mode": "off"}
    assert filled({}, cell("refiner.start=off", "refiner.aesthetic_score=7"), {}) == {"refiner.mode": "off"}


def test_an_axis_that_says_nothing_of_the_mode_leaves_it_to_the_row(tsv: Path) -> None:
    manifest = "Prompt\trefiner.mode\na cat\toff\n"
    assert bad_rows(tsv, manifest, "refiner.aesthetic_score=7,8") == [
        ":2: axis refiner.aesthetic_score=7: says nothing with refiner.mode off",
        ":2: axis refiner.aesthetic_score=8: says nothing with refiner.mode off",
    ]


def test_an_axis_wins_over_the_row_and_over_set(tsv: Path) -> None:
    manifest = "Prompt\tguidance_scale\na cat\t9\na dog\t\n"
    rows = rows_of(tsv, manifest, "guidance_scale=3,4", defaults={"guidance_scale": "8", "refiner.start": "0.9"})
    assert [row.spec.guidance_scale for row in rows] == [3, 4, 3, 4]
    assert {row.spec.refiner.start for row in rows} == {0.9}


def test_a_default_gives_way_cell_by_cell(tsv: Path) -> None:
    manifest, picture = "Prompt\na cat\n", "ab" * 32
    rows = rows_of(tsv, manifest, f"init_image=none,{picture}", defaults={"strength": "0.5"})
    assert [row.spec.strength for row in rows] == [None, 0.5]
    rows = rows_of(tsv, manifest, "output.format=png,webp", defaults={"output.quality": "90"})
    assert [row.spec.output.quality for row in rows] == [None, 90]


def test_what_a_row_says_to_the_base_is_dropped_where_an_axis_leaves_the_refiner_alone() -> None:
    row = {"init_image": "cat.png", "strength": "0.5", "prompt_2": "fur", "refiner.prompt": "fur"}
    assert filled(row, cell("refiner.mode=only"), {}) == {
        "init_image": "cat.png",
        "refiner.prompt": "fur",
        "refiner.mode": "only",
    }


def test_a_rows_own_strength_without_a_picture_is_refused_in_a_grid_too(tsv: Path) -> None:
    [bad] = bad_rows(tsv, "Prompt\tStrength\na cat\t0.5\n", "guidance_scale=4,5", defaults={"strength": "0.3"})
    assert bad.startswith(':2: column "Strength": "0.5": says nothing without an init_image')


def test_a_default_that_is_wrong_beside_an_axis_value_names_both(tsv: Path) -> None:
    [bad] = bad_rows(tsv, "Prompt\na cat\n", "guidance_scale=1,5", defaults={"negative_prompt": "blurry"})
    assert bad == (
        ":2: --set negative_prompt=blurry: says nothing unless guidance_scale is above 1 (axis guidance_scale=1)"
    )


def test_none_leaves_an_optional_field_out_and_in_quotes_it_is_text(tsv: Path) -> None:
    manifest = "Prompt\tNegative prompt\na cat\tblurry\n"
    rows = rows_of(tsv, manifest, 'negative_prompt=none,"none","",dog')
    assert [row.spec.negative_prompt for row in rows] == [None, "none", "", "dog"]
    labels = [value.label for value in parsed_axes('negative_prompt=none,"none","",dog', None).x.values]
    assert labels == ["none", '"none"', '""', "dog"]


@pytest.mark.parametrize("field", ["width", "seed", "refiner.start", "refiner.start_step", "refiner.mode"])
def test_none_is_no_value_of_a_field_that_must_have_one(tsv: Path, field: str) -> None:
    with pytest.raises(InputError, match=f"axis {field}=none: "):
        grid(tsv, "Prompt\na cat\n", f"{field}=none")


def test_formats_stand_side_by_side_and_a_quality_may_be_left_out(tsv: Path) -> None:
    rows = rows_of(tsv, "Prompt\na cat\n", "output.quality=none,80", defaults={"output.format": "webp"})
    assert [row.spec.output.quality for row in rows] == [None, 80]
    assert len({row.spec.seed for row in rows}) == 1


def test_a_scheduler_option_and_loras_may_be_left_out(tsv: Path) -> None:
    manifest = "Prompt\tscheduler_options.timestep_spacing\na cat\tlinspace\n"
    rows = rows_of(tsv, manifest, "scheduler_options.timestep_spacing=none,trailing")
    assert [row.spec.scheduler_options for row in rows] == [(), (("timestep_spacing", "trailing"),)]
    assert parsed_axes("loras=none", None).x.values[0].fields == {}


# What is refused, and where it is said


@pytest.mark.parametrize("value", ["refiner.start=off,1.5", "width=64,1001", "scheduler=euler,nope", "seed=1,x"])
def test_a_value_that_no_spec_could_have_is_wrong_once(tsv: Path, value: str) -> None:
    field, wrong = value.split("=", maxsplit=1)[0], value.split(",")[1]
    with pytest.raises(InputError, match=f"^axis {field}={wrong}: "):
        grid(tsv, "Prompt\na cat\na dog\n", value)


def test_a_bad_cell_is_named_by_file_line_and_axis_value_once_for_all_seeds(tsv: Path) -> None:
    manifest = "Prompt\tnum_inference_steps\na cat\t40\na dog\t10\n"
    rows = grid(tsv, manifest, "refiner.start_step=8,20,32", "seed=1,2")
    assert [isinstance(row, Row) for row in rows] == [True] * 6 + [False] * 2
    assert [str(row).removeprefix(str(tsv)) for row in rows[6:]] == [
        f":3: axis refiner.start_step={step}: leaves {step} of 10 steps to the base; base and refiner need one each"
        for step in (20, 32)
    ]


def test_a_field_that_is_wrong_beside_an_axis_value_names_both(tsv: Path) -> None:
    manifest = "Prompt\tNegative\na cat\tblurry\n"
    [bad] = bad_rows(tsv, manifest, "guidance_scale=1,5", columns={"negative": "negative_prompt"})
    assert bad == (
        ':2: column "Negative": "blurry": says nothing unless guidance_scale is above 1 (axis guidance_scale=1)'
    )


def test_what_is_wrong_with_the_row_itself_is_said_once_and_without_the_axes(tsv: Path) -> None:
    [bad] = bad_rows(tsv, "Prompt\tWidth\na cat\t1001\n", "seed=1,2,3", "guidance_scale=4,5")
    assert bad.startswith(':2: column "Width": "1001": is not divisible by 8')
    assert "axis" not in bad


def test_more_cells_than_the_bound_are_refused_with_the_numbers(tsv: Path) -> None:
    manifest = "Prompt\n" + "a cat\n" * 4
    assert len(rows_of(tsv, manifest, "seed=1,2", "width=64,128", max_jobs=16)) == 16
    with pytest.raises(InputError, match="would be 16 jobs, and --max-jobs is 15: take fewer rows with --limit"):
        grid(tsv, manifest, "seed=1,2", "width=64,128", max_jobs=15)
    assert len(rows_of(tsv, manifest, "seed=1,2", "width=64,128", max_jobs=15, limit=3)) == 12


# The seed


def test_all_cells_of_a_row_have_the_seed_that_the_row_has_without_the_axes(tsv: Path) -> None:
    manifest = "Prompt\tWidth\na cat\t64\na cat\t64\na dog\t128\n"
    plain = [row.spec.seed for row in read_manifest(tsv_with(tsv, manifest), ReadOptions()) if isinstance(row, Row)]
    rows = rows_of(tsv, manifest, "refiner.start=off,0.8,0.9", "guidance_scale=4,5")
    assert [row.spec.seed for row in rows] == [seed for seed in plain for _ in range(6)]
    assert len(set(plain)) == 3  # the second cat is another picture


def tsv_with(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def test_a_cell_with_the_row_s_own_values_is_the_row_s_own_image(tsv: Path) -> None:
    manifest = "Prompt\na cat\n"
    [plain] = read_manifest(tsv_with(tsv, manifest), ReadOptions(base_seed=5))
    off, same = rows_of(tsv, manifest, "refiner.start=off,0.8", base_seed=5)
    assert isinstance(plain, Row)
    assert (same.spec.digest, same.repeat) == (plain.spec.digest, 0)
    assert (off.spec.refiner.mode, off.spec.seed) == ("off", plain.spec.seed)


def test_cells_share_a_seed_where_the_row_is_no_spec_without_the_axes(tsv: Path) -> None:
    rows = rows_of(tsv, "Note\nx\n", "prompt=a cat,a dog")
    assert [row.spec.prompt for row in rows] == ["a cat", "a dog"]
    assert len({row.spec.seed for row in rows}) == 1


def test_seeds_on_an_axis_are_those_of_the_axis(tsv: Path) -> None:
    rows = rows_of(tsv, "Prompt\tSeed\na cat\t9\na dog\t\n", "seed=1,2")
    assert [row.spec.seed for row in rows] == [1, 2, 1, 2]


def test_cells_with_equal_specs_are_images_of_their_own(tsv: Path) -> None:
    rows = rows_of(tsv, "Prompt\na cat\n", "refiner.start=off,0.8", "refiner.aesthetic_score=4,8")
    assert [row.spec.refiner.mode for row in rows] == ["off", "ensemble", "off", "ensemble"]
    assert rows[0].spec == rows[2].spec
    assert [row.repeat for row in rows] == [0, 0, 1, 0]


def test_an_axis_of_ratios_takes_the_place_of_the_rows_sides_and_the_other_way_round() -> None:
    (portrait, _) = parsed_axes("aspect_ratio=2:3,3:2", None).cells
    assert filled({"width": 512, "height": 512, "seed": 1}, portrait, {}) == {"aspect_ratio": "2:3", "seed": 1}
    (small, *_) = parsed_axes("width=512,640", "height=512").cells
    assert filled({"aspect_ratio": "2:3"}, small, {}) == {"width": "512", "height": "512"}
