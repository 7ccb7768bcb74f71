"""Compiles UNets for shapes, beside a worker that renders: ``python -m worker.compiled.compile_process REQUEST``.

It leaves nothing but code in the cache folder (``worker.compiled.compiling``), where the worker finds it. So the
weights do not matter: they are zeros. On a GPU it takes memory for one UNet and a pass, and none of what
a worker needs is waited for.
"""

import os
import sys

import torch
from diffusers import UNet2DConditionModel

from worker.compiled.compile_request import CompileRequest
from worker.compiled.compiling import using
from worker.compiled.unet_shapes import UnetShape
from worker.loading.attention import attention_choice, attention_shape
from worker.loading.device_options import apply_to_unet

_LOWER_PRIORITY = 5  # the worker's threads go first


def main() -> None:
    """Ends with an error where something does not compile."""
    os.nice(_LOWER_PRIORITY)
    request = CompileRequest.model_validate_json(sys.argv[1])
    torch.set_num_threads(request.num_threads)
    for part, config in request.unets.items():
        shapes = [shape for shape in request.shapes if shape.part == part]
        if shapes:
            compile_for(_unet(config, request), shapes, request)


def _unet(config: dict[str, object], request: CompileRequest) -> UNet2DConditionModel:
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    torch.nn.Module.to(unet, getattr(torch, request.dtype))
    unet.to_empty(device=request.device).eval()
    with torch.no_grad():
        for tensor in unet.parameters():
            tensor.zero_()
    apply_to_unet(unet, request.options.model_copy(update={"cuda_graphs": False}))
    return unet


@torch.inference_mode()
def compile_for(unet: UNet2DConditionModel, shapes: list[UnetShape], request: CompileRequest) -> None:
    """Runs it once in each shape, as ``worker.passes.denoising`` does."""
    choice = attention_choice(request.options.attention, attention_shape(unet))
    with using(request.options.compile, request.options.compile), choice.in_force():
        for shape in shapes:
            unet(*_inputs(unet, shape), **_told(unet, shape, request.pooled_width), return_dict=False)


def _inputs(unet: UNet2DConditionModel, shape: UnetShape) -> tuple[torch.Tensor, torch.Tensor]:
    channels = unet.config.in_channels
    sample = torch.zeros(
        shape.rows, channels, shape.height // 8, shape.width // 8, device=unet.device, dtype=unet.dtype
    )
    return sample, torch.tensor(1.0, device=unet.device)


def _told(unet: UNet2DConditionModel, shape: UnetShape, pooled_width: int) -> dict[str, object]:
    config, place = unet.config, {"device": unet.device, "dtype": unet.dtype}
    num_time_ids = (config.projection_class_embeddings_input_dim - pooled_width) // config.addition_time_embed_dim
    return {
        "encoder_hidden_states": torch.zeros(shape.rows, 77 * shape.chunks, config.cross_attention_dim, **place),
        "added_cond_kwargs": {
            "text_embeds": torch.zeros(shape.rows, pooled_width, **place),
            "time_ids": torch.zeros(shape.rows, num_time_ids, **place),
        },
    }


if __name__ == "__main__":
    main()
