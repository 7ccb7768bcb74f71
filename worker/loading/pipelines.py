"""Loads a pair onto a device: base and refiner once, sharing ``text_encoder_2``, ``tokenizer_2`` and the VAE."""

import copy
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import diffusers.utils.logging
import torch
import transformers.utils.logging
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from diffusers.loaders.single_file_utils import SingleFileComponentError
from huggingface_hub.errors import HTTPError
from safetensors import SafetensorError
from transformers import CLIPTokenizer

from schemas.errors import DeviceLostError, PairError
from schemas.pair import ModelPair, Offload
from worker.beside import beside
from worker.compiled.compiling import keep_compiled_code
from worker.loading.attention import AttentionChoice, AttentionShape, attention_choice, attention_shape
from worker.loading.device_options import apply_to_unet, require_options
from worker.loading.fingerprint import Fingerprint, pair_fingerprint
from worker.loading.model_files import PairFiles, locate_model, locate_textual_inversion, locate_vae
from worker.loading.models import load_base, load_refiner, networks
from worker.loading.offload import place, size_bytes
from worker.loading.textual_inversion import load_textual_inversion
from worker.loading.timeline import Timeline
from worker.loading.vae import load_vae, prepare_vae
from worker.passes.forward_passes import largest_power_of_two
from worker.passes.remembered_texts import RememberedTexts

_log: Final = logging.getLogger("nightshift.worker")

# what diffusers, transformers, safetensors and the hub's client raise for files that are missing, broken or foreign
_LOAD_ERRORS: Final = (
    OSError, ValueError, TypeError, AttributeError, LookupError, ImportError, RuntimeError, SafetensorError,
    SingleFileComponentError, HTTPError,
)  # fmt: skip


@dataclass(frozen=True)
class LoadedPair:
    """A pair on its device. One thread at a time renders with it."""

    pair: ModelPair
    base: StableDiffusionXLPipeline
    refiner: StableDiffusionXLImg2ImgPipeline | None
    device: torch.device
    #: of latents, UNets and text encoders; the VAE may have another (``worker.loading.vae``)
    dtype: torch.dtype
    #: as the base came with it: every forward pass makes its scheduler from this
    scheduler_config: Mapping[str, Any]
    fingerprint: Fingerprint
    #: the hub's commit; None for a local or synthetic source
    base_revision: str | None
    refiner_revision: str | None
    vae_revision: str | None
    #: copies of the base's for other threads: the pipelines switch their tokenizers' truncation and padding on and off
    counting_tokenizers: tuple[CLIPTokenizer, ...]
    #: what was done: never "auto"
    offload: Offload
    attention: AttentionChoice
    #: what its text encoders have said
    texts: RememberedTexts = field(default_factory=RememberedTexts)


def load_pair(pair: ModelPair, device: str, cache: Path, timeline: Timeline | None = None) -> LoadedPair:
    """Loads the pair's weights onto the device, and has them hashed meanwhile. They are mapped: main memory has them
    once, as pages of their files, for all processes of a host.

    Raises:
        PairError: a source is missing, unreachable, broken, pickled, or not what an SDXL pair is made of.
        DeviceLostError: the device does not hold it, or failed.
    """
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    target = torch.device(device)
    if target.type == "cpu":  # as passes have (see worker.passes.forward_passes)
        torch.set_num_threads(largest_power_of_two(torch.get_num_threads()))
    dtype = _dtype(pair, target)
    _require_options(pair, target, cache)
    timeline = timeline or Timeline(time.monotonic())
    with timeline.part("files found"):
        files = _located(pair, cache)

    def hash_weights() -> Fingerprint:
        with timeline.part("fingerprint (beside the loading)"):
            return pair_fingerprint(pair, dtype_name(dtype), files, cache)

    hashing = beside("fingerprint", hash_weights)
    base, refiner, offload = _placed(pair, files, target, timeline)
    with timeline.part("fingerprint waited for"), _refusing(pair, pair.base.source):
        fingerprint = hashing.result()
    if offload != "none":
        _log.info("pair %s: offload is %r", pair.name, offload)
    return LoadedPair(
        pair=pair,
        base=base,
        refiner=refiner,
        device=target,
        dtype=dtype,
        scheduler_config=base.scheduler.config,
        fingerprint=fingerprint,
        base_revision=files.base.revision,
        refiner_revision=files.refiner and files.refiner.revision,
        vae_revision=files.vae and files.vae.revision,
        counting_tokenizers=(_for_counting(base.tokenizer), _for_counting(base.tokenizer_2)),
        offload=offload,
        attention=_attention(pair, base, target),
    )


def _placed(
    pair: ModelPair, files: PairFiles, device: torch.device, timeline: Timeline
) -> tuple[StableDiffusionXLPipeline, StableDiffusionXLImg2ImgPipeline | None, Offload]:
    """Base, refiner, and how they were put on the device."""
    dtype = _dtype(pair, device)
    with timeline.part("base loaded"):
        base = _base(pair, files, dtype)
    with timeline.part("base on its device"), _refusing(pair, pair.base.source):
        if pair.offload == "none":
            for network in networks(base):
                network.to(device)  # before the refiner comes: main memory need not hold both
    with timeline.part("refiner loaded"):
        refiner = _refiner(pair, files, base, dtype)
    _log_memory(pair, device, base, refiner)
    with timeline.part("refiner on its device"), _refusing(pair, pair.base.source):
        _apply_options(pair, base, refiner, device)
        return base, refiner, place(base, refiner, device, pair.offload)


def dtype_name(dtype: torch.dtype) -> str:
    """``float16`` for ``torch.float16``."""
    return str(dtype).removeprefix("torch.")


def _dtype(pair: ModelPair, device: torch.device) -> torch.dtype:
    if pair.dtype is not None:
        return getattr(torch, pair.dtype)
    return torch.float16 if device.type == "cuda" else torch.float32


def _require_options(pair: ModelPair, device: torch.device, cache: Path) -> None:
    with _refusing_options(pair):
        require_options(pair.options, device)
    if pair.options.compile != "off":
        keep_compiled_code(cache / "compiled" / pair.options.attention)


def _apply_options(
    pair: ModelPair,
    base: StableDiffusionXLPipeline,
    refiner: StableDiffusionXLImg2ImgPipeline | None,
    device: torch.device,
) -> None:
    """To the UNets, on the device unless they are offloaded, before anything is hooked on them."""
    for unet in [pipe.unet for pipe in (base, refiner) if pipe is not None]:
        if pair.offload == "none":
            unet.to(device)
        apply_to_unet(unet, pair.options)


def _attention(pair: ModelPair, base: StableDiffusionXLPipeline, device: torch.device) -> AttentionChoice:
    shape = AttentionShape(attention_shape(base.unet).head_channels, device, _dtype(pair, device))
    with _refusing_options(pair):
        return attention_choice(pair.options.attention, shape)


@contextmanager
def _refusing_options(pair: ModelPair) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise PairError(f"pair {pair.name!r}: {error}") from None


def _located(pair: ModelPair, cache: Path) -> PairFiles:
    refiner = vae = None
    inversions = []
    with _refusing(pair, pair.base.source):
        base = locate_model(pair.base, "base", cache)
    if pair.refiner is not None:
        with _refusing(pair, pair.refiner.source):
            refiner = locate_model(pair.refiner, "refiner", cache)
    if pair.vae is not None:
        with _refusing(pair, pair.vae.source):
            vae = locate_vae(pair.vae, base, cache)
    for inversion in pair.textual_inversions:
        with _refusing(pair, inversion.source):
            inversions.append(locate_textual_inversion(inversion))
    return PairFiles(base, refiner, vae, tuple(inversions))


def _base(pair: ModelPair, files: PairFiles, dtype: torch.dtype) -> StableDiffusionXLPipeline:
    vae = None
    if pair.vae is not None and files.vae is not None:
        with _refusing(pair, pair.vae.source):
            vae = load_vae(files.vae, files.base, dtype)
    with _refusing(pair, pair.base.source):
        base = load_base(files.base, vae, dtype)
        prepare_vae(base.vae, pair)
    for inversion, file in zip(pair.textual_inversions, files.textual_inversions, strict=True):
        with _refusing(pair, inversion.source):
            load_textual_inversion(base, inversion.token, file)
    return base


def _refiner(
    pair: ModelPair, files: PairFiles, base: StableDiffusionXLPipeline, dtype: torch.dtype
) -> StableDiffusionXLImg2ImgPipeline | None:
    if pair.refiner is None or files.refiner is None:
        return None
    with _refusing(pair, pair.refiner.source):
        return load_refiner(files.refiner, base, dtype)


@contextmanager
def _refusing(pair: ModelPair, source: str) -> Iterator[None]:
    try:
        yield
    except PairError:
        raise
    except (torch.OutOfMemoryError, torch.AcceleratorError) as error:
        # The device's fault and not the pair's: the supervisor starts this process again, and no other ends.
        raise DeviceLostError(
            f"pair {pair.name!r} does not get onto its device: {str(error).splitlines()[0]}"
        ) from None
    except _LOAD_ERRORS as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300].rstrip(".")
        raise PairError(f"pair {pair.name!r}: {source} does not load: {reason}") from None


def _for_counting(tokenizer: CLIPTokenizer) -> CLIPTokenizer:
    counting = copy.deepcopy(tokenizer)
    counting("")  # switches truncation and padding off, once, before threads come
    return counting


def _log_memory(
    pair: ModelPair,
    device: torch.device,
    base: StableDiffusionXLPipeline,
    refiner: StableDiffusionXLImg2ImgPipeline | None,
) -> None:
    shared = size_bytes([base.text_encoder_2, base.vae]) if refiner else 0
    total = size_bytes([*networks(base), *(networks(refiner) if refiner else [])])
    _log.info(
        "pair %s on %s: %d bytes of parameters, %d of them shared by base and refiner", pair.name, device, total, shared
    )
