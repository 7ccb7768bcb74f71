"""Fixtures of the tests without servers. Torch is imported only by tests that ask for a pair."""

import copy
import functools
import sys
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest

from tests.unit.manifest_server import manifest_server
from tests.unit.read_apart import ReadApart, read_apart_by
from tests.unit.unreachable_store import unreachable_store

__all__ = ["manifest_server", "unreachable_store"]


@pytest.fixture(scope="session", autouse=True)
def parsed_once() -> Iterator[None]:
    """compel's parser takes half a second for a long prompt, and tests give it the same few again and again."""
    if "compel" not in sys.modules:
        yield
        return
    from compel import Compel

    parse = functools.cache(Compel.parse_prompt_string)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Compel, "parse_prompt_string", staticmethod(lambda text: copy.deepcopy(parse(text))))
        yield


@pytest.fixture
def read_apart(processes: BaseContext) -> ReadApart:
    return read_apart_by(processes)


@pytest.fixture(scope="session")
def tiny_folder(model_cache) -> Path:
    """``base/`` and ``refiner/`` of the synthetic pair ``tiny``."""
    from worker.synthetic_pairs.synthetic import synthetic_pair_folder

    return synthetic_pair_folder("tiny", model_cache)


@pytest.fixture(scope="session")
def tiny(tiny_folder, model_cache):
    """The pair ``tiny``, loaded once on the CPU in float32."""
    import torch

    from schemas.pair import BUILT_IN_PAIRS
    from worker.loading.pipelines import load_pair

    torch.set_num_threads(1)  # networks this small wait for threads far longer than they work
    return load_pair(BUILT_IN_PAIRS["tiny"], "cpu", model_cache)


@pytest.fixture(scope="session")
def smallest_folder(tmp_path_factory) -> Path:
    """``base/`` and ``refiner/`` of a pair as small as SDXL's architecture can be."""
    from worker.synthetic_pairs.synthetic import SYNTHETIC_SIZES, UnetSize, build_synthetic_pair

    unet = UnetSize((32,), (True,), (1,), head_channels=8, time_id_channels=8)
    size = replace(SYNTHETIC_SIZES["tiny"], base_unet=unet, refiner_unet=unet)
    folder = tmp_path_factory.mktemp("smallest")
    build_synthetic_pair(size, folder)
    return folder


@pytest.fixture(scope="session")
def smallest(smallest_folder, model_cache):
    """That pair, loaded as ``tiny`` is, for tests that render hundreds of images."""
    import torch

    from schemas.pair import ModelPair
    from worker.loading.pipelines import load_pair

    torch.set_num_threads(1)
    sources = {part: {"source": str(smallest_folder / part)} for part in ("base", "refiner")}
    return load_pair(ModelPair.model_validate({"name": "smallest"} | sources), "cpu", model_cache)


@pytest.fixture(scope="session")
def diffusers_pair(tiny_folder):
    """The same weights in diffusers' own pipelines, as its documentation shows: what tests hold us against."""
    return _by_diffusers(tiny_folder)


@pytest.fixture(scope="session")
def smallest_diffusers_pair(smallest_folder):
    return _by_diffusers(smallest_folder)


def _by_diffusers(folder):
    from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

    base = StableDiffusionXLPipeline.from_pretrained(folder / "base", use_safetensors=True, add_watermarker=False)
    refiner = StableDiffusionXLImg2ImgPipeline.from_pretrained(
        folder / "refiner",
        text_encoder_2=base.text_encoder_2,
        vae=base.vae,
        use_safetensors=True,
        add_watermarker=False,
    )
    for pipe in (base, refiner):
        pipe.set_progress_bar_config(disable=True)
    return base, refiner
