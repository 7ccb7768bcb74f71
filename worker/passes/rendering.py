"""Renders one forward pass: embed, base, handoff, refiner, decode, uint8."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from schemas.device_options import CompileMode
from schemas.errors import DeviceLostError, DeviceMemoryError, RenderError, SpecError
from schemas.refiner import Refiner
from schemas.spec import JobSpec
from worker.compiled.compiling import CompiledCodeError, is_of_compiling, using
from worker.compiled.cuda_graphs import note_variant
from worker.loading.loras import set_adapters
from worker.loading.pipelines import LoadedPair
from worker.passes.decoding import Picture, checked_pictures
from worker.passes.denoising import Denoised, Stop
from worker.passes.denoising import denoise as denoise_lossless
from worker.passes.forward_passes import pass_key
from worker.passes.inputs import NO_INPUTS, PassInputs
from worker.passes.two_pipelines import denoise_by_diffusers

#: Of plain RuntimeErrors: PyTorch's allocator on a CPU; on a GPU, what is not its own allocator's (pinned memory, a
#: recorded graph), and what goes wrong while code is compiled. None of it outlasts the pass.
_MEMORY_SENTENCES: Final = ("can't allocate memory", "out of memory")
#: What libraries beside PyTorch's own allocator call a device error: their errors are plain RuntimeErrors.
_DEVICE_SENTENCES: Final = ("CUDA error", "cuDNN error", "CUDNN_STATUS", "CUBLAS_STATUS")


@dataclass(frozen=True)
class RenderedPass:
    """What came out of one forward pass."""

    #: in the order of the specs
    pictures: list[Picture]
    #: see ``worker.passes.denoising.Denoised``
    base_steps: int
    refiner_steps: int
    handoff_sigma: float | None
    #: how its UNets were compiled
    compile_mode: CompileMode = "off"

    @property
    def images(self) -> list[np.ndarray | None]:
        """(height, width, 3) uint8; None where the picture is black, or has NaN or infinite values."""
        return [picture.pixels for picture in self.pictures]


def render(
    pair: LoadedPair,
    specs: Sequence[JobSpec],
    stop: Stop = lambda: False,
    inputs: PassInputs = NO_INPUTS,
    compile_mode: CompileMode = "off",
) -> RenderedPass:
    """Renders the specs of one forward pass. ``stop`` is asked after every evaluation. ``compile_mode``: "off", or the
    pair's own, which compiles here and now what is not compiled yet. A base with LoRAs is never compiled.

    Raises:
        InputFileError: a LoRA does not fit the base.
        ValueError: the specs cannot share a forward pass (``worker.passes.forward_passes.split`` makes those that can).
        SpecError: a spec wants what the pair does not have: a refiner, aesthetic scores, layers of a text encoder.
        LeaseLostError: ``stop`` answered yes.
        CompiledCodeError: a UNet cannot be compiled, or what an earlier process compiled cannot be taken in.
        DeviceMemoryError: the device's memory does not hold the pass; nothing of it is held any longer.
        DeviceLostError: the device failed for good: this process can render nothing more.
    """
    _check(pair, specs)
    try:
        set_adapters(pair, specs[0].loras, inputs.loras)
        mode = _noted_mode(pair, compile_mode)
        with using(pair.pair.options.compile, mode), pair.attention.in_force():
            denoised = denoise(pair, specs, stop, inputs)
            pictures = checked_pictures(pair.base.vae, denoised.latents)
        return RenderedPass(pictures, denoised.base_steps, denoised.refiner_steps, denoised.handoff_sigma, mode)
    except (torch.OutOfMemoryError, MemoryError):
        failure: RenderError | CompiledCodeError = _no_memory(pair, specs)
    except RuntimeError as error:
        if any(text in str(error) for text in _MEMORY_SENTENCES):
            failure = _no_memory(pair, specs)
        elif _is_device_error(error):
            failure = DeviceLostError(f"{pair.device} failed: {_first_line(error)}")
        elif is_of_compiling(error):
            failure = CompiledCodeError(_first_line(error))
        else:
            raise
    # here and not above: until an except block ends, its traceback holds the tensors of every frame
    if isinstance(failure, DeviceMemoryError) and pair.device.type == "cuda":
        torch.cuda.empty_cache()
    raise failure


def _first_line(error: RuntimeError) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _noted_mode(pair: LoadedPair, wanted: CompileMode) -> CompileMode:
    """LoRAs leave layers behind while they are switched off, too."""
    has_adapters = bool(pair.base.get_list_adapters())
    mode = "off" if has_adapters else wanted
    for pipe in (pair.base, pair.refiner):
        if pipe is not None:
            note_variant(pipe.unet, None if has_adapters else mode)
    return mode


def _no_memory(pair: LoadedPair, specs: Sequence[JobSpec]) -> DeviceMemoryError:
    images = "1 image" if len(specs) == 1 else f"{len(specs)} images"
    size = f"{specs[0].width} x {specs[0].height}"
    return DeviceMemoryError(f"{pair.device} has no memory for a forward pass of {images} of {size}")


def _check(pair: LoadedPair, specs: Sequence[JobSpec]) -> None:
    keys = {pass_key(spec, None) for spec in specs}  # that prompts have one length is seen when they are stacked
    if len(keys) != 1:
        raise ValueError(f"a forward pass takes specs of one kind, not of {len(keys)}")
    for spec in specs:
        check_pair_has(pair, spec)


def check_pair_has(pair: LoadedPair, spec: JobSpec) -> None:
    """Raises SpecError where the spec wants what the pair does not have."""
    if spec.refiner.mode != "off" and pair.refiner is None:
        raise SpecError(f'refiner.mode: pair {pair.pair.name!r} has no refiner, so only "off" can be rendered')
    if spec.loras and (option := pair.pair.options.refusing_loras()):
        raise SpecError(f"loras: pair {pair.pair.name!r} has options.{option}, which no LoRA goes with")
    if pair.refiner is not None and not pair.refiner.config.requires_aesthetics_score:
        _refuse_scores(pair, spec)
    encoders = (pair.base.text_encoder, pair.base.text_encoder_2)
    most = min(encoder.config.num_hidden_layers for encoder in encoders) - 1
    if spec.clip_skip is not None and spec.clip_skip > most:
        raise SpecError(f"clip_skip: {spec.clip_skip}: pair {pair.pair.name!r} has layers for {most} at the most")


def _refuse_scores(pair: LoadedPair, spec: JobSpec) -> None:
    for name in ("aesthetic_score", "negative_aesthetic_score"):
        if getattr(spec.refiner, name) != Refiner.model_fields[name].default:
            raise SpecError(f"refiner.{name}: the refiner of pair {pair.pair.name!r} takes no aesthetic score")


def _is_device_error(error: RuntimeError) -> bool:
    return isinstance(error, torch.AcceleratorError) or any(text in str(error) for text in _DEVICE_SENTENCES)


def denoise(pair: LoadedPair, specs: Sequence[JobSpec], stop: Stop, inputs: PassInputs = NO_INPUTS) -> Denoised:
    """Base, handoff and refiner of one forward pass."""
    refiner = specs[0].refiner
    if refiner.mode == "ensemble" and refiner.handoff == "diffusers":
        return denoise_by_diffusers(pair, specs, stop)
    return denoise_lossless(pair, specs, stop, inputs)
