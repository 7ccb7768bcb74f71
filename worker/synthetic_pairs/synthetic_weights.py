"""Random weights that make an SDXL network behave: variance kept, pictures with shapes, prompts that matter."""

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import torch

# What the picture answers to is made stronger than usual: a test wants to see a wrong prompt. The VAE's last layer is
# made weaker: few pixels are clipped.
_GAINS: Final = MappingProxyType(
    {"attn2.to_out": 2.0, "add_embedding": 2.0, "time_emb_proj": 1.5, "decoder.conv_out": 0.6}
)
_SMOOTHNESS: Final = 0.6
_UNTRAINED_SHARE: Final = 0.5


def random_weights(shapes: Mapping[str, torch.Size], key: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """A tensor for each name, decided by ``key``, the name and the shape alone. One at a time is in float32."""
    return {name: _random_tensor(name, shape, key).to(dtype) for name, shape in shapes.items()}


def _random_tensor(name: str, shape: torch.Size, key: str) -> torch.Tensor:
    if len(shape) == 1:
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
    fan_in = 1 if name.endswith("_embedding.weight") else shape[1:].numel()
    gain = next((gain for part, gain in _GAINS.items() if part in name), 1.0)
    values = _uniform(shape, f"{key}/{name}") * (gain * (3 / fan_in) ** 0.5)
    return _smoothed(values) if shape[2:] == (3, 3) else values


def _uniform(shape: torch.Size, key: str) -> torch.Tensor:
    """Between -1 and 1. Not normal: without a logarithm in them the bits are the same on every machine."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def _smoothed(kernels: torch.Tensor) -> torch.Tensor:
    """3x3 kernels with a blur in them: shapes in place of television snow."""
    return kernels * (1 - _SMOOTHNESS) + kernels[:, :, :1, :1] * (_SMOOTHNESS / 3)


def let_noise_through(unet: dict[str, torch.Tensor]) -> None:
    """Makes a UNet predict the noise it is given plus a share of what it would have said: so it denoises.

    Each of the 4 latent channels enters with both signs, goes by the outermost skip connection to the output, and is
    put together there: silu(x) - silu(-x) = x. Channels of the first block, a multiple of 8, in place.
    """
    last = max(name for name in unet if name.startswith("up_blocks") and name.endswith("conv_shortcut.weight"))
    conv_in, shortcut, conv_out = unet["conv_in.weight"], unet[last], unet["conv_out.weight"]
    num_channels = conv_in.shape[0]
    both_signs = torch.eye(4).repeat_interleave(2, dim=0) * torch.tensor([1.0, -1.0]).repeat(4)[:, None]
    wiring = both_signs.repeat(num_channels // 8, 1).to(conv_in.dtype)
    conv_in.zero_()[:, :, 1, 1] = wiring
    shortcut.mul_(_UNTRAINED_SHARE)[:, -num_channels:, 0, 0] = torch.eye(num_channels)
    unet[last.replace("conv_shortcut", "conv2")].mul_(_UNTRAINED_SHARE)
    conv_out.mul_(_UNTRAINED_SHARE)[:, :, 1, 1] += wiring.T * (8 / num_channels)
