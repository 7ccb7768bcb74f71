"""One SDXL model from its files: every part of the base, and of the refiner what it does not share with the base.

Safetensors only: nothing is unpickled, and no code that lies beside the weights is run.
"""

from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, PreTrainedModel

from worker.loading.missing_weights import require_complete, require_none_missing
from worker.loading.model_files import SHARED_PARTS, ModelFiles
from worker.loading.single_file import base_of_file, refiner_of_file
from worker.loading.weight_files import has_variant

_TEXT_ENCODERS: Final = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}


def load_base(files: ModelFiles, vae: AutoencoderKL | None, dtype: torch.dtype) -> StableDiffusionXLPipeline:
    """The base, in main memory; with another VAE in place of its own, where one is given.

    Raises:
        ValueError: something is missing, or the parts do not fit together. Whatever diffusers, transformers and
            safetensors raise for broken files.
    """
    passed = {} if vae is None else {"vae": vae}
    if files.file is not None:
        base = _ready(base_of_file(files, dtype, **passed))
    else:
        encoders = {name: _text_encoder(files, name, dtype) for name in _TEXT_ENCODERS}
        base = _from_folder(StableDiffusionXLPipeline, files, dtype=dtype, **encoders, **passed)
    _require_vocabulary(base.tokenizer, base.text_encoder)
    _require_vocabulary(base.tokenizer_2, base.text_encoder_2)
    width = base.text_encoder.config.hidden_size + base.text_encoder_2.config.hidden_size
    _require_unet(base, width, num_time_ids=6)
    return base


def load_refiner(
    files: ModelFiles, base: StableDiffusionXLPipeline, dtype: torch.dtype
) -> StableDiffusionXLImg2ImgPipeline:
    """The refiner's UNet in main memory, with the base's other parts. Raises as ``load_base``."""
    shared = {name: getattr(base, name) for name in SHARED_PARTS}
    if files.file is not None:
        refiner = _ready(refiner_of_file(files, dtype, **shared))
    else:
        refiner = _from_folder(StableDiffusionXLImg2ImgPipeline, files, dtype=dtype, **shared)
    num_time_ids = 5 if refiner.config.requires_aesthetics_score else 6
    _require_unet(refiner, base.text_encoder_2.config.hidden_size, num_time_ids)
    return refiner


def networks(pipe: DiffusionPipeline) -> list[torch.nn.Module]:
    return [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]


def _text_encoder(files: ModelFiles, name: str, dtype: torch.dtype) -> PreTrainedModel:
    """Not left to the pipeline: it would fill tensors that are missing with random numbers, and say so in a log."""
    folder = files.folder / name
    _require(folder.is_dir(), f"it has no {name}, so it is no SDXL base")
    encoder, report = _TEXT_ENCODERS[name].from_pretrained(
        folder,
        variant=_variant_of(folder, files.variant),
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    require_none_missing(name, report["missing_keys"])
    return encoder


def _variant_of(folder: Path, variant: str | None) -> str | None:
    return variant if has_variant(folder, variant) else None


def _from_folder(pipeline: type[DiffusionPipeline], files: ModelFiles, **options: Any) -> Any:
    return _ready(
        pipeline.from_pretrained(
            files.folder,
            variant=files.variant,
            use_safetensors=True,
            trust_remote_code=False,
            add_watermarker=False,
            **options,
        )
    )


def _ready(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            require_complete(name, part.eval())
    return pipe


def _require_vocabulary(tokenizer: CLIPTokenizer, encoder: PreTrainedModel) -> None:
    """A tokenizer without its files is made all the same, and knows nothing."""
    known, embedded = len(tokenizer), encoder.config.vocab_size
    _require(known == embedded, f"a tokenizer of it knows {known} tokens, and its text encoder {embedded}")


def _require_unet(pipe: DiffusionPipeline, width: int, num_time_ids: int) -> None:
    """Raises ValueError where the UNet would fail at its first step, hours after the worker has started."""
    config = pipe.unet.config
    _require(
        config.cross_attention_dim == width,
        f"its UNet attends to {config.cross_attention_dim} channels, and the text encoders give {width}",
    )
    expected = num_time_ids * config.addition_time_embed_dim + pipe.text_encoder_2.config.projection_dim
    taken = config.projection_class_embeddings_input_dim
    _require(taken == expected, f"its UNet takes {taken} added channels, and {num_time_ids} time ids give {expected}")


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise ValueError(reason)
