"""Latents to pictures: what the pipelines do after their last step, except that broken and black pictures are seen."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderKL

from worker.latent_scale import unscaled

#: Of an image that its VAE cannot decode, whatever the dtype.
_BROKEN_LATENTS: Final = "the image's latents have NaN or infinite values, so there is nothing to decode"
_BROKEN_PICTURE: Final = "the picture is black, or has NaN or infinite values, with the VAE in float32 too"


@dataclass(frozen=True)
class Picture:
    """One decoded image: uint8 of shape (height, width, 3), or None and a sentence that says what is wrong."""

    pixels: np.ndarray | None
    fault: str = ""
    #: decoded a second time, with the VAE in float32
    vae_float32_retry: bool = False


def checked_pictures(vae: AutoencoderKL, latents: torch.Tensor) -> list[Picture]:
    """Decodes latents (images, 4, height / 8, width / 8). What comes out broken or black is tried once more in float32:
    in half precision a VAE may overflow on a single image."""
    return [
        Picture(pixels) if pixels is not None else _second_try(vae, latents[index : index + 1])
        for index, pixels in enumerate(pictures(vae, latents))
    ]


def _second_try(vae: AutoencoderKL, latents: torch.Tensor) -> Picture:
    """Of one image: in float32 a decode takes twice the memory."""
    if not latents.isfinite().all():
        return Picture(None, _BROKEN_LATENTS)
    if vae.dtype == torch.float32:
        return Picture(None, _BROKEN_PICTURE)
    with _in_float32(vae):
        (pixels,) = pictures(vae, latents)
    return Picture(pixels, "" if pixels is not None else _BROKEN_PICTURE, vae_float32_retry=True)


@contextmanager
def _in_float32(vae: AutoencoderKL) -> Iterator[None]:
    """There and back changes no weight: float32 holds every value of a half. The device thread alone uses the VAE."""
    dtype = vae.dtype
    vae.to(torch.float32)
    try:
        yield
    finally:
        vae.to(dtype)


@torch.inference_mode()
def pictures(vae: AutoencoderKL, latents: torch.Tensor) -> list[np.ndarray | None]:
    """(height, width, 3) uint8 for each image of latents (images, 4, height / 8, width / 8).

    None where the picture has NaN or infinite values, which the pipelines would clamp, so that nobody saw them; and
    where it is all black, which is what is left of NaN once somebody has clamped it.
    """
    decoded = decode(vae, latents)
    finite = decoded.isfinite().flatten(start_dim=1).all(dim=1).tolist()
    pixels = ((decoded * 0.5 + 0.5).clamp(0, 1).float() * 255).round().to(torch.uint8)
    arrays = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return [array if is_finite and array.any() else None for array, is_finite in zip(arrays, finite, strict=True)]


def decode(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Pictures (images, 3, height, width), about -1 to 1, in the VAE's dtype; ``worker.vae`` has chosen that."""
    return vae.decode(unscaled(vae, latents.to(vae.dtype)), return_dict=False)[0]
