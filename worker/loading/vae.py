"""The VAE of a pair, which base and refiner share: the base's own, or one in its place."""

from collections.abc import Iterator
from typing import Any, Final

import torch
from diffusers import AutoencoderKL

from schemas.pair import ModelPair
from worker.loading.device_options import apply_to_vae
from worker.loading.missing_weights import require_complete
from worker.loading.model_files import ModelFiles
from worker.loading.single_file import vae_of_file

#: What the base's UNet was trained with: another VAE must agree, or the picture is noise.
_MUST_AGREE: Final = ("latent_channels", "scaling_factor", "shift_factor", "latents_mean", "latents_std")


def load_vae(files: ModelFiles, base: ModelFiles, dtype: torch.dtype) -> AutoencoderKL:
    """The VAE of these files, for the base of those.

    Raises:
        ValueError: its latents are not those that the base makes. Whatever diffusers raises for broken files.
    """
    _check(AutoencoderKL.load_config(files.folder), AutoencoderKL.load_config(base.folder / "vae"))
    if files.file is not None:
        return vae_of_file(files, dtype)
    vae = AutoencoderKL.from_pretrained(files.folder, variant=files.variant, use_safetensors=True, dtype=dtype)
    require_complete("VAE", vae)
    return vae


def prepare_vae(vae: AutoencoderKL, pair: ModelPair) -> None:
    """Sets the pair's options, and the dtype once and for all.

    SDXL's VAE overflows in float16. Diffusers casts it to float32 for each decode and back again; it stays there
    instead, the same numbers, for no other thread must ever meet it halfway.
    """
    if vae.dtype == torch.float16 and vae.config.force_upcast:
        vae.float()
    apply_to_vae(vae, pair.options)
    if pair.vae_slicing:
        vae.enable_slicing()
    if pair.vae_tiling:
        vae.enable_tiling()


def _check(config: dict[str, Any], expected: dict[str, Any]) -> None:
    disagreeing = next(_disagreeing(config, expected), None)
    if disagreeing is not None:
        raise ValueError(f"its {disagreeing}, so it does not fit this base")


def _disagreeing(config: dict[str, Any], expected: dict[str, Any]) -> Iterator[str]:
    for name in _MUST_AGREE:
        if config.get(name) != expected.get(name):
            yield f"{name} is {config.get(name)}, and that of the base's VAE {expected.get(name)}"
    depth, expected_depth = (len(found.get("block_out_channels", ())) for found in (config, expected))
    if depth != expected_depth:
        yield f"depth is {depth} blocks, and that of the base's VAE {expected_depth}"
