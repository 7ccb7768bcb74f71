"""Which jobs share a forward pass."""

import pytest

from schemas.spec import JobSpec
from worker.passes.forward_passes import padded_size, pass_key, split

SHA256 = "0123456789abcdef" * 4


def spec(**fields):
    return JobSpec.parse({"prompt": "a fox", "seed": 1, **fields})


def test_equal_jobs_share_passes_up_to_the_limit():
    specs = [spec(seed=seed) for seed in range(7)]
    assert split(specs, [1] * 7, limit=4) == [[0, 1, 2, 3], [4, 5], [6]]
    assert split(specs, [1] * 7, limit=3) == [[0, 1], [2, 3], [4, 5], [6]]


def test_order_is_kept_within_a_pass_and_between_first_jobs():
    specs = [spec(guidance_scale=scale) for scale in (5.0, 7.0, 5.0, 7.0, 5.0)]
    assert split(specs, [1] * 5, limit=8) == [[0, 2], [4], [1, 3]]


@pytest.mark.parametrize(
    "fields",
    [
        {"width": 512},
        {"height": 512},
        {"num_inference_steps": 20},
        {"scheduler": "DDIMScheduler"},
        {"scheduler_options": {"timestep_spacing": "trailing"}},
        {"refiner": {"handoff": "diffusers"}},
        {"refiner": {"start_step": 32}},
        {"guidance_scale": 4.0},
        {"refiner": {"mode": "off"}},
        {"refiner": {"start": 0.9}},
        {"refiner": {"guidance_scale": 4}},
        {"guidance_rescale": 0.5},
        {"init_image": SHA256, "strength": 0.5},
        {"refiner": {"mode": "img2img"}},
        {"loras": [{"name": "a", "sha256": SHA256}]},
    ],
)
def test_what_is_decided_once_for_all_images_separates_passes(fields):
    assert split([spec(), spec(**fields)], [1, 1], limit=8) == [[0], [1]]


@pytest.mark.parametrize("fields", [{"original_size": "8,8"}, {"crops_coords_top_left": "8,8"},
                                    {"refiner": {"aesthetic_score": 7.0}}])  # fmt: skip
def test_what_diffusers_pipelines_take_once_for_all_images_separates_theirs(fields):
    assert split([spec(), spec(**fields)], [1, 1], limit=8) == [[0, 1]]
    theirs = [spec(refiner={"handoff": "diffusers"}), spec(**fields | {"refiner": {"handoff": "diffusers"}
                                                                      | fields.get("refiner", {})})]  # fmt: skip
    assert split(theirs, [1, 1], limit=8) == [[0], [1]]


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "a cat"},
        {"prompt_2": "oil"},
        {"negative_prompt": "blur"},
        {"seed": 2},
        {"clip_skip": 1},
        {"negative_original_size": "8,8", "negative_target_size": "8,8"},
        {"refiner": {"prompt": "a cat", "negative_prompt": ""}},
        {"refiner": {"negative_aesthetic_score": 1.0}},
        {"output": {"format": "webp"}},
    ],
)
def test_what_belongs_to_one_image_separates_nothing(fields):
    assert split([spec(), spec(**fields)], [1, 1], limit=8) == [[0, 1]]


def test_prompts_of_unequal_length_never_share_a_pass():
    assert split([spec(), spec(), spec()], [1, 2, 1], limit=8) == [[0, 2], [1]]
    assert pass_key(spec(), 1) != pass_key(spec(), 2)


def test_every_job_is_in_exactly_one_pass():
    specs = [spec(guidance_scale=float(index % 3 + 2), seed=index) for index in range(20)]
    passes = split(specs, [1 + index % 2 for index in range(20)], limit=2)
    assert sorted(index for one in passes for index in one) == list(range(20))
    assert max(map(len, passes)) == 2


def test_nothing_gives_no_pass():
    assert split([], [], limit=4) == []


def test_a_limit_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        split([spec()], [1], limit=0)


def test_a_count_for_each_spec_is_asked_for():
    with pytest.raises(ValueError, match="zip"):
        split([spec()], [], limit=1)


@pytest.mark.parametrize(
    ("num", "limit", "passes"),
    [
        (8, 8, [(8, 8)]), (7, 8, [(7, 8)]), (6, 8, [(6, 8)]), (5, 8, [(4, 4), (1, 1)]), (3, 8, [(3, 4)]),
        (2, 8, [(1, 1), (1, 1)]), (19, 8, [(8, 8), (8, 8), (3, 4)]), (3, 2, [(2, 2), (1, 1)]), (2, 1, [(1, 1)] * 2),
        (11, 6, [(4, 4), (4, 4), (3, 4)]),
    ],
)  # fmt: skip
def test_padded_passes_have_one_of_three_sizes_and_waste_a_quarter_at_the_most(num, limit, passes):
    found = split([spec(seed=seed) for seed in range(num)], [1] * num, limit, pads=True)
    assert [(len(one), padded_size(len(one), limit)) for one in found] == passes
    assert sorted(index for one in found for index in one) == list(range(num))
