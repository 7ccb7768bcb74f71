"""SDXL pairs with random weights, of any size: what renders in tests and benchmarks, where no real weights are.

Built with diffusers' and transformers' own classes from a seed, saved in diffusers' folder layout, loaded by an
ordinary ``from_pretrained(folder, use_safetensors=True)``. ``synthetic_pair_folder`` writes
``<cache>/<name>-<version>`` and a lock file beside it.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import torch
from diffusers import AutoencoderKL, ModelMixin, UNet2DConditionModel
from diffusers import __version__ as diffusers_version
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from schemas.errors import PairError
from worker.synthetic_pairs.synthetic_tokenizer import CONTEXT_LENGTH, synthetic_tokenizers
from worker.synthetic_pairs.synthetic_weights import let_noise_through, random_weights

#: Part of the cached folder's name: raise it with every change of what a build writes.
SYNTHETIC_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class TextEncoderSize:
    """A CLIP text encoder; ``heads`` divides ``width``."""

    width: int
    layers: int
    heads: int
    activation: Literal["quick_gelu", "gelu"]


@dataclass(frozen=True, slots=True)
class UnetSize:
    """One entry for each block from the outside in; the middle block is as wide and as deep as the last one."""

    channels: tuple[int, ...]
    cross_attention: tuple[bool, ...]
    transformer_layers: tuple[int, ...]
    head_channels: int
    time_id_channels: int


@dataclass(frozen=True, slots=True)
class SyntheticSize:
    """Everything about a pair but its seed. ``vocabulary_size`` None: as many rows as the tokenizer has tokens."""

    text_encoder: TextEncoderSize
    text_encoder_2: TextEncoderSize
    base_unet: UnetSize
    refiner_unet: UnetSize
    vae_channels: tuple[int, int, int, int]
    sample_side: int
    vocabulary_size: int | None
    dtype: torch.dtype


SYNTHETIC_SIZES: Final = MappingProxyType(
    {
        "tiny": SyntheticSize(
            text_encoder=TextEncoderSize(width=32, layers=2, heads=4, activation="quick_gelu"),
            text_encoder_2=TextEncoderSize(width=32, layers=2, heads=4, activation="gelu"),
            base_unet=UnetSize((32, 64), (False, True), (1, 1), head_channels=8, time_id_channels=8),
            refiner_unet=UnetSize((32, 64), (False, True), (1, 1), head_channels=8, time_id_channels=8),
            vae_channels=(32, 32, 64, 64),
            sample_side=32,
            vocabulary_size=None,
            dtype=torch.float32,
        ),
        # The architecture of stabilityai/stable-diffusion-xl-base-1.0 and -refiner-1.0.
        "full": SyntheticSize(
            text_encoder=TextEncoderSize(width=768, layers=12, heads=12, activation="quick_gelu"),
            text_encoder_2=TextEncoderSize(width=1280, layers=32, heads=20, activation="gelu"),
            base_unet=UnetSize(
                (320, 640, 1280), (False, True, True), (1, 2, 10), head_channels=64, time_id_channels=256
            ),
            refiner_unet=UnetSize(
                (384, 768, 1536, 1536), (False, True, True, False), (4, 4, 4, 4), head_channels=64, time_id_channels=256
            ),
            vae_channels=(128, 256, 512, 512),
            sample_side=128,
            vocabulary_size=49408,
            dtype=torch.float16,
        ),
    }
)

# SDXL's own. The last three are no arguments of Euler's, but other schedulers built from this config read them.
_SCHEDULER_CONFIG: Final = MappingProxyType(
    {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "timestep_spacing": "leading",
        "steps_offset": 1,
        "interpolation_type": "linear",
        "sample_max_value": 1.0,
        "trained_betas": None,
        "use_karras_sigmas": False,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
    }
)
_SHARED_PARTS: Final = ("tokenizer_2", "text_encoder_2", "vae", "scheduler")


def synthetic_pair_folder(name: str, cache: Path) -> Path:
    """The folder with the pair ``name`` (``base/`` and ``refiner/`` in it): made on first use, kept afterwards.

    Processes that come at once wait for the first of them; one killed halfway leaves nothing that counts.

    Raises:
        PairError: there is no such size.
    """
    if name not in SYNTHETIC_SIZES:
        raise PairError(f"unknown synthetic size {name!r}; known are {', '.join(sorted(SYNTHETIC_SIZES))}")
    folder = cache / f"{name}-{SYNTHETIC_VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(f"{folder.name}.lock")):
        if not folder.exists():
            _build_beside(SYNTHETIC_SIZES[name], folder)
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # given back when the file closes, or its process dies
        yield


def _build_beside(size: SyntheticSize, folder: Path) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed; the lock is ours
    build_synthetic_pair(size, partial)
    partial.rename(folder)


def build_synthetic_pair(size: SyntheticSize, folder: Path, seed: int = 0) -> None:
    """Writes ``folder/base`` and ``folder/refiner``: the same weights, byte for byte, for the same size and seed.

    At most one network is in memory at a time, in ``size.dtype``, and once more while it is written. The files of what
    SDXL's two pipelines share are hard links where the file system has them.
    """
    base, refiner = folder / "base", folder / "refiner"
    with _without_progress_bars():
        _save_base(size, base, seed)
        for part in _SHARED_PARTS:
            shutil.copytree(base / part, refiner / part, copy_function=_link)
        _save(refiner_unet(size), refiner / "unet", size, seed)
    _write_model_indexes(base, refiner)


def _save_base(size: SyntheticSize, base: Path, seed: int) -> None:
    tokenizer, tokenizer_2 = synthetic_tokenizers(size.vocabulary_size)
    tokenizer.save_pretrained(base / "tokenizer")
    tokenizer_2.save_pretrained(base / "tokenizer_2")
    with torch.device("meta"):
        text_encoder = CLIPTextModel(_text_config(size.text_encoder, tokenizer))
        text_encoder_2 = CLIPTextModelWithProjection(_text_config(size.text_encoder_2, tokenizer_2))
    _save(text_encoder, base / "text_encoder", size, seed)
    _save(text_encoder_2, base / "text_encoder_2", size, seed)
    _save(_vae(size), base / "vae", size, seed)
    _save(base_unet(size), base / "unet", size, seed)
    _write_json(base / "scheduler" / "scheduler_config.json", "EulerDiscreteScheduler", _SCHEDULER_CONFIG)


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def base_unet(size: SyntheticSize) -> UNet2DConditionModel:
    """The base's UNet without weights, on the meta device. It sees both text encoders and six time ids."""
    return _unet(size.base_unet, size, size.text_encoder.width + size.text_encoder_2.width, num_time_ids=6)


def refiner_unet(size: SyntheticSize) -> UNet2DConditionModel:
    """The refiner's UNet without weights, on the meta device. It sees ``text_encoder_2`` and five time ids."""
    return _unet(size.refiner_unet, size, size.text_encoder_2.width, num_time_ids=5)


def _unet(shape: UnetSize, size: SyntheticSize, text_width: int, num_time_ids: int) -> UNet2DConditionModel:
    attention = shape.cross_attention
    with torch.device("meta"):
        return UNet2DConditionModel(
            sample_size=size.sample_side,
            block_out_channels=shape.channels,
            down_block_types=tuple("CrossAttnDownBlock2D" if there else "DownBlock2D" for there in attention),
            up_block_types=tuple("CrossAttnUpBlock2D" if there else "UpBlock2D" for there in reversed(attention)),
            transformer_layers_per_block=shape.transformer_layers,
            attention_head_dim=tuple(channels // shape.head_channels for channels in shape.channels),
            cross_attention_dim=text_width,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=shape.time_id_channels,
            projection_class_embeddings_input_dim=size.text_encoder_2.width + num_time_ids * shape.time_id_channels,
        )


def _vae(size: SyntheticSize) -> AutoencoderKL:
    num_blocks = len(size.vae_channels)
    with torch.device("meta"):
        return AutoencoderKL(
            block_out_channels=size.vae_channels,
            down_block_types=("DownEncoderBlock2D",) * num_blocks,
            up_block_types=("UpDecoderBlock2D",) * num_blocks,
            layers_per_block=2,
            sample_size=size.sample_side * 8,
            scaling_factor=0.13025,
            force_upcast=True,
        )


def _text_config(shape: TextEncoderSize, tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=4 * shape.width,
        projection_dim=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        hidden_act=shape.activation,
        max_position_embeddings=CONTEXT_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _save(network: PreTrainedModel | ModelMixin, folder: Path, size: SyntheticSize, seed: int) -> None:
    shapes = {name: slot.shape for name, slot in network.state_dict().items()}
    weights = random_weights(shapes, f"{seed}/{folder.parent.name}/{folder.name}", size.dtype)
    if isinstance(network, UNet2DConditionModel):
        let_noise_through(weights)
    network.load_state_dict(weights, assign=True)
    network.save_pretrained(folder)


def _write_model_indexes(base: Path, refiner: Path) -> None:
    parts = {
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    absent = {"text_encoder": [None, None], "tokenizer": [None, None]}
    options = {"force_zeros_for_empty_prompt": False, "requires_aesthetics_score": True}
    _write_json(base / "model_index.json", "StableDiffusionXLPipeline", parts | {"force_zeros_for_empty_prompt": True})
    _write_json(refiner / "model_index.json", "StableDiffusionXLImg2ImgPipeline", parts | absent | options)


def _write_json(path: Path, class_name: str, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = {"_class_name": class_name, "_diffusers_version": diffusers_version}
    path.write_text(json.dumps(head | dict(content), indent=2) + "\n", encoding="utf-8")


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)
