"""Which jobs come together: the pack key, the shape that a device takes on, and packs."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest

from farm.odd_shapes import odd_shape_seconds
from farm.packing import joined, packs_of
from schemas.pack_key import pack_key, shape_of
from schemas.spec import JobSpec
from worker.passes.forward_passes import split

SHA256 = "0123456789abcdef" * 4
USUAL = "1024x1024/40/EulerDiscreteScheduler"


@dataclass
class Job:
    id: int
    pack_key: str
    isolated: bool = False


def spec(**fields: Any) -> JobSpec:
    return JobSpec.parse({"prompt": "a fox", "seed": 1, **fields})


def jobs(*keys: str) -> list[Job]:
    return [Job(place, key) for place, key in enumerate(keys)]


def sizes_of_passes(specs: list[JobSpec]) -> set[int]:
    pending = [Job(place, one.pack_key) for place, one in enumerate(specs)]
    packs = joined(packs_of(pending, 8), 8)
    passes = [split([specs[place] for place in pack.ids], [1] * len(pack.ids), 8) for pack in packs]
    return {len(one) for of_pack in passes for one in of_pack}


@pytest.mark.parametrize(
    "swept",
    [
        [{"refiner": {"mode": "off"}}, {"refiner": {"start": 0.8}}],
        [{"guidance_scale": scale} for scale in (4, 5, 6, 7, 8)],
        [{"guidance_scale": 1}, {"guidance_scale": 1, "refiner": {"guidance_scale": 3}}, {}],
        [{"init_image": SHA256, "strength": 0.5}, {"init_image": SHA256, "strength": 0.6}, {}],
        [{"refiner": {"handoff": "diffusers"}, "original_size": f"{side},8"} for side in (8, 16, 24)],
    ],
)
def test_what_a_pass_is_told_once_may_be_swept_and_all_passes_are_full(swept: list[dict[str, Any]]) -> None:
    rows = [spec(prompt=f"cat {n}", seed=seed, **fields) for n, seed, fields in product(range(16), (1, 2), swept)]
    assert sizes_of_passes(rows) == {8}


@pytest.mark.parametrize("fields", [{"guidance_scale": 4}, {"guidance_rescale": 0.7}, {"refiner": {"mode": "off"}},
                                    {"init_image": SHA256, "strength": 0.5}])  # fmt: skip
def test_a_device_keeps_its_shape_while_what_it_is_told_changes(fields: dict[str, Any]) -> None:
    key = spec(**fields).pack_key
    assert key != USUAL
    assert shape_of(key) == USUAL


@pytest.mark.parametrize("fields", [{"guidance_scale": 1}, {"guidance_scale": 0.5}, {"refiner": {"guidance_scale": 1}},
                                    {"refiner": {"mode": "off"}, "guidance_scale": 1}])  # fmt: skip
def test_a_pass_without_guidance_is_of_another_shape(fields: dict[str, Any]) -> None:
    assert shape_of(spec(**fields).pack_key) != USUAL
    assert shape_of(spec(**fields, width=512).pack_key).startswith("512x1024/40/EulerDiscreteScheduler/")


def test_a_side_without_a_part_has_no_guidance_to_miss() -> None:
    alone = {"mode": "only", "guidance_scale": 5.0}
    assert shape_of(spec(init_image=SHA256, guidance_scale=1, refiner=alone).pack_key) == USUAL


def test_keys_of_jobs_that_wait_since_an_earlier_version_are_as_they_were() -> None:
    lora = {"loras": [{"name": "a", "sha256": SHA256}]}
    assert pack_key(spec(prompt="b", seed=2)) == USUAL
    assert pack_key(spec(**lora)) == f"{USUAL}/7f2301dd3aa4caa3"
    for key in (USUAL, f"{USUAL}/0123456789abcdef"):
        assert shape_of(key) == key


def test_keys_that_have_too_few_jobs_share_a_pack_if_they_are_of_one_shape() -> None:
    keys = [f"{USUAL}//{n:016x}" for n in range(3)]
    made = joined(packs_of(jobs(*keys, "512x512/40/x", *keys, USUAL), 8), 8)
    assert [(pack.pack_key, pack.ids) for pack in made] == [(keys[0], [0, 4, 1, 5, 2, 6, 7]), ("512x512/40/x", [3])]


def test_a_key_that_has_too_few_jobs_is_never_torn_apart() -> None:
    keys = [f"{USUAL}//{n:016x}" for n in range(3)]
    made = joined(packs_of(jobs(*keys[:1] * 5, *keys[1:2] * 4, *keys[2:] * 3), 8), 8)
    assert [pack.ids for pack in made] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9, 10, 11]]


def test_an_isolated_job_shares_its_pack_with_nobody() -> None:
    suspects = [Job(place, USUAL, isolated=place in (1, 2)) for place in range(4)]
    assert [pack.ids for pack in joined(packs_of(suspects, 8), 8)] == [[0, 3], [1], [2]]


def test_long_packs_may_be_passed_over_for_longer() -> None:
    assert [odd_shape_seconds(seconds, 4) for seconds in (0, 7.5, 20, 70)] == [60, 60, 160, 560]
    assert odd_shape_seconds(20, 10) == 400
