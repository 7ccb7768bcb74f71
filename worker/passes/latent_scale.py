"""Latents as the UNets know them, and as the VAE does: scaled to about unit variance, and back."""

import torch
from diffusers import AutoencoderKL


def scaled(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """From the VAE to the UNets. (images, 4, height / 8, width / 8), as the next one."""
    statistics = _statistics(vae, latents)
    if statistics is None:
        return vae.config.scaling_factor * latents
    mean, std = statistics
    return (latents - mean) * vae.config.scaling_factor / std


def unscaled(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """From the UNets to the VAE."""
    statistics = _statistics(vae, latents)
    if statistics is None:
        return latents / vae.config.scaling_factor
    mean, std = statistics
    return latents * std / vae.config.scaling_factor + mean


def _statistics(vae: AutoencoderKL, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Mean and standard deviation of each channel, where the VAE's configuration has them."""
    if vae.config.latents_mean is None or vae.config.latents_std is None:
        return None
    mean, std = (
        torch.tensor(values).view(1, 4, 1, 1).to(like.device, like.dtype)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return mean, std
