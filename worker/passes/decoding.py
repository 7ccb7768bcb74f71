"""Latents to pictures: what the pipelines do after their last step, except that broken and black pictures are seen."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL

from worker.passes.host_copy import HostCopy
from worker.passes.latent_scale import unscaled

#: Of an image that its VAE cannot decode, whatever the dtype.
_BROKEN_LATENTS: Final = "the image's latents have NaN or infinite values, so there is nothing to decode"
_BROKEN_PICTURE: Final = "the picture is black, or has NaN or infinite values, with the VAE in float32 too"


@dataclass(frozen=True)
class Picture:
    """One decoded image on its way to the host, or a sentence that says what is wrong with it."""

    place: "Place | None"
    fault: str = ""
    #: decoded a second time, with the VAE in float32
    vae_float32_retry: bool = False

    @property
    def pixels(self) -> np.ndarray | None:
        """uint8 of shape (height, width, 3), waited for; None where something is wrong. Not for the device thread."""
        return None if self.place is None else self.place.copy.picture(self.place.index)


class Place(NamedTuple):
    """Which image of a decoded pass."""

    copy: HostCopy
    index: int


def checked_pictures(vae: AutoencoderKL, latents: torch.Tensor) -> list[Picture]:
    """Decodes latents (images, 4, height / 8, width / 8). What comes out broken or black is tried once more in float32:
    in half precision a VAE may overflow on a single image."""
    return [
        Picture(place) if place is not None else _second_try(vae, latents[index : index + 1])
        for index, place in enumerate(_places(vae, latents))
    ]


def _second_try(vae: AutoencoderKL, latents: torch.Tensor) -> Picture:
    """Of one image: in float32 a decode takes twice the memory."""
    if not latents.isfinite().all():
        return Picture(None, _BROKEN_LATENTS)
    if vae.dtype == torch.float32:
        return Picture(None, _BROKEN_PICTURE)
    with _in_float32(vae):
        (place,) = _places(vae, latents)
    return Picture(place, "" if place is not None else _BROKEN_PICTURE, vae_float32_retry=True)


@contextmanager
def _in_float32(vae: AutoencoderKL) -> Iterator[None]:
    """There and back changes no weight: float32 holds every value of a half. The device thread alone uses the VAE."""
    dtype = vae.dtype
    try:
        vae.to(torch.float32)  # which memory may end in the middle
        yield
    finally:
        vae.to(dtype)


def pictures(vae: AutoencoderKL, latents: torch.Tensor) -> list[np.ndarray | None]:
    """(height, width, 3) uint8 for each image of latents (images, 4, height / 8, width / 8), waited for; None where the
    picture is broken or black."""
    return [Picture(place).pixels for place in _places(vae, latents)]


@torch.inference_mode()
def _places(vae: AutoencoderKL, latents: torch.Tensor) -> list[Place | None]:
    """None where the picture has NaN or infinite values, which the pipelines would clamp, so that nobody saw them; and
    where it is all black, which is what is left of NaN once somebody has clamped it.

    The host waits once for all of a pass: its pictures are copied beside what it renders next.
    """
    decoded = decode(vae, latents)
    pixels = ((decoded * 0.5 + 0.5).clamp(0, 1).float() * 255).round().to(torch.uint8)
    copy = HostCopy(pixels.permute(0, 2, 3, 1).contiguous())
    values = decoded.flatten(start_dim=1)
    is_finite = values.amin(dim=1).isfinite() & values.amax(dim=1).isfinite()  # of NaN and others they are NaN
    is_sound = is_finite & pixels.flatten(start_dim=1).any(dim=1)
    return [Place(copy, index) if sound else None for index, sound in enumerate(is_sound.tolist())]


def decode(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Pictures (images, 3, height, width), about -1 to 1, in the VAE's dtype (``worker.loading.vae``)."""
    return vae.decode(unscaled(vae, latents.to(vae.dtype)), return_dict=False)[0]
