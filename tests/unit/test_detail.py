"""A spec in one line."""

import pytest

from producer.reports.detail import detail
from schemas.spec import JobSpec


@pytest.mark.parametrize(
    ("refiner", "said"),
    [
        ({}, " · refiner 0.8"),
        ({"mode": "off"}, ""),
        ({"start_step": 30}, " · refiner after 30 steps"),
        ({"start_percent": 85}, " · refiner after 85 % of the steps"),
        ({"mode": "img2img"}, " · refiner at strength 0.3"),
        ({"mode": "only", "strength": 0.25}, " · refiner alone at strength 0.25"),
    ],
)
def test_every_way_to_use_the_refiner_is_said(refiner: dict[str, object], said: str) -> None:
    picture = {"init_image": "a" * 64} if refiner.get("mode") == "only" else {}
    spec = JobSpec.parse({"prompt": "cat", "seed": 7, "refiner": refiner, **picture})
    assert detail(spec) == f"1024×1024 · euler · 40 steps{said} · seed 7"


def test_fields_are_left_out_by_name() -> None:
    spec = JobSpec.parse({"prompt": "cat", "seed": 7})
    assert detail(spec, {"seed", "refiner.start", "width"}) == "euler · 40 steps · guidance 5"
