"""Which of PyTorch's attention kernels the networks get. Kernels sum in different orders, so they move the last bits.

Diffusers' ``set_attention_backend`` does not reach SDXL's UNets: their attention processors do not ask for it, and call
``torch.nn.functional.scaled_dot_product_attention``, which chooses for itself unless it is told.
"""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention as AttentionLayer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from schemas.device_options import Attention

#: the order of preference: fastest first, on a GPU that has them all
KERNELS: Final = MappingProxyType(
    {
        "cudnn": SDPBackend.CUDNN_ATTENTION,
        "flash": SDPBackend.FLASH_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
        "math": SDPBackend.MATH,
    }
)
#: of one chunk
_PROMPT_TOKENS: Final = 77


@dataclass(frozen=True)
class AttentionShape:
    """What a UNet's attention takes: a head's channels decide which kernels can have it."""

    head_channels: int
    device: torch.device
    dtype: torch.dtype

    def sample(self, num_tokens: int = 128) -> torch.Tensor:
        """(images, heads, tokens, channels): small, and nothing that a kernel is refused for."""
        return torch.zeros(1, 2, num_tokens, self.head_channels, device=self.device, dtype=self.dtype)


def attention_shape(unet: UNet2DConditionModel) -> AttentionShape:
    """Of its first attention; SDXL's have heads of one width."""
    layer = next(module for module in unet.modules() if isinstance(module, AttentionLayer))
    return AttentionShape(layer.inner_dim // layer.heads, unet.device, unet.dtype)


@dataclass(frozen=True)
class AttentionChoice:
    """``first``: the kernel that is taken wherever it can be; None: PyTorch chooses."""

    first: str | None

    def in_force(self) -> AbstractContextManager[object]:
        """While inside, the networks get this kernel. What it cannot take, such as the VAE's wide heads, goes to the
        next one of ``KERNELS`` that can."""
        if self.first is None:
            return nullcontext()
        names = list(KERNELS)
        return sdpa_kernel([KERNELS[name] for name in names[names.index(self.first) :]], set_priority=True)


def attention_choice(option: Attention, shape: AttentionShape) -> AttentionChoice:
    """Raises ValueError where the device has no such kernel for SDXL's attention."""
    if option == "pytorch":
        return AttentionChoice(None)
    if option == "auto":
        return AttentionChoice(next(name for name in KERNELS if runs(name, shape)))
    if not runs(option, shape):
        able = ", ".join(name for name in KERNELS if runs(name, shape))
        raise ValueError(
            f'options.attention: this device has no "{option}" for heads of {shape.head_channels} channels in'
            f" {str(shape.dtype).removeprefix('torch.')}; it has {able}"
        )
    return AttentionChoice(option)


@torch.inference_mode()
def kernel_in_force(shape: AttentionShape) -> str:
    """The name of the kernel that such attention gets here and now."""
    sample = shape.sample()
    chosen = SDPBackend(torch._fused_sdp_choice(sample, sample, sample))
    return next((name for name, kernel in KERNELS.items() if kernel == chosen), chosen.name.lower())


@torch.inference_mode()
def runs(name: str, shape: AttentionShape) -> bool:
    """Whether the device has this kernel for such attention, and it fails at nothing else that a pass asks for: a
    prompt's keys, a text encoder's causal attention. It may leave these to the next one."""
    sample, prompt = shape.sample(), shape.sample(_PROMPT_TOKENS)
    try:
        with _silenced(), sdpa_kernel(KERNELS[name]):
            scaled_dot_product_attention(sample, sample, sample)
        with _silenced(), AttentionChoice(name).in_force():
            scaled_dot_product_attention(sample, prompt, prompt)
            scaled_dot_product_attention(prompt, prompt, prompt, is_causal=True)
    except RuntimeError:
        return False
    return True


@contextmanager
def _silenced() -> Iterator[None]:
    """PyTorch warns of every reason why a kernel is out of the question."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
