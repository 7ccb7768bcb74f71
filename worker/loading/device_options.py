"""Applies a pair's device options to its networks (``schemas.device_options`` says what they are)."""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from schemas.device_options import DeviceOptions
from worker.compiled.compiling import make_compilable, require_compiler
from worker.compiled.cuda_graphs import replay
from worker.loading.float8 import require_fp8, to_fp8


def require_options(options: DeviceOptions, device: torch.device) -> None:
    """Before minutes go into loading.

    Raises:
        ValueError: this machine or device cannot do what an option asks for; says which, and what would help.
    """
    if options.compile != "off":
        require_compiler(device)
    if options.cuda_graphs and device.type != "cuda":
        raise ValueError("options.cuda_graphs: only GPUs have them; say cuda_graphs = false for a CPU")
    if options.fp8 != "off":
        require_fp8(options.fp8, device)


def apply_to_vae(vae: AutoencoderKL, options: DeviceOptions) -> None:
    """In place, wherever its weights are. ``worker.loading.vae`` has chosen the dtype of one that names none."""
    if options.vae_dtype is not None:
        torch.nn.Module.to(vae, getattr(torch, options.vae_dtype))  # diffusers' own warns of each cast
    if options.channels_last:
        vae.to(memory_format=torch.channels_last)


def apply_to_unet(unet: UNet2DConditionModel, options: DeviceOptions) -> None:
    """In place. Weights are on their device: fp8 computes there."""
    if options.fused_qkv:
        unet.fuse_qkv_projections()
        _drop_what_was_fused(unet)
    if options.channels_last:
        unet.to(memory_format=torch.channels_last)
    if options.fp8 != "off":
        to_fp8(unet, options.fp8)
    if options.compile != "off":
        make_compilable(unet, options.compile)
    if options.cuda_graphs:
        replay(unet)


def _drop_what_was_fused(unet: UNet2DConditionModel) -> None:
    """Diffusers keeps the separate weights beside the joined ones: a fifth of the UNet, twice."""
    for module in unet.modules():
        if getattr(module, "fused_projections", False):
            names = ("to_k", "to_v") if module.is_cross_attention else ("to_q", "to_k", "to_v")
            for name in names:
                delattr(module, name)
