"""Loads a pair onto a device: base and refiner once, sharing ``text_encoder_2``, ``tokenizer_2`` and the VAE.

Safetensors only: nothing is unpickled, and no code that lies beside the weights is run.
"""

import copy
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import diffusers.utils.logging
import torch
import transformers.utils.logging
from diffusers import DiffusionPipeline, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from huggingface_hub.errors import HTTPError
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, PreTrainedModel

from schemas.errors import DeviceLostError, PairError
from schemas.pair import ModelPair, ModelSource
from worker.fingerprint import Fingerprint, has_variant, pair_fingerprint
from worker.synthetic import synthetic_pair_folder

_log: Final = logging.getLogger("nightshift.worker")

_SYNTHETIC: Final = "synthetic:"
_TEXT_ENCODERS: Final = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
_SHARED: Final = ("text_encoder_2", "tokenizer_2", "vae")
# what diffusers, transformers, safetensors and the hub's client raise for files that are missing, broken or foreign
_LOAD_ERRORS: Final = (
    OSError, ValueError, TypeError, AttributeError, LookupError, ImportError, RuntimeError, SafetensorError,
    HTTPError,
)  # fmt: skip


@dataclass(frozen=True)
class LoadedPair:
    """A pair on its device. One thread at a time renders with it."""

    pair: ModelPair
    base: StableDiffusionXLPipeline
    refiner: StableDiffusionXLImg2ImgPipeline | None
    device: torch.device
    dtype: torch.dtype
    #: as the base came with it: every forward pass makes its scheduler from this
    scheduler_config: Mapping[str, Any]
    fingerprint: Fingerprint
    #: the hub's commit; None for a local or synthetic source
    base_revision: str | None
    refiner_revision: str | None
    #: copies of the base's for other threads: the pipelines switch their tokenizers' truncation and padding on and off
    counting_tokenizers: tuple[CLIPTokenizer, ...]


def load_pair(pair: ModelPair, device: str, cache: Path) -> LoadedPair:
    """Loads the pair's weights onto the device.

    Raises:
        PairError: a source is missing, unreachable, broken, pickled, or not what an SDXL pair is made of.
    """
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    target = torch.device(device)
    dtype = _dtype(pair, target)
    with _refusing(pair, pair.base):
        base_folder = _folder(pair.base, "base", cache)
        base = _load_base(pair.base, base_folder, dtype).to(target)
    refiner_folder = refiner = None
    if pair.refiner is not None:
        with _refusing(pair, pair.refiner):
            refiner_folder = _folder(pair.refiner, "refiner", cache)
            refiner = _load_refiner(pair.refiner, refiner_folder, base, dtype).to(target)
    _log_memory(pair, target, base, refiner)
    with _refusing(pair, pair.base):
        fingerprint = pair_fingerprint(pair, dtype_name(dtype), base_folder, refiner_folder, cache)
    return LoadedPair(
        pair=pair,
        base=base,
        refiner=refiner,
        device=target,
        dtype=dtype,
        scheduler_config=base.scheduler.config,
        fingerprint=fingerprint,
        base_revision=_commit(base_folder),
        refiner_revision=_commit(refiner_folder) if refiner_folder else None,
        counting_tokenizers=(_for_counting(base.tokenizer), _for_counting(base.tokenizer_2)),
    )


def dtype_name(dtype: torch.dtype) -> str:
    """``float16`` for ``torch.float16``."""
    return str(dtype).removeprefix("torch.")


def _dtype(pair: ModelPair, device: torch.device) -> torch.dtype:
    if pair.dtype is not None:
        return getattr(torch, pair.dtype)
    return torch.float16 if device.type == "cuda" else torch.float32


def _for_counting(tokenizer: CLIPTokenizer) -> CLIPTokenizer:
    counting = copy.deepcopy(tokenizer)
    counting("")  # switches truncation and padding off, once, before threads come
    return counting


@contextmanager
def _refusing(pair: ModelPair, source: ModelSource) -> Iterator[None]:
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
        raise PairError(f"pair {pair.name!r}: {source.source} does not load: {reason}") from None


def _folder(source: ModelSource, part: str, cache: Path) -> Path:
    """Where the model lies on this machine; a hub's model is fetched first."""
    if source.source.startswith(_SYNTHETIC):
        return synthetic_pair_folder(source.source.removeprefix(_SYNTHETIC), cache) / part
    if Path(source.source).is_absolute():
        return _local_folder(Path(source.source))
    passed = dict.fromkeys(_SHARED) if part == "refiner" else {}  # not fetched: the base's are used
    return Path(
        DiffusionPipeline.download(
            source.source, revision=source.revision, variant=source.variant, use_safetensors=True, **passed
        )
    )


def _local_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError("there is no such folder")
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError("the folder has no model_index.json, so it is no model in diffusers' layout")
    return folder


def _commit(folder: Path) -> str | None:
    """The hub keeps a revision's files in ``snapshots/<commit>``."""
    return folder.name if folder.parent.name == "snapshots" else None


def _load_base(source: ModelSource, folder: Path, dtype: torch.dtype) -> StableDiffusionXLPipeline:
    encoders = {name: _text_encoder(source, folder / name, dtype) for name in _TEXT_ENCODERS}
    base = _from_pretrained(StableDiffusionXLPipeline, source, folder, dtype=dtype, **encoders)
    _require_vocabulary(base.tokenizer, base.text_encoder)
    _require_vocabulary(base.tokenizer_2, base.text_encoder_2)
    _require_unet(base, sum(encoder.config.hidden_size for encoder in encoders.values()), num_time_ids=6)
    base.vae.enable_slicing()  # one image at a time: eight of 1024 x 1024 would take 24 GB in float32
    return base


def _text_encoder(source: ModelSource, folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """Not left to the pipeline: it would fill tensors that are missing with random numbers, and say so in a log."""
    _require(folder.is_dir(), f"it has no {folder.name}, so it is no SDXL base")
    encoder, report = _TEXT_ENCODERS[folder.name].from_pretrained(
        folder,
        variant=source.variant if has_variant(folder, source.variant) else None,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    missing = sorted(report["missing_keys"])
    _require(not missing, f"the weights of its {folder.name} lack {', '.join(missing[:3])}")
    return encoder


def _load_refiner(
    source: ModelSource, folder: Path, base: StableDiffusionXLPipeline, dtype: torch.dtype
) -> StableDiffusionXLImg2ImgPipeline:
    shared = {name: getattr(base, name) for name in _SHARED}
    refiner = _from_pretrained(StableDiffusionXLImg2ImgPipeline, source, folder, dtype=dtype, **shared)
    num_time_ids = 5 if refiner.config.requires_aesthetics_score else 6
    _require_unet(refiner, base.text_encoder_2.config.hidden_size, num_time_ids)
    return refiner


def _from_pretrained(pipeline: type[DiffusionPipeline], source: ModelSource, folder: Path, **options: Any) -> Any:
    pipe = pipeline.from_pretrained(
        folder, variant=source.variant, use_safetensors=True, trust_remote_code=False, add_watermarker=False, **options
    )
    pipe.set_progress_bar_config(disable=True)
    for module in _modules(pipe):
        module.eval()
    return pipe


def _require_vocabulary(tokenizer: CLIPTokenizer, encoder: PreTrainedModel) -> None:
    """A tokenizer without its files is made all the same, and knows nothing."""
    known, embedded = len(tokenizer), encoder.config.vocab_size
    _require(known == embedded, f"a tokenizer of it knows {known} tokens, and its text encoder {embedded}")


def _require_unet(pipe: DiffusionPipeline, width: int, num_time_ids: int) -> None:
    """Raises ValueError where the UNet would fail at its first step, hours after the worker has started."""
    config = pipe.unet.config
    _require(
        config.cross_attention_dim == width,
        f"its UNet attends to {config.cross_attention_dim} channels, and the text encoders give {width}",
    )
    expected = num_time_ids * config.addition_time_embed_dim + pipe.text_encoder_2.config.projection_dim
    taken = config.projection_class_embeddings_input_dim
    _require(taken == expected, f"its UNet takes {taken} added channels, and {num_time_ids} time ids give {expected}")


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise ValueError(reason)


def _log_memory(pair: ModelPair, device: torch.device, base: DiffusionPipeline, refiner: Any) -> None:
    shared = _size_bytes([base.text_encoder_2, base.vae]) if refiner else 0
    modules = _modules(base) + (_modules(refiner) if refiner else [])
    total = _size_bytes({id(module): module for module in modules}.values())
    _log.info(
        "pair %s on %s: %d bytes of parameters, %d of them shared by base and refiner", pair.name, device, total, shared
    )


def _modules(pipe: DiffusionPipeline) -> list[torch.nn.Module]:
    return [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]


def _size_bytes(modules: Iterable[torch.nn.Module]) -> int:
    return sum(tensor.numel() * tensor.element_size() for module in modules for tensor in module.parameters())
