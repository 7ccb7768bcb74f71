"""From pictures to latents: what img2img starts from."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from worker.loading.pipelines import LoadedPair
from worker.passes.latent_scale import scaled


def encoded(
    pair: LoadedPair, images: Sequence[NDArray[np.uint8]], generators: Sequence[torch.Generator]
) -> torch.Tensor:
    """Latents (images, 4, height / 8, width / 8) of RGB pictures (height, width, 3), as diffusers' img2img draws them:
    each from its own generator, out of the distribution that the VAE gives for it alone."""
    vae = pair.base.vae
    latents = [
        vae.encode(_as_input(image).to(pair.device, vae.dtype)).latent_dist.sample(generator)
        for image, generator in zip(images, generators, strict=True)
    ]
    return scaled(vae, torch.cat(latents).to(pair.dtype))


def _as_input(image: NDArray[np.uint8]) -> torch.Tensor:
    """(1, 3, height, width), -1 to 1. Channels last in memory, as in diffusers: convolutions would round otherwise."""
    values = torch.from_numpy(image[None].astype(np.float32) / 255.0)
    return 2.0 * values.permute(0, 3, 1, 2) - 1.0
