"""Latents to pictures: what the pipelines do after their last step, except that NaN and infinite values are seen."""

import numpy as np
import torch
from diffusers import AutoencoderKL

from worker.latent_scale import unscaled


@torch.inference_mode()
def pictures(vae: AutoencoderKL, latents: torch.Tensor) -> list[np.ndarray | None]:
    """(height, width, 3) uint8 for each image of latents (images, 4, height / 8, width / 8).

    None where the picture has NaN or infinite values: the pipelines would clamp them, so that nobody saw them.
    """
    decoded = decode(vae, latents)
    finite = decoded.isfinite().flatten(start_dim=1).all(dim=1).tolist()
    pixels = ((decoded * 0.5 + 0.5).clamp(0, 1).float() * 255).round().to(torch.uint8)
    arrays = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return [array if is_finite else None for array, is_finite in zip(arrays, finite, strict=True)]


def decode(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Pictures (images, 3, height, width), about -1 to 1, in the VAE's dtype; ``worker.vae`` has chosen that."""
    return vae.decode(unscaled(vae, latents.to(vae.dtype)), return_dict=False)[0]
