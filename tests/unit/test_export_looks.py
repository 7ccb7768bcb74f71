"""Pictures that an export leaves out for what they show."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.spec import JobSpec
from tests.unit.export_farm import ExportFarm, shapes

#: what the job of this seed shows
BLACK, GREY, TWIN = 2, 3, 5


def pictures(spec: JobSpec) -> Image.Image:
    """Black and grey ones with a watermark's grain; one that is the first picture, a little brighter."""
    grain = np.random.default_rng(spec.seed).integers(0, 4, (spec.height, spec.width, 3), dtype=np.uint8)
    if spec.seed == BLACK:
        return Image.fromarray(grain)
    if spec.seed == GREY:
        return Image.fromarray(grain + 120)
    if spec.seed == TWIN:
        first = shapes(spec.model_copy(update={"seed": 1}))
        return first.point(lambda value: min(255, value + 3))
    return shapes(spec)


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> ExportFarm:
    found = ExportFarm(tmp_path_factory.mktemp("farm") / "home")
    found.batch(
        [{"prompt": f"cat {n}", "output": {"format": ("png", "jpeg")[n % 2]}} for n in range(6)], picture=pictures
    )
    return found


@pytest.mark.parametrize(
    ("without", "left_out"),
    [
        ("black", {"1/2": {"reason": "black"}}),
        ("blank", {"1/2": {"reason": "blank"}, "1/3": {"reason": "blank"}}),
        ("duplicates", {"1/5": {"reason": "duplicate", "of": "1/1"}}),
        (
            "black,blank,duplicates",
            {"1/2": {"reason": "black"}, "1/3": {"reason": "blank"}, "1/5": {"reason": "duplicate", "of": "1/1"}},
        ),
    ],
)
def test_what_shows_nothing_or_the_same_is_left_out_and_listed(
    farm: ExportFarm, tmp_path: Path, without: str, left_out: dict[str, dict[str, str]]
) -> None:
    answer = farm.export(1, "--format", "csv", "--to", tmp_path / "set", "--without", without)
    lines = map(json.loads, (tmp_path / "set" / "left_out.jsonl").read_text().splitlines())
    assert {line.pop("job"): line for line in lines} == left_out
    assert answer["num_images"] == 6 - len(left_out)
    rows = (tmp_path / "set" / "data" / "train-00000-of-00001.csv").read_text()
    assert all(f",{job}," not in rows for job in left_out)


def test_nothing_is_looked_at_unless_it_is_asked_for(farm: ExportFarm, tmp_path: Path) -> None:
    assert farm.export(1, "--format", "csv", "--to", tmp_path / "set")["num_images"] == 6
    assert not (tmp_path / "set" / "left_out.jsonl").exists()
