"""JobSpec: bounds, identity, and what its JSON looks like."""

import json
from typing import Any

import pytest

from schemas.errors import SpecError
from schemas.refiner import Refiner
from schemas.schedulers import SCHEDULERS, short_scheduler_name
from schemas.spec import JobSpec

DIGESTS = {
    '{"prompt":"a cat","seed":"1"}': "815e301ec8334e7709d469992d4b2587ee01fd5fb016adba45ec566ca017762e",
    '{"guidance_scale":7.5,"height":256,"negative_prompt":"","num_inference_steps":12,"prompt":"äö 猫",'
    '"refiner":{"start":0.9},"scheduler":"DDIMScheduler","seed":"18446744073709551615","width":320}':
    "2791b59c3bf0ea4ee7e70aad66a1af3b4462a5865ed901f700680b4fa89b3e51",
}  # fmt: skip
FULL = {
    "prompt": "äö 猫",
    "negative_prompt": "",
    "width": "320",
    "height": 256,
    "num_inference_steps": 12,
    "guidance_scale": "7.5",
    "scheduler": "DDIM",
    "refiner": {"start": 0.9},
    "seed": str(2**64 - 1),
}


SHA256 = "0123456789abcdef" * 4
SIZES = {"negative_original_size": [512, 512], "negative_target_size": [512, 512]}


def spec(**fields: Any) -> JobSpec:
    return JobSpec.parse({"prompt": "a cat", "seed": 1, **fields})


def refusal(**fields: Any) -> str:
    with pytest.raises(SpecError) as error:
        spec(**fields)
    return str(error.value)


def test_canonical_json_and_digest_are_pinned() -> None:
    made = [spec(), JobSpec.parse(FULL)]
    assert {one.canonical: one.digest for one in made} == DIGESTS


def test_fields_at_their_default_change_no_digest() -> None:
    defaults = {"negative_prompt": None, "prompt_syntax": "plain", "width": 1024, "height": "1024", "guidance_scale": 5,
                "num_inference_steps": 40, "scheduler": "euler", "scheduler_options": {},
                "refiner": {"start": 0.8, "start_step": None, "handoff": "lossless"},
                "output": {"format": "png", "quality": None}}  # fmt: skip
    assert spec(**defaults).digest == spec().digest


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a cat "},
        {"negative_prompt": ""},
        {"prompt_syntax": "compel"},
        {"width": 1032},
        {"height": 1032},
        {"num_inference_steps": 41},
        {"guidance_scale": 5.1},
        {"scheduler": "euler a"},
        {"scheduler_options": {"use_karras_sigmas": True}},
        {"scheduler_options": {"use_karras_sigmas": False}},
        {"prompt_2": "watercolour"},
        {"negative_prompt": "dark", "negative_prompt_2": "oil"},
        {"guidance_rescale": 0.7},
        {"clip_skip": 1},
        {"original_size": [512, 768]},
        {"target_size": "512,768"},
        {"crops_coords_top_left": [0, 64]},
        SIZES,
        {**SIZES, "negative_crops_coords_top_left": [8, 0]},
        {"init_image": SHA256, "strength": 0.4},
        {"loras": [{"name": "pixel-art", "sha256": SHA256}]},
        {"refiner": {"mode": "off"}},
        {"refiner": {"mode": "img2img"}},
        {"refiner": {"mode": "img2img", "strength": 0.4}},
        {"refiner": {"mode": "only"}, "init_image": SHA256},
        {"refiner": {"guidance_scale": 3}},
        {"refiner": {"prompt": "sharp"}},
        {"refiner": {"negative_prompt": ""}},
        {"refiner": {"handoff": "diffusers"}},
        {"refiner": {"start_step": 32}},
        {"refiner": {"start_percent": 80}},
        {"refiner": {"start": 0.81}},
        {"refiner": {"aesthetic_score": 6.1}},
        {"refiner": {"negative_aesthetic_score": 2.4}},
        {"output": {"format": "webp"}},
        {"output": {"format": "jpeg"}},
        {"seed": 2},
    ],
)
def test_every_field_changes_the_digest(change: dict[str, Any]) -> None:
    assert spec(**change).digest != spec().digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"refiner": {"mode": "off"}}, {"refiner": {"mode": "off", "start": None}}),
        ({"guidance_scale": 0}, {"guidance_scale": -0.0}),
        ({"output": {"format": "jpeg"}}, {"output": {"format": "jpeg", "quality": 95}}),
        ({"scheduler": "euler karras"}, {"scheduler": "Euler", "scheduler_options": {"use_karras_sigmas": "true"}}),
    ],
)
def test_one_image_said_in_two_ways_has_one_digest(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert spec(**one).digest == spec(**other).digest


def test_the_seed_is_text_in_json_and_survives_the_round_trip() -> None:
    largest = spec(seed=2**64 - 1)
    assert json.loads(largest.canonical)["seed"] == "18446744073709551615"
    assert JobSpec.from_json(largest.canonical) == largest
    assert JobSpec.from_json(largest.canonical).seed == 2**64 - 1


def test_a_full_spec_survives_the_round_trip() -> None:
    in_steps = {"scheduler": "unipc beta", "scheduler_options": {"solver_order": 3}, "refiner": {"start_percent": 85}}
    rich = {"prompt_2": "oil", "original_size": "512,768", **SIZES, "init_image": SHA256, "strength": 0.5,
            "loras": [{"name": "a b", "sha256": SHA256, "weight": -0.5}], "refiner": {"mode": "img2img"}}  # fmt: skip
    for full in (JobSpec.parse(FULL), JobSpec.parse(FULL | in_steps), JobSpec.parse(FULL | rich)):
        assert JobSpec.from_json(full.canonical) == full
        assert JobSpec.parse(full.model_dump(mode="json")) == full
        assert hash(JobSpec.parse(full.model_dump(mode="json"))) == hash(full)


def test_the_content_without_seed_is_the_canonical_content_less_the_seed() -> None:
    content = json.loads(JobSpec.parse(FULL).canonical)
    del content["seed"]
    assert JobSpec.parse(FULL).content_without_seed == content


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"width": 1001}, "width: 1001: is not divisible by 8; the nearest sides are 1000 and 1008"),
        ({"width": 56}, "width: 56: should be greater than or equal to 64"),
        ({"height": "4104"}, "height: '4104': should be less than or equal to 4096"),
        ({"width": 256.0}, "width: 256.0: should be a valid integer"),
        ({"width": True}, "width: True: should be a valid integer"),
        ({"width": "256.0"}, "width: '256.0': is not a whole number"),
        ({"width": "2_56"}, "is not a whole number"),
        ({"width": "²"}, "is not a whole number"),
        ({"width": None}, "width: should be a valid integer"),
        ({"num_inference_steps": 0}, "should be greater than or equal to 1"),
        ({"num_inference_steps": 1000}, "should be less than or equal to 999"),
        ({"guidance_scale": -0.1}, "should be greater than or equal to 0"),
        ({"guidance_scale": 101}, "should be less than or equal to 100"),
        ({"guidance_scale": float("nan")}, "should be a finite number"),
        ({"guidance_scale": "inf"}, "should be a finite number"),
        ({"guidance_scale": "1_0"}, "guidance_scale: '1_0': is not a number"),
        ({"guidance_scale": True}, "should be a valid number"),
        ({"seed": -1}, "seed: -1: is not between 0 and 18446744073709551615"),
        ({"seed": 2**64}, "seed: 18446744073709551616: is not between 0 and 18446744073709551615"),
        ({"seed": "9" * 31}, "is not a whole number"),
        ({"prompt": ""}, "prompt: '': should have at least 1 character"),
        ({"prompt": "x" * 20_001}, "(20001 characters): should have at most 20000 characters"),
        ({"prompt": "a\0b"}, "contains a NUL character"),
        ({"prompt": "cat \ud800"}, "contains half a surrogate pair ('\\ud800' at character 5)"),
        ({"negative_prompt": 5}, "negative_prompt: 5: should be a valid string"),
        ({"prompt_syntax": "weights"}, "prompt_syntax: 'weights': should be 'plain' or 'compel'"),
        ({"scheduler": "fastest"}, "unknown scheduler 'fastest'; known are \"euler\""),
        ({"refiner": {"start": 0}}, "refiner.start: 0: should be greater than 0"),
        ({"refiner": {"start": 1.0}}, "refiner.start: 1.0: should be less than 1"),
        ({"refiner": {"mode": "on"}}, "refiner.mode: 'on': should be 'ensemble', 'img2img', 'only' or 'off'"),
        ({"refiner": {"aesthetic_score": 11}}, "refiner.aesthetic_score: 11: should be less than or equal to 10"),
        ({"refiner": {"start_step": 0}}, "refiner.start_step: 0: should be greater than or equal to 1"),
        ({"refiner": {"start_step": 40}}, "refiner.start_step: 40: leaves 40 of 40 steps to the base; base and"),
        ({"refiner": {"start_percent": 1}}, "refiner.start_percent: 1.0: leaves 0 of 40 steps to the base"),
        ({"refiner": {"start_percent": 99}}, "refiner.start_percent: 99.0: leaves 40 of 40 steps to the base"),
        ({"refiner": {"start_percent": 100}}, "refiner.start_percent: 100: should be less than 100"),
        ({"refiner": {"start": 0.8, "start_step": 3}}, "needs one of start, start_step, start_percent, and has start"),
        ({"refiner": {"start": None}}, "needs one of start, start_step, start_percent, and has none"),
        ({"refiner": {"handoff": "diffusers", "start_step": 3}},
         "refiner.handoff: 'diffusers': knows start only, and not start_step"),
        ({"refiner": {"strat": 0.8}}, "refiner.strat: is not a field of a spec"),
        ({"wdith": 256}, "wdith: is not a field of a spec"),
        ({"prompt_2": ""}, "prompt_2: '': should have at least 1 character"),
        ({"clip_skip": 0}, "clip_skip: 0: should be greater than or equal to 1"),
        ({"guidance_rescale": 1.1}, "should be less than or equal to 1"),
        ({"original_size": "512x768"}, "original_size: '512x768': should be two whole numbers with a comma"),
        ({"target_size": [512]}, "should be two whole numbers"),
        ({"crops_coords_top_left": [0, -1]}, "crops_coords_top_left.1: -1: should be greater than or equal to 0"),
        ({"init_image": "cat.png"}, "init_image: 'cat.png': should match pattern"),
        ({"init_image": SHA256, "strength": 0}, "strength: 0: should be greater than 0"),
        ({"loras": [{"name": "a", "sha256": SHA256}] * 2}, "name a twice"),
        ({"loras": [{"name": "../a", "sha256": SHA256}]}, "loras.0.name: '../a': should match pattern"),
        ({"loras": [{"name": "a", "sha256": SHA256, "weight": 11}]}, "loras.0.weight: 11: should be less than"),
        ({"loras": [{"name": "a"}]}, "loras.0.sha256: is missing"),
        ({"loras": [{"name": f"a{n}", "sha256": f"{n:064}"} for n in range(9)]}, "should have at most 8 items"),
    ],
)  # fmt: skip
def test_what_is_out_of_bounds_is_refused_with_the_reason(fields: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(**fields)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"guidance_scale": 1, "negative_prompt": ""}, "negative_prompt: '': says nothing unless guidance_scale is"),
        ({"guidance_scale": 1, **SIZES}, "negative_target_size: (512, 512): says nothing unless the base's"),
        ({"guidance_scale": 1, "negative_original_size": "8,8"}, "negative_original_size: (8, 8): says nothing unless"),
        ({"guidance_scale": 1, "refiner": {"guidance_scale": 3}, "negative_prompt": "a", "negative_prompt_2": "b"},
         "negative_prompt_2: 'b': says nothing unless the base's guidance_scale is above 1"),
        ({"guidance_scale": 1, "refiner": {"guidance_scale": 3, "negative_prompt": "a"}, "negative_prompt": "b"},
         "negative_prompt: 'b': says nothing unless guidance_scale is above 1"),
        ({"refiner": {"guidance_scale": 1, "negative_aesthetic_score": 3}},
         "refiner.negative_aesthetic_score: 3.0: says nothing unless the refiner's guidance_scale is above 1"),
        ({"init_image": SHA256, "refiner": {"mode": "only"}, "negative_target_size": "8,8"},
         "negative_target_size: (8, 8): is the base's"),
        ({"init_image": SHA256, "refiner": {"mode": "only", "negative_prompt": "a"}, "negative_prompt": "b"},
         "negative_prompt: 'b': says nothing unless"),
        ({"scheduler": "dpm++ 2m karras", "scheduler_options": {"timestep_spacing": "trailing"}},
         "scheduler_options.timestep_spacing: 'trailing': says nothing beside use_karras_sigmas"),
        ({"scheduler": "dpm++ 2m", "scheduler_options": {"solver_order": 1, "solver_type": "heun"}},
         "scheduler_options.solver_type: 'heun': says nothing with solver_order 1"),
        ({"scheduler": "deis", "scheduler_options": {"solver_order": 1, "lower_order_final": False}},
         "scheduler_options.lower_order_final: False: says nothing with solver_order 1"),
        ({"num_inference_steps": 122, "scheduler_options": {"timestep_spacing": "trailing"}}, "trailing; 120 would be"),
        ({"loras": [{"name": "a", "sha256": SHA256, "weight": 0}]}, "loras.0.weight: 0: changes nothing; leave"),
        ({"loras": [{"name": "a", "sha256": SHA256, "weight": "1e-400"}]}, "loras.0.weight: '1e-400': changes nothing"),
        ({"guidance_scale": 1, "guidance_rescale": 0.5}, "guidance_rescale: 0.5: says nothing unless the base's"),
        ({"guidance_scale": 5, "refiner": {"guidance_scale": 1, "negative_prompt": "x"}},
         "refiner.negative_prompt: 'x': says nothing unless the refiner's guidance_scale is above 1"),
        ({"negative_prompt_2": "x"}, "negative_prompt_2: 'x': says nothing without a negative_prompt"),
        ({"negative_target_size": "9,9"}, "negative_target_size: (9, 9): says nothing without negative_original_size"),
        ({"negative_crops_coords_top_left": "0,0"},
         "negative_crops_coords_top_left: (0, 0): says nothing without negative_original_size and neg"),
        ({"clip_skip": 1, "prompt_syntax": "compel"}, "clip_skip: 1: is not possible with prompt_syntax compel"),
        ({"strength": 0.5}, "strength: 0.5: says nothing without an init_image; that of two stages is refiner.str"),
        ({"init_image": SHA256}, "strength: is missing: an init_image needs it"),
        ({"init_image": SHA256, "strength": 0.01}, "strength: 0.01: leaves none of 40 steps"),
        ({"init_image": SHA256, "strength": 0.5, "refiner": {"start_step": 20}},
         "refiner.start_step: 20: leaves 0 of 40 steps to the base"),
        ({"num_inference_steps": 61, "scheduler_options": {"timestep_spacing": "trailing"}},
         "num_inference_steps: 61: gets one step too many from diffusers with timestep_spacing trailing"),
        ({"refiner": {"mode": "only"}}, "refiner.mode: 'only': needs an init_image"),
        ({"init_image": SHA256, "strength": 0.5, "refiner": {"mode": "only"}},
         "strength: 0.5: is the base's, which has no part with refiner.mode only; the refiner's is refiner.strength"),
        ({"init_image": SHA256, "clip_skip": 1, "refiner": {"mode": "only"}}, "clip_skip: 1: is the base's"),
        ({"refiner": {"strength": 0.3}}, "refiner.strength: 0.3: says nothing with refiner.mode ensemble"),
        ({"refiner": {"mode": "img2img", "start": 0.8}}, "refiner.start: 0.8: says nothing with refiner.mode img2img"),
        ({"refiner": {"mode": "img2img", "strength": 0.02}}, "refiner.strength: 0.02: leaves none of 40 steps"),
        ({"refiner": {"mode": "img2img", "handoff": "diffusers"}}, "says nothing with refiner.mode img2img"),
        ({"refiner": {"mode": "off", "start": 0.9}}, "refiner.start: 0.9: says nothing with refiner.mode off"),
        ({"refiner": {"mode": "off", "prompt": "x"}}, "refiner.prompt: 'x': says nothing with refiner.mode off"),
        ({"refiner": {"mode": "off", "aesthetic_score": 5}}, "refiner.aesthetic_score: 5.0: says nothing with"),
    ],
)  # fmt: skip
def test_what_diffusers_would_ignore_is_refused_by_name(fields: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"width": 64, "height": 4096},
        {"num_inference_steps": 60, "scheduler_options": {"timestep_spacing": "trailing"}},
        {"num_inference_steps": 61, "scheduler": "dpm++ 2m", "scheduler_options": {"use_lu_lambdas": True}},
        {"init_image": SHA256, "refiner": {"mode": "only"}, "negative_original_size": "8,8"},
        {"guidance_scale": 1, "refiner": {"guidance_scale": 3}, "negative_original_size": "8,8"},
        {"num_inference_steps": 61, "scheduler": "euler karras", "scheduler_options": {"timestep_spacing": "trailing"}},
        {"refiner": {"mode": "off", "start": 0.8, "start_step": None, "strength": None, "aesthetic_score": 6}},
        {"refiner": {"guidance_scale": 1.5, "negative_prompt": "x"}, "guidance_scale": 1},
        {"refiner": {"mode": "only", "negative_prompt": "x"}, "init_image": SHA256},
        {"init_image": SHA256, "strength": 1, "refiner": {"mode": "img2img", "strength": 1}},
        {"init_image": SHA256, "strength": 0.55, "refiner": {"start_step": 20}},
        {"num_inference_steps": 999},
        {"guidance_scale": 0},
        {"guidance_scale": "1e1"},
        {"seed": 0},
        {"prompt": "x" * 20_000},
        {"refiner": {"start": 1e-6, "aesthetic_score": 10, "negative_aesthetic_score": 0}},
    ],
)
def test_the_bounds_themselves_are_allowed(fields: dict[str, Any]) -> None:
    spec(**fields)


def test_every_wrong_field_is_named_at_once_also_as_data() -> None:
    with pytest.raises(SpecError) as error:
        JobSpec.parse({"width": 7, "refiner": {"start": 2}})
    assert [problem.field for problem in error.value.problems] == ["prompt", "width", "refiner.start", "seed"]
    assert error.value.problems[1].value == 7
    assert str(error.value).count("; ") == 3


def test_a_spec_and_its_refiner_are_frozen() -> None:
    one = spec()
    with pytest.raises(ValueError, match="frozen"):
        one.width = 8  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        one.refiner.start = 0.5  # type: ignore[misc]


@pytest.mark.parametrize("short", list(SCHEDULERS))
def test_a_scheduler_has_a_short_name_and_its_diffusers_name(short: str) -> None:
    full = SCHEDULERS[short]
    for name in (short, short.upper(), short.replace(" ", "_"), full, full.lower(), f" {short} "):
        assert spec(scheduler=name).scheduler == full
    assert short_scheduler_name(full) == short


def test_jobs_that_may_share_a_forward_pass_share_a_pack_key() -> None:
    assert spec(prompt="b", seed=2, negative_prompt="c", clip_skip=1).pack_key == spec().pack_key
    changes = (
        {"guidance_scale": 4},
        {"refiner": {"mode": "off"}},
        {"width": 512},
        {"height": 512},
        {"num_inference_steps": 3},
        {"scheduler": "ddim"},
        {"scheduler_options": {"use_karras_sigmas": True}},
        {"scheduler_options": {"use_beta_sigmas": True}},
        {"loras": [{"name": "a", "sha256": SHA256}]},
        {"loras": [{"name": "a", "sha256": SHA256, "weight": 0.5}]},
    )
    assert len({spec(**change).pack_key for change in ({}, *changes)}) == 11


def test_the_longest_pack_key_fits_its_column() -> None:
    longest = {
        "loras": [{"name": "a", "sha256": SHA256}],
        "scheduler": "EulerAncestralDiscreteScheduler",
        "scheduler_options": {"timestep_spacing": "trailing"},
        "guidance_scale": 4,
    }
    assert len(spec(width=4096, height=4096, num_inference_steps=999, **longest).pack_key) <= 120


@pytest.mark.parametrize(("percent", "num_base_steps"), [(80, 20), (90, 23), (50, 13), (2, 1), ("97.5", 24)])
def test_a_share_of_the_steps_is_rounded_to_whole_steps(percent: Any, num_base_steps: int) -> None:
    one = spec(num_inference_steps=25, refiner={"start_percent": percent})
    assert one.refiner.num_base_steps(one.num_inference_steps) == num_base_steps


def test_the_defaults_are_those_of_the_field() -> None:
    one = spec()
    assert (one.width, one.height, one.num_inference_steps, one.guidance_scale) == (1024, 1024, 40, 5.0)
    assert one.refiner == Refiner(mode="ensemble", start=0.8, aesthetic_score=6.0, negative_aesthetic_score=2.5)
