"""What the form for a prompt to try carries over from a job."""

from typing import Any

import pytest

from producer.web.page.try_form import carried, row_of, shown_of
from schemas.spec import JobSpec

LORA = {"name": "pixel-art", "weight": 0.7, "sha256": "a" * 64}
SPECS: tuple[dict[str, Any], ...] = (
    {},
    {"negative_prompt": ""},
    {"negative_prompt": "rain", "guidance_scale": 7.123456789},
    {"prompt": "two\nlines ", "prompt_syntax": "compel", "guidance_rescale": 0.5},
    {"scheduler": "DPM++ 2M Karras", "refiner": {"start": 0.9, "aesthetic_score": 7}, "width": 768, "clip_skip": 2},
    {"refiner": {"start_step": 30}, "output": {"format": "webp", "quality": 80}, "prompt_2": "oil"},
    {"refiner": {"mode": "img2img"}, "loras": [LORA], "original_size": [512, 512]},
    {"refiner": {"mode": "off"}, "init_image": "b" * 64, "strength": 0.4, "seed": 2**64 - 1},
    {"prompt": "as\r\nit\rwas"},
)


def job_spec(fields: dict[str, Any]) -> JobSpec:
    return JobSpec.parse({"prompt": "a cat", "seed": 7, **fields})


def sent(spec: JobSpec, **changed: str) -> dict[str, str]:
    """The form as a browser sends it, and as it is read."""
    shown = {name: text.replace("\r\n", "\n").replace("\r", "\n") for name, text in shown_of(spec).items()}
    return {**shown, **{one.box: "on" for one in carried(spec)}, **changed}


@pytest.mark.parametrize("fields", SPECS)
def test_a_form_that_is_sent_as_it_came_asks_for_the_very_spec_of_its_job(fields: dict[str, Any]) -> None:
    spec = job_spec(fields)
    assert JobSpec.parse(row_of(sent(spec), spec)).digest == spec.digest


@pytest.mark.parametrize("fields", SPECS)
def test_a_box_that_is_not_ticked_drops_its_field(fields: dict[str, Any]) -> None:
    spec = job_spec(fields)
    for one in carried(spec):
        given = sent(spec)
        del given[one.box]
        assert one.name not in row_of(given, spec)
        assert [other.is_kept for other in carried(spec, given)].count(False) == 1


def test_what_is_changed_in_the_form_wins_over_the_job() -> None:
    spec = job_spec({"negative_prompt": "", "seed": 3, "refiner": {"start": 0.9}})
    row = row_of(sent(spec, prompt="a dog", negative_prompt="rain", seed=""), spec)
    assert row == {"prompt": "a dog", "negative_prompt": "rain", "refiner": {"start": 0.9}}


def test_the_refiner_is_switched_off_with_all_that_it_was_told_and_on_as_usual() -> None:
    with_refiner, without = job_spec({"refiner": {"start": 0.9}}), job_spec({"refiner": {"mode": "off"}})
    given = sent(with_refiner)
    del given["refiner"]
    assert row_of(given, with_refiner)["refiner"] == {"mode": "off"}
    assert "refiner" not in row_of(sent(without, refiner="on"), without)


def test_no_negative_prompt_and_an_empty_one_are_told_apart() -> None:
    assert [one.name for one in carried(job_spec({"negative_prompt": ""}))] == ["negative_prompt"]
    assert carried(job_spec({})) == []
    assert "negative_prompt" not in row_of(sent(job_spec({})), job_spec({}))
