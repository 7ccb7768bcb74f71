"""LoRAs on the base of a pinned pair, by diffusers' own loader. Everything here happens on the device thread.

An adapter is named by its file's sha256. ``text_encoder_2`` is the refiner's too, and a LoRA is the base's alone:
``without_loras`` switches it off there while the refiner embeds its prompts.
"""

import re
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import StableDiffusionXLPipeline
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError

from schemas.errors import InputFileError, SpecError
from schemas.loras import Lora
from worker.loading.adapter_config import refuse_unsafe_adapter
from worker.loading.pipelines import LoadedPair
from worker.loading.weight_files import require_honest_file

#: Adapters that stay loaded for the next passes; one takes 20 MB to 1 GB on the device.
MAX_LOADED: Final = 4
_COMPONENTS: Final = ("unet", "text_encoder", "text_encoder_2")
#: what diffusers, peft, transformers and safetensors raise for files that do not fit
_LOAD_ERRORS: Final = (
    OSError, ValueError, TypeError, AttributeError, LookupError, RuntimeError, ImportError, SafetensorError,
)  # fmt: skip
#: in what torch says
_SIZE_MISMATCH: Final = re.compile(
    r"size mismatch for (?P<name>\S+): .* torch\.Size\((?P<given>\[.*?\])\).* torch\.Size\((?P<wanted>\[.*?\])\)"
)
_DEVICE_ERRORS: Final = (torch.OutOfMemoryError, torch.AcceleratorError)


def set_adapters(pair: LoadedPair, loras: Sequence[Lora], files: Mapping[str, Path]) -> None:
    """Puts these LoRAs on the base, with their weights, and takes all others off it.

    Without LoRAs the base computes what it computed before it had any, bit for bit. ``files``: sha256 → safetensors.

    Raises:
        InputFileError: a LoRA does not fit this base, changes nothing of it, or only a part of it would be used. The
            base has no LoRA then.
        SpecError: the pair's weights are not whole on any device.
    """
    loaded = _loaded(pair.base)
    if loras and pair.offload == "sequential":
        raise SpecError(
            f'loras: pair {pair.pair.name!r} is offloaded layer by layer; with LoRAs offload is "model" at most'
        )
    if not loras:
        _take_off(pair.base, loaded)
        return
    names = [lora.sha256 for lora in loras]
    _make_room(pair.base, [name for name in loaded if name not in names], MAX_LOADED - len(names))
    for lora in loras:
        if lora.sha256 not in loaded:
            _load(pair.base, lora, files[lora.sha256])
    pair.base.enable_lora()
    pair.base.set_adapters(names, [lora.weight for lora in loras])


@contextmanager
def without_loras(encoder: torch.nn.Module) -> Iterator[None]:
    """While inside, the text encoder has no LoRAs: for the prompts of the refiner, which shares it."""
    layers = [layer for layer in _adapter_layers(encoder) if not layer.disable_adapters]
    for layer in layers:
        layer.enable_adapters(enabled=False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(enabled=True)


def worn(network: torch.nn.Module) -> Hashable:
    """Which adapters change what the network computes now, and how strongly: equal only where it computes the same."""
    return frozenset(
        (name, layer.scaling[name], layer.active_adapters.index(name))
        for layer in _adapter_layers(network)
        if not layer.disable_adapters
        for name in layer.active_adapters
        if name in layer.scaling
    )


def _loaded(base: StableDiffusionXLPipeline) -> list[str]:
    """Names of the adapters on the base, those loaded first before the others."""
    return list(dict.fromkeys(name for names in base.get_list_adapters().values() for name in names))


def _take_off(base: StableDiffusionXLPipeline, loaded: list[str]) -> None:
    """Switched off at first: batches take turns. Unloaded at the second pass without: adapter layers cost time."""
    if not loaded:
        return
    if all(layer.disable_adapters for name in _COMPONENTS for layer in _adapter_layers(getattr(base, name))):
        base.unload_lora_weights()
    else:
        base.disable_lora()


def _make_room(base: StableDiffusionXLPipeline, unused: list[str], num_kept: int) -> None:
    too_many = unused[: max(0, len(unused) - max(0, num_kept))]
    if too_many:
        base.delete_adapters(too_many)


def _load(base: StableDiffusionXLPipeline, lora: Lora, file: Path) -> None:
    """All of it or nothing: after an error all adapters are gone, for some layers may have got this one."""
    try:
        require_honest_file(file)
        refuse_unsafe_adapter(file)
        with warnings.catch_warnings():  # peft warns of a second LoRA beside the first
            warnings.filterwarnings("ignore", "Already found a `peft_config` attribute", UserWarning)
            base.load_lora_weights(str(file), adapter_name=lora.sha256, use_safetensors=True, local_files_only=True)
        _require_whole(base, lora, file)
        for name in _COMPONENTS:
            getattr(base, name).eval()  # or the dropout of the training would go on
    except _DEVICE_ERRORS:
        base.unload_lora_weights()
        raise
    except _LOAD_ERRORS as error:
        reason = _other_shape(base, lora, str(error)) or _reason(error)
        base.unload_lora_weights()
        raise InputFileError(f"LoRA {lora.name!r} ({lora.sha256[:12]}) does not fit the base: {reason}") from None


def _other_shape(base: StableDiffusionXLPipeline, lora: Lora, told: str) -> str | None:
    """torch names the tensor behind the first line; transformers in a log alone, and leaves the adapter on."""
    if found := _SIZE_MISMATCH.search(told):
        name = found["name"].replace(f".{lora.sha256}", "")
        return f"its tensor {name} has the shape {found['given']}, and there {found['wanted']} is right"
    if "ignore_mismatched_sizes" not in told:
        return None
    begun = [name for name in _COMPONENTS if _tensors(getattr(base, name), lora.sha256)]
    return f"a tensor of its {begun[-1]} has another shape than there is right"


def _reason(error: Exception) -> str:
    """In one line. diffusers' tidying up may fail over what was not begun, and hides why it tidied up."""
    told = error.__context__ if isinstance(error, KeyError) and error.__context__ else error
    return (str(told).strip() or type(told).__name__).splitlines()[0][:300].rstrip(".:")


def _require_whole(base: StableDiffusionXLPipeline, lora: Lora, file: Path) -> None:
    """diffusers only logs what it leaves out. Raises ValueError."""
    tensors = base.lora_state_dict(
        str(file), unet_config=base.unet.config, use_safetensors=True, local_files_only=True
    )[0]
    in_place = [tensor for name in _COMPONENTS for tensor in _tensors(getattr(base, name), lora.sha256)]
    if len(in_place) != len(tensors) or any(tensor.is_meta for tensor in in_place):
        raise ValueError(f"of its {len(tensors)} tensors {len(in_place)} have a place in it")


def _tensors(module: torch.nn.Module, adapter: str) -> list[torch.nn.Parameter]:
    return [tensor for name, tensor in module.named_parameters() if adapter in name]


def _adapter_layers(module: torch.nn.Module) -> list[Any]:
    if not hasattr(module, "peft_config"):  # set with the first adapter, gone with the last
        return []  # of a text encoder this is asked for every prompt, and it has hundreds of modules
    return [layer for layer in module.modules() if isinstance(layer, BaseTunerLayer)]
