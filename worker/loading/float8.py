"""Linear layers of a UNet in 8 bits, by torchao. Images differ visibly in detail from the exact ones."""

import importlib.util
import logging
from typing import Final

import torch
from diffusers import UNet2DConditionModel

from schemas.device_options import Fp8

#: What it costs to turn a layer's input into 8 bits is won back from this width on.
_SMALLEST_SIDE: Final = 16
_FIRST_CAPABILITY: Final = (8, 9)


def require_fp8(option: Fp8, device: torch.device) -> None:
    """Raises ValueError where the pair asks for what this machine does not have."""
    if importlib.util.find_spec("torchao") is None:
        raise ValueError("options.fp8 needs torchao, which is not installed: install nightshift's extra fp8")
    if option == "dynamic" and (device.type != "cuda" or torch.cuda.get_device_capability(device) < _FIRST_CAPABILITY):
        raise ValueError(
            'options.fp8: "dynamic" multiplies in 8 bits, which a GPU of compute capability 8.9 or more can;'
            ' "weights" works everywhere'
        )


def to_fp8(unet: UNet2DConditionModel, option: Fp8) -> None:
    """Its transformer blocks' linear layers, in place: nine tenths of the weights. Convolutions and what reads the
    timestep stay as they are."""
    logging.getLogger("torchao").setLevel(logging.ERROR)  # it says which of its kernels do not load, needed or not
    from torchao.quantization import (  # noqa: PLC0415 - it takes seconds, and few pairs want it
        Float8DynamicActivationFloat8WeightConfig,
        Float8WeightOnlyConfig,
        PerRow,
        PerTensor,
        quantize_,
    )

    # torchao scales rows of bfloat16 only
    granularity = PerRow() if unet.dtype == torch.bfloat16 else PerTensor()
    config = (
        Float8WeightOnlyConfig()
        if option == "weights"
        else Float8DynamicActivationFloat8WeightConfig(granularity=granularity)
    )
    quantize_(unet, config, filter_fn=_is_of_a_block)


def _is_of_a_block(module: torch.nn.Module, name: str) -> bool:
    is_wide = isinstance(module, torch.nn.Linear) and not any(side % _SMALLEST_SIDE for side in module.weight.shape)
    return is_wide and ".transformer_blocks." in name
