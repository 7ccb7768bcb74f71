"""What is said of a picture that was made again."""

import hashlib

import numpy as np
import pytest

from farm.recorded_images import Recorded
from schemas.provenance import Environment, Provenance
from schemas.spec import JobSpec
from worker.comparison import changes_since, compared, differences, run_differences
from worker.reproduction import Reproduction

ENVIRONMENT = Environment(
    pair="tiny", pair_fingerprint="f" * 64, base="synthetic:tiny", base_revision=None, base_hash="0" * 10,
    refiner="synthetic:tiny", refiner_revision=None, refiner_hash="1" * 10, license="none",
    versions={"nightshift": "0.1.0", "torch": "2.13.0"}, device="cpu, 2 threads", dtype="float32",
    attention_backend="AttnProcessor2_0",
)  # fmt: skip
PROVENANCE = Provenance(
    handoff="lossless", forward_pass_size=4, base_steps=32, refiner_steps=8, handoff_sigma=0.5, prompt_chunks=1,
    refiner_prompt_chunks=1, watermark_bits=48,
)  # fmt: skip
BLACK = np.zeros((8, 8, 3), dtype=np.uint8)


def with_one_at(value: int) -> np.ndarray:
    pixels = BLACK.copy()
    pixels[0, 0, 0] = value
    return pixels


def test_equal_files_are_identical() -> None:
    assert compared((b"a", b"a"), (BLACK, BLACK), ()).verdict == "identical file"


def test_equal_pixels_in_unequal_files_are_identical_pixels() -> None:
    found = compared((b"a", b"b"), (BLACK, BLACK.copy()), ())
    assert (found.verdict, found.is_reproduced) == ("identical pixels", True)


@pytest.mark.parametrize(("left", "right"), [(BLACK, with_one_at(200)), (with_one_at(200), BLACK)])
def test_unequal_pixels_say_how_far_off_they_are(left: np.ndarray, right: np.ndarray) -> None:
    found = compared((b"a", b"b"), (left, right), ())
    assert (found.verdict, found.is_reproduced) == ("different pixels", False)
    assert (found.largest, found.mean, found.share) == (200, 200 / 192, 1 / 192)


def test_another_size_is_no_comparison() -> None:
    assert compared((b"a", b"b"), (BLACK, BLACK[:4]), ()).verdict == "different size"


def test_what_is_otherwise_is_named_with_both_values() -> None:
    now = ENVIRONMENT.model_copy(
        update={"versions": {"nightshift": "0.1.0", "torch": "2.14.0"}, "device": "NVIDIA H200", "refiner": None}
        | {"pair_fingerprint": "e" * 64}
    )
    assert differences(ENVIRONMENT, ENVIRONMENT) == ()
    assert differences(ENVIRONMENT, now) == (
        f"the weights or options of the pair: {'f' * 64} then, {'e' * 64} now",
        "refiner: synthetic:tiny then, none now",
        "torch: 2.13.0 then, 2.14.0 now",
        "device: cpu, 2 threads then, NVIDIA H200 now",
    )


def test_a_library_that_is_new_or_gone_is_named() -> None:
    now = ENVIRONMENT.model_copy(update={"versions": {"nightshift": "0.1.0", "peft": "0.21"}})
    assert differences(ENVIRONMENT, now) == ("torch: 2.13.0 then, none now", "peft: none then, 0.21 now")


def test_other_steps_are_named() -> None:
    assert run_differences(PROVENANCE, PROVENANCE.model_copy(update={"base_steps": 31})) == (
        "base_steps: 32 then, 31 now",
    )


def test_a_difference_that_nothing_recorded_explains_says_so() -> None:
    unexplained = Reproduction("job 1/1", b"", compared((b"a", b"b"), (BLACK, with_one_at(3)), ()))
    explained = Reproduction("job 1/1", b"", compared((b"a", b"b"), (BLACK, with_one_at(3)), ("torch: 1 then, 2 now",)))
    assert unexplained.sentence.startswith("job 1/1: different pixels: 0.52% of the values differ, by 3 of 255")
    assert unexplained.sentence.endswith("nothing recorded is otherwise: look at the machine or the file")
    assert explained.sentence.endswith("0.016 on average")


def test_a_file_in_the_store_that_is_not_the_recorded_one_is_named_as_changed() -> None:
    sha256, pixel_sha256 = (hashlib.sha256(content).hexdigest() for content in (b"then", BLACK.tobytes()))
    spec = JobSpec.parse({"prompt": "a cat", "seed": 7})
    alone = Recorded("x.png", "/x.png", spec, PROVENANCE, ENVIRONMENT, {})
    job = Recorded("job 1/1", "file:///x.png", spec, PROVENANCE, ENVIRONMENT, {}, sha256, pixel_sha256)
    assert changes_since(alone, b"now", BLACK) == ()
    assert changes_since(job, b"then", with_one_at(3)) == ()
    changed = "the file in the store is not the recorded one: it was changed since; the image made again has "
    assert changes_since(job, b"now", BLACK) == (f"{changed}the recorded pixels",)
    assert changes_since(job, b"now", with_one_at(3)) == (f"{changed}other pixels than were recorded",)
