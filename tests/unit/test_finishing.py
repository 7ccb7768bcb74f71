"""From pixels to a stored file, with the real encoder, the stock watermark decoder, and a real folder."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imwatermark import WatermarkDecoder
from PIL import Image
from PIL.JpegImagePlugin import get_sampling

from farm.image_file import read_image_file
from farm.image_store import ImageStore
from farm.watermark import WATERMARK_BITS, num_bits_read, put_watermark
from schemas.provenance import Environment, Provenance
from schemas.records import ClaimedJob, FinishedImage
from schemas.spec import JobSpec
from worker.image_files.finishing import FileMaker, Finisher, Unfinished

ENVIRONMENT = Environment(
    pair="tiny",
    pair_fingerprint="f" * 64,
    base="models/base: one, two",
    base_revision="abc",
    base_hash="0123456789",
    refiner="models/refiner",
    refiner_revision=None,
    refiner_hash="9876543210",
    license="CreativeML Open RAIL++-M",
    versions={"nightshift": "0.1.0"},
    device="cpu",
    dtype="float32",
    attention_backend="sdpa",
)
PROVENANCE = Provenance(
    handoff="lossless", forward_pass_size=1, base_steps=32, refiner_steps=8, handoff_sigma=0.5, prompt_chunks=1,
    refiner_prompt_chunks=1, watermark_bits=None,
)  # fmt: skip


def picture(height: int, width: int) -> np.ndarray:
    """Some colour and some texture. With stronger contrasts the stock code loses a few of its 48 bits."""
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([128 + 20 * np.sin(x / (50 + n) + n) * np.cos(y / (65 - n)) for n in range(3)], axis=-1)
    texture = np.random.default_rng(7).normal(0, 4, (height, width, 3))
    return (waves + texture).clip(0, 255).astype(np.uint8)


def finished(folder: Path, pixels: np.ndarray, watermark: bool = True, **fields: object) -> FinishedImage:
    spec = JobSpec.parse({"prompt": "a cat", "seed": 7, "width": 512, "height": 512, **fields})
    job = ClaimedJob(1, spec.canonical, {"Category": "cats"}, 0)
    finisher = Finisher(ImageStore(str(folder)), FileMaker(ENVIRONMENT, watermark, 6))
    return finisher.finish(Unfinished(job, spec, pixels, PROVENANCE, 1.0))


def path_of(image: FinishedImage) -> Path:
    return Path(image.image.uri.removeprefix("file://"))


def opened(image: FinishedImage) -> Image.Image:
    return Image.open(path_of(image))


def test_the_stock_decoder_reads_the_watermark_from_the_saved_file(tmp_path: Path) -> None:
    image = finished(tmp_path, picture(512, 512))
    with opened(image) as saved:
        bgr = np.asarray(saved)[:, :, ::-1]
    assert tuple(WatermarkDecoder("bits", 48).decode(bgr, "dwtDct")) == tuple(bool(bit) for bit in WATERMARK_BITS)
    assert image.provenance["watermark_bits"] == 48


def test_an_unmarked_picture_does_not_read_as_marked() -> None:
    assert num_bits_read(picture(512, 512)) < 40
    assert num_bits_read(put_watermark(picture(512, 512))) == 48


def test_a_pair_without_watermark_stores_the_pixels_as_they_were_rendered(tmp_path: Path) -> None:
    pixels = picture(512, 512)
    image = finished(tmp_path, pixels, watermark=False)
    with opened(image) as saved:
        assert np.array_equal(np.asarray(saved), pixels)
    assert image.provenance["watermark_bits"] is None


def test_a_picture_too_small_for_the_mark_goes_without_and_says_so(tmp_path: Path) -> None:
    assert finished(tmp_path, picture(64, 64)).provenance["watermark_bits"] is None


FORMATS = [
    {"format": "png"}, {"format": "webp"}, {"format": "webp", "quality": 90}, {"format": "jpeg"},
    {"format": "jpeg", "quality": 30},
]  # fmt: skip


@pytest.mark.parametrize("output", FORMATS)
def test_what_is_recorded_is_what_lies_in_the_store(tmp_path: Path, output: dict[str, Any]) -> None:
    image = finished(tmp_path, picture(256, 320), output=output)
    content, stored = path_of(image).read_bytes(), image.image
    assert (stored.sha256, stored.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert (stored.width, stored.height, stored.format) == (320, 256, output["format"])
    assert path_of(image).suffix == (".jpg" if output["format"] == "jpeg" else f".{output['format']}")
    file = read_image_file(path_of(image))
    assert (file.width, file.height, file.format) == (320, 256, output["format"])
    assert file.nightshift_record()["provenance"] == image.provenance


@pytest.mark.parametrize("output", FORMATS[:2])
def test_a_lossless_file_gives_back_the_pixels_that_were_encoded(tmp_path: Path, output: dict[str, Any]) -> None:
    image = finished(tmp_path, picture(256, 320), output=output)
    with opened(image) as saved:
        pixels = np.asarray(saved)
    assert np.array_equal(pixels, put_watermark(picture(256, 320)))
    assert image.image.pixel_sha256 == hashlib.sha256(pixels.tobytes()).hexdigest()


def test_the_hash_of_the_pixels_does_not_depend_on_the_format(tmp_path: Path) -> None:
    images = [finished(tmp_path, picture(256, 256), output=output).image for output in FORMATS]
    assert len({image.pixel_sha256 for image in images}) == 1
    assert len({image.sha256 for image in images}) == len(FORMATS)


@pytest.mark.parametrize("output", FORMATS)
def test_the_bits_recorded_are_those_that_the_stock_decoder_reads_from_the_file(
    tmp_path: Path, output: dict[str, Any]
) -> None:
    image = finished(tmp_path, picture(512, 512), output=output)
    with opened(image) as saved:
        read = WatermarkDecoder("bits", 48).decode(np.asarray(saved)[:, :, ::-1], "dwtDct")
    num_bits = sum(int(bit) == wanted for bit, wanted in zip(read, WATERMARK_BITS, strict=True))
    assert image.provenance["watermark_bits"] == num_bits
    assert (num_bits == 48) == (output.get("quality") is None)  # low quality loses the mark; colours are where it lies


def test_a_jpeg_keeps_its_colours_in_full_resolution(tmp_path: Path) -> None:
    with opened(finished(tmp_path, picture(64, 64), output={"format": "jpeg"})) as saved:
        assert get_sampling(saved) == 0  # 4:4:4


def test_the_parameters_text_is_as_a1111_writes_it(tmp_path: Path) -> None:
    with opened(finished(tmp_path, picture(256, 256), prompt="a cat", negative_prompt="blurry")) as saved:
        text = saved.text["parameters"]
    assert text == (
        "a cat\nNegative prompt: blurry\nSteps: 40, Sampler: Euler, CFG scale: 5, Seed: 7, Size: 512x512,"
        ' Model hash: 0123456789, Model: "models/base: one, two", Refiner: models/refiner [9876543210],'
        " Refiner switch at: 0.8, Handoff: lossless, Base steps: 32, Refiner steps: 8, Handoff sigma: 0.5,"
        " Version: nightshift 0.1.0"
    )


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"scheduler": "DPM++ 2M Karras"}, "Sampler: DPM++ 2M, Schedule type: Karras, CFG scale"),
        ({"scheduler_options": {"timestep_spacing": "trailing", "final_sigmas_type": "zero"}},
         "Sampler: Euler, Scheduler options: final_sigmas_type=zero timestep_spacing=trailing, CFG scale"),
        ({"scheduler": "DPM++ 2M SDE Karras"}, "Sampler: DPM++ 2M SDE, Schedule type: Karras, CFG scale"),
        ({"refiner": {"start_step": 32}}, "Refiner switch at: 0.8, Handoff: lossless, Base steps: 32"),
        ({"refiner": {"mode": "img2img", "strength": 0.25}},
         "Refiner: models/refiner [9876543210], Refiner strength: 0.25, Handoff:"),
        ({"init_image": "0" * 64, "strength": 0.5}, "Size: 512x512, Denoising strength: 0.5, Model hash"),
        ({"init_image": "0" * 64, "strength": 0.5, "refiner": {"start_step": 30}}, "Refiner switch at: 0.75,"),
        ({"init_image": "0" * 64, "refiner": {"mode": "only", "guidance_scale": 3}},
         "CFG scale: 3, Seed: 7, Size: 512x512, Model hash: 9876543210, Model: models/refiner,"),
        ({"clip_skip": 1, "guidance_rescale": 0.7}, "Clip skip: 3, CFG rescale: 0.7, Model hash"),
        ({"loras": [{"name": "a b", "sha256": "0" * 64, "weight": -0.5}, {"name": "c", "sha256": "1" * 64}]},
         'Loras: "<lora:a b:-0.5> <lora:c:1>", Model hash'),
        ({"refiner": {"mode": "off"}}, 'Model: "models/base: one, two", Version'),
    ],
)  # fmt: skip
def test_the_parameters_say_how_the_schedule_went(tmp_path: Path, fields: dict[str, object], sentence: str) -> None:
    with opened(finished(tmp_path, picture(64, 64), **fields)) as saved:
        assert sentence in saved.text["parameters"]


@pytest.mark.parametrize(
    "prompt", ["ein Fuchs im Schnee, gemütlich", "雪の中の狐", 'quotes " and \\ and\nnew lines', "🦊"]
)
def test_any_prompt_comes_back_whole_from_the_file(tmp_path: Path, prompt: str) -> None:
    with opened(finished(tmp_path, picture(64, 64), prompt=prompt, seed=2**64 - 1)) as saved:
        record = json.loads(saved.text["nightshift"])
        assert saved.text["parameters"].startswith(prompt)
    assert JobSpec.from_json(json.dumps(record["spec"])).prompt == prompt
    assert record["spec"]["seed"] == str(2**64 - 1)
    assert record["meta"] == {"Category": "cats"}


@pytest.mark.parametrize("output", FORMATS)
def test_the_same_picture_gives_the_same_file(tmp_path: Path, output: dict[str, Any]) -> None:
    first, second = (finished(tmp_path / name, picture(256, 256), output=output).image for name in "ab")
    assert first.sha256 == second.sha256
