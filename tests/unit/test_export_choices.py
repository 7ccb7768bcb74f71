"""How an export chooses, captions and splits, and which pictures look alike: without a ledger."""

import io
import json
import random
import tarfile
from typing import Any

import pytest

from producer.exports.captions import Caption
from producer.exports.exported_fields import KINDS, SPEC_KINDS, full_spec, spec_values
from producer.exports.near_duplicates import NearDuplicates
from producer.exports.plain_prompts import without_weights
from producer.exports.shards import key_of
from producer.exports.splits import Splits
from producer.exports.tally import MOST_VALUES, Spread
from producer.exports.tar_stream import TarStream
from producer.exports.where import Where
from schemas.errors import InputError
from schemas.loras import Lora
from schemas.schedulers import OPTION_NAMES
from schemas.spec import JobSpec

SPECS: list[dict[str, Any]] = [
    {},
    {"seed": 2**64 - 1, "negative_prompt": "", "clip_skip": 2, "original_size": "768,1024"},
    {"scheduler": "DPM++ 2M Karras", "scheduler_options": {"solver_order": 3}},
    {"refiner": {"mode": "img2img"}},
    {"refiner": {"mode": "off"}},
    {"refiner": {"start_step": 30, "guidance_scale": 7.5}},
    {"output": {"format": "jpeg"}},
    {"output": {"format": "webp", "quality": 80}},
    {"loras": [Lora(name="pixel art", sha256="a" * 64), Lora(name="film", sha256="b" * 64, weight=-0.5)]},
    {"refiner": {"mode": "only"}, "init_image": "a" * 64},
    {"guidance_scale": 1.0},
    {"guidance_scale": 1.0, "refiner": {"guidance_scale": 5.0, "handoff": "diffusers"}},
]


def spec(**fields: Any) -> JobSpec:
    return JobSpec.parse({"prompt": "a red fox", "seed": 1, **fields})


def row(job_spec: JobSpec) -> dict[str, Any]:
    return {**dict.fromkeys(KINDS), **spec_values(job_spec.canonical), "job": "3/17"}


def said(fields: dict[str, Any]) -> dict[str, Any]:
    """Without what is None."""
    kept = {name: value for name, value in fields.items() if value is not None}
    return {name: said(value) if isinstance(value, dict) else value for name, value in kept.items()}


@pytest.mark.parametrize("fields", SPECS)
def test_a_spec_that_is_read_quickly_is_the_same_spec(fields: dict[str, Any]) -> None:
    job_spec = spec(**fields)
    full, whole = full_spec(job_spec.canonical), job_spec.model_dump(mode="json")
    assert JobSpec.from_json(json.dumps(said(full))) == job_spec
    assert (full.keys(), full["refiner"].keys()) == (whole.keys(), whole["refiner"].keys())
    values = spec_values(job_spec.canonical)
    assert set(values) == set(SPEC_KINDS)
    assert values["output.quality"] == job_spec.output.quality
    assert values["seed"] == str(job_spec.seed)


AESTHETIC = ("aesthetic_score", "negative_aesthetic_score")


@pytest.mark.parametrize(
    ("fields", "silent"),
    [
        ({}, []),
        ({"refiner": {"start_step": 30}}, ["start"]),
        ({"refiner": {"mode": "img2img"}}, ["start", "handoff"]),
        ({"refiner": {"mode": "only"}, "init_image": "a" * 64}, ["start", "handoff"]),
        ({"refiner": {"mode": "off"}}, ["start", "handoff", *AESTHETIC]),
        ({"guidance_scale": 1.0}, [AESTHETIC[1]]),
        ({"guidance_scale": 1.0, "refiner": {"guidance_scale": 5.0}}, []),
    ],
)
def test_a_field_that_says_nothing_beside_the_others_has_no_value(fields: dict[str, Any], silent: list[str]) -> None:
    """Its default would say that an image without a refiner had one."""
    canonical = spec(**fields).canonical
    refiner, values = full_spec(canonical)["refiner"], spec_values(canonical)
    for name in ("start", "handoff", *AESTHETIC):
        assert (refiner[name] is None, values[f"refiner.{name}"] is None) == (name in silent, name in silent)
    only = spec(**fields).refiner.mode == "only"
    assert (full_spec(canonical)["guidance_rescale"], values["guidance_rescale"]) == ((None, None) if only else (0, 0))


def test_sizes_and_loras_are_written_as_manifests_write_them() -> None:
    assert row(spec(**SPECS[1]))["original_size"] == "768,1024"
    assert row(spec(**SPECS[8]))["loras"] == "pixel art:1, film:-0.5"
    assert row(spec(**SPECS[2]))["scheduler_options.use_karras_sigmas"] is True


def test_every_kind_of_column_is_known() -> None:
    assert SPEC_KINDS["width"] == "int"
    assert SPEC_KINDS["clip_skip"] == "int"
    assert SPEC_KINDS["refiner.start"] == "float"
    assert SPEC_KINDS["scheduler_options.use_karras_sigmas"] == "bool"
    assert SPEC_KINDS["loras"] == SPEC_KINDS["seed"] == "text"
    assert {f"scheduler_options.{name}" for name in OPTION_NAMES} <= set(SPEC_KINDS)


def test_of_a_number_that_is_another_one_in_each_row_only_the_range_is_kept() -> None:
    spread = Spread()
    for value in range(MOST_VALUES):
        spread.add(value / 1000)
    spread.add(0.5)
    counted = spread.counted(MOST_VALUES + 1)
    assert (len(counted), counted["0.5"], counted["0.999"]) == (MOST_VALUES, 2, 1)
    for value in range(100_000):
        spread.add(9.5 - value / 100_000)
    assert spread.counted(101_001) == {"0.0 to 9.5, more than 1,000 values": 101_001}
    assert len(spread._counted) == MOST_VALUES + 1


KARRAS = {"scheduler": "DPM++ 2M Karras", "num_inference_steps": 30}


@pytest.mark.parametrize(
    ("text", "fields", "holds"),
    [
        ("num_inference_steps>=30", {}, True),
        ("num_inference_steps>40", {}, False),
        ("num_inference_steps<=39.5", {}, False),
        (" Num Inference Steps = 40 ", {}, True),
        ("scheduler=euler", {}, True),
        ("scheduler!=euler", KARRAS, True),
        ("scheduler=DPM++ 2M Karras", KARRAS, True),
        ("scheduler=dpm++ 2m", KARRAS, True),
        ("scheduler=DPM++ 2M Karras", {"scheduler": "dpm++ 2m"}, False),
        ("scheduler~multistep", KARRAS, True),
        ("refiner.mode=off", {"refiner": {"mode": "off"}}, True),
        ("refiner.start<0.85", {}, True),
        ("refiner.start<0.85", {"refiner": {"start_step": 30}}, False),
        ("refiner.start=0.8", {"refiner": {"mode": "off"}}, False),
        ("refiner.aesthetic_score=", {"refiner": {"mode": "off"}}, True),
        ("prompt~RED", {}, True),
        ("prompt~blue", {}, False),
        ("prompt=a red fox", {}, True),
        ("prompt=a red", {}, False),
        ("negative_prompt=", {}, True),
        ("negative_prompt!=", {"negative_prompt": "blurry"}, True),
        ("clip_skip!=2", {}, True),
        ("clip_skip>1", {}, False),
        ("seed=18446744073709551615", {"seed": 2**64 - 1}, True),
        ("seed>9", {"seed": 10}, True),
        ("seed<9", {"seed": 10}, False),
        ("scheduler_options.use_karras_sigmas=true", KARRAS, True),
        ("meta.Art style=oil", {}, True),
        ("meta.art_style=oil", {}, True),
        ("meta.rating>=8", {}, True),
        ("meta.rating>8.5", {}, False),
        ("meta.Art style>3", {}, False),
        ("meta.none=", {}, True),
        ("original_size=768,1024", {"original_size": "768,1024"}, True),
    ],
)
def test_a_comparison_holds_or_does_not(text: str, fields: dict[str, Any], holds: bool) -> None:
    meta = {"Art style": "oil", "rating": "8.5"}
    assert Where.parse(text).holds(row(spec(**fields)), meta) is holds


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("steps>=30", "there is no column 'steps'; columns are job, prompt,"),
        ("prompt", "is no comparison; NAME=VALUE would be one"),
        ("=3", "is no comparison"),
        ("meta.=3", "there is no column 'meta.'"),
        ("width>wide", "'wide' is not a number"),
        ("width=nan", "'nan' is not a number"),
        ("width=1_024", "'1_024' is not a number"),
        ("prompt>a", "prompt has no order"),
        ("scheduler=eulr", "eulr"),
        ("scheduler_options.use_karras_sigmas=yes", "is true or false, not 'yes'"),
        ("prompt~", "every text contains an empty one"),
        ("__import__('os').system('true')=1", "there is no column"),
    ],
)
def test_a_comparison_that_is_none_is_one_sentence(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=r"^--where ") as raised:
        Where.parse(text)
    assert reason in str(raised.value)


def caption(text: str, keeps_weights: bool = False, meta: dict[str, str] | None = None, **fields: Any) -> str:
    return Caption.parse(text, keeps_weights=keeps_weights).of(row(spec(**fields)), meta or {})


def test_a_caption_is_a_column_or_a_template_on_one_line() -> None:
    assert caption("prompt", prompt=" a fox\r\n\tin snow ") == "a fox in snow"
    assert caption("{prompt}, {meta.Art style} {{{width}}}", meta={"Art style": "oil"}) == "a red fox, oil {1024}"
    assert caption("meta.text", meta={"Text": "from the manifest"}) == "from the manifest"


def test_weights_are_no_words_of_a_caption_unless_they_are_kept() -> None:
    weighted = {"prompt": "a (red)1.3 fox++", "prompt_syntax": "compel"}
    assert caption("{prompt} by {seed}", **weighted) == "a red fox by 1"
    assert caption("prompt", keeps_weights=True, **weighted) == "a (red)1.3 fox++"
    assert caption("prompt", prompt="a (red)1.3 fox++") == "a (red)1.3 fox++"


@pytest.mark.parametrize(
    ("prompt", "plain"),
    [
        ("a (red)1.3 fox++, at night-", "a red fox, at night"),
        ("(a (very big)++ fox)0.8 in snow", "a very big fox in snow"),
        ('("a fox", "a cat").blend(0.3, 0.7)', "a fox, a cat"),
        ('("a fox", "in snow").and(1, 0.5)', "a fox, in snow"),
        (r"a fox \(vulpes\), c\+\+", "a fox (vulpes), c++"),
        ("a well-known fox, 1.5 m - tall", "a well-known fox, 1.5 m - tall"),
        ("a fox withLora(pixel, 0.5) asleep", "a fox asleep"),
        ("a (cat).swap(dog) asleep", "a cat asleep"),
    ],
)
def test_compels_syntax_becomes_plain_text(prompt: str, plain: str) -> None:
    assert without_weights(prompt) == plain


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{prmpt}", "there is no column 'prmpt'"),
        ("{prompt.__class__}", "there is no column 'prompt.__class__'"),
        ("{prompt!r}", "only names stand in braces"),
        ("{prompt:>90000000}", "only names stand in braces"),
        ("{prompt", "cannot be read"),
        ("{{fixed}}", "names no column"),
        ("{}", "there is no column ''"),
    ],
)
def test_a_template_that_is_none_is_one_sentence(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=r"^--caption ") as raised:
        Caption.parse(text, keeps_weights=False)
    assert reason in str(raised.value)


def test_a_job_without_a_caption_is_named() -> None:
    with pytest.raises(InputError, match=r"^job 3/17 has no caption: its meta.text is empty"):
        caption("meta.text")


def test_splits_take_their_shares_and_keep_a_prompt_together() -> None:
    splits = Splits.parse("train=0.9, test=0.1")
    found = [splits.of(f"cat {n}") for n in range(4000)]
    assert 320 < found.count("test") < 480
    assert found == [splits.of(f"cat {n}") for n in range(4000)]
    larger = Splits.parse("train=0.95,test=0.05")
    assert all(larger.of(f"cat {n}") == "train" for n in range(4000) if found[n] == "train")


@pytest.mark.parametrize(
    "text", ["train", "train=0.9", "train=0.5,train=0.5", "train=1,test=0", "a/b=1", "train=x", ""]
)
def test_splits_that_are_none_are_one_sentence(text: str) -> None:
    with pytest.raises(InputError, match=r"^--split .*; train=0.9,test=0.1 would be right$"):
        Splits.parse(text)


@pytest.mark.parametrize("distance", [0, 3, 7])
def test_near_hashes_are_found_and_others_are_not(distance: int) -> None:
    """Held against a comparison of everything with everything."""
    draw = random.Random(distance)
    hashes = [draw.getrandbits(64) for _ in range(150)]
    for _ in range(150):
        flipped = sum(1 << bit for bit in draw.sample(range(64), draw.randint(0, 9)))
        hashes.append(draw.choice(hashes) ^ flipped)
    near, kept = NearDuplicates(distance), []
    for image_hash in hashes:
        expected = [place for place, other in enumerate(kept) if (other ^ image_hash).bit_count() <= distance]
        found = near.find(image_hash)
        assert (found in expected) if expected else found is None
        if not expected:
            kept.append(image_hash)
    assert 150 < len(kept) < 300


def test_keys_are_the_shards_number_and_the_place_in_it() -> None:
    assert [key_of(place, 10_000) for place in (0, 12, 10_002)] == ["000000000", "000000012", "000010002"]
    assert [key_of(place, 500) for place in (12, 502)] == ["00000012", "00001002"]


def test_the_tar_is_the_one_that_the_standard_library_would_write() -> None:
    ours, theirs = io.BytesIO(), io.BytesIO()
    tar = TarStream(ours)
    with tarfile.open(fileobj=theirs, mode="w", format=tarfile.USTAR_FORMAT) as reference:
        for name, content in (("000000000.png", b"x" * 512), ("000000000.txt", b""), ("000000000.json", b"{}" * 4000)):
            tar.add(name, content)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            reference.addfile(info, io.BytesIO(content))
    tar.finish()
    assert ours.getvalue() == theirs.getvalue()
    assert tar.num_bytes == len(ours.getvalue())
