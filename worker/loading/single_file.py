"""Models from one safetensors file in SDXL's original layout, as Civitai has them, with configs from elsewhere.

Diffusers translates the layout. It would leave tensors that a file lacks without a value, and fail later without a
name; so the file is looked through first.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from accelerate import init_empty_weights
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    is_clip_model_in_single_file,
)
from safetensors.torch import load_file
from transformers import CLIPTextModel

from worker.loading.missing_weights import require_none_missing
from worker.loading.model_files import ModelFiles

Tensors = dict[str, torch.Tensor]

_TRANSLATIONS: Final[Mapping[type, Callable[..., Tensors]]] = {
    UNet2DConditionModel: convert_ldm_unet_checkpoint,
    AutoencoderKL: convert_ldm_vae_checkpoint,
}


def base_of_file(files: ModelFiles, dtype: torch.dtype, **parts: Any) -> StableDiffusionXLPipeline:
    """``parts`` are used in place of the file's.

    Raises:
        ValueError: the file lacks weights. Whatever diffusers raises for files that are broken or foreign.
    """
    if not is_clip_model_in_single_file(CLIPTextModel, load_file(files.file)):
        raise ValueError("the file has no text encoders, so it is no SDXL base")  # diffusers would seek them elsewhere
    return _pipeline(StableDiffusionXLPipeline, files, dtype, parts)


def refiner_of_file(files: ModelFiles, dtype: torch.dtype, **parts: Any) -> StableDiffusionXLImg2ImgPipeline:
    """As ``base_of_file``; ``parts`` has what is shared with the base."""
    return _pipeline(StableDiffusionXLImg2ImgPipeline, files, dtype, parts)


def vae_of_file(files: ModelFiles, dtype: torch.dtype) -> AutoencoderKL:
    """From a file of the VAE alone, in the original layout or in diffusers', or from that of a whole model."""
    config = AutoencoderKL.load_config(files.folder)
    _require_all(AutoencoderKL, config, load_file(files.file), "vae")
    return AutoencoderKL.from_single_file(str(files.file), config=str(files.folder), dtype=dtype, local_files_only=True)


def _pipeline(pipeline: type[DiffusionPipeline], files: ModelFiles, dtype: torch.dtype, parts: dict[str, Any]) -> Any:
    tensors = load_file(files.file)
    for name, network in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        if name not in parts:
            _require_all(network, network.load_config(files.folder, subfolder=name), tensors, name)
    return pipeline.from_single_file(
        str(files.file),
        config=str(files.folder),
        dtype=dtype,
        local_files_only=True,
        add_watermarker=False,
        **parts,
    )


def _require_all(network: type, config: dict[str, Any], tensors: Tensors, part: str) -> None:
    with init_empty_weights():
        needed = network.from_config(config).state_dict().keys()
    if needed <= tensors.keys():
        return
    try:
        found = _TRANSLATIONS[network](checkpoint=dict(tensors), config=config)
    except KeyError as error:  # diffusers asks for this one whether it is there or not
        found, needed = {}, error.args
    require_none_missing(part, sorted(set(needed) - found.keys()))
