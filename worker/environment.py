"""The environment that a worker renders in, as provenance records it."""

from importlib.metadata import PackageNotFoundError, version
from typing import Final

import torch

from schemas.provenance import Environment
from worker.loading.attention import AttentionShape, attention_shape, kernel_in_force
from worker.loading.pipelines import LoadedPair, dtype_name

_LIBRARIES: Final = (
    "accelerate", "compel", "diffusers", "isal", "numpy", "opencv-python-headless", "peft", "pillow", "safetensors",
    "scipy", "tokenizers", "torch", "torchsde", "transformers", "zlib-ng",
)  # fmt: skip


def environment(pair: LoadedPair) -> Environment:
    """Weights, libraries and device of a loaded pair."""
    description, fingerprint = pair.pair, pair.fingerprint
    return Environment(
        pair=description.name,
        pair_fingerprint=fingerprint.sha256,
        base=description.base.source,
        base_revision=pair.base_revision,
        base_hash=fingerprint.base_hash,
        refiner=description.refiner.source if description.refiner else None,
        refiner_revision=pair.refiner_revision,
        refiner_hash=fingerprint.refiner_hash,
        vae=description.vae.source if description.vae else None,
        vae_revision=pair.vae_revision,
        vae_hash=fingerprint.vae_hash,
        vae_slicing=description.vae_slicing,
        vae_tiling=description.vae_tiling,
        textual_inversions=_textual_inversions(pair),
        license=description.license,
        versions=_versions(pair),
        device=_device_name(pair.device),
        dtype=dtype_name(pair.dtype),
        attention_backend=_attention_backend(pair),
        compile_mode=description.options.compile,
        options=description.options.chosen(),
    )


def _textual_inversions(pair: LoadedPair) -> dict[str, str]:
    tokens = [inversion.token for inversion in pair.pair.textual_inversions]
    return dict(zip(tokens, pair.fingerprint.textual_inversion_hashes, strict=True))


def _versions(pair: LoadedPair) -> dict[str, str]:
    versions = {library: _version(library) for library in (*_LIBRARIES, "nightshift")}
    if pair.pair.options.fp8 != "off":
        versions["torchao"] = _version("torchao")
    if pair.device.type == "cuda":
        versions |= {"cuda": torch.version.cuda, "cudnn": str(torch.backends.cudnn.version())}
    return versions


def _version(library: str) -> str:
    """Nightshift itself may run from a checkout, and OpenCV's module may come from another package."""
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def _device_name(device: torch.device) -> str:
    """A CPU's threads share the work, and their number decides how sums are rounded."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    num_threads = torch.get_num_threads()
    return "cpu, 1 thread" if num_threads == 1 else f"cpu, {num_threads} threads"


def _attention_backend(pair: LoadedPair) -> str:
    """The attention processors of the UNets, and the kernel that their attention gets."""
    pipes = [pipe for pipe in (pair.base, pair.refiner) if pipe is not None]
    processors = {type(processor).__name__ for pipe in pipes for processor in pipe.unet.attn_processors.values()}
    shape = AttentionShape(attention_shape(pair.base.unet).head_channels, pair.device, pair.dtype)
    with pair.attention.in_force():
        return " ".join([*sorted(processors), kernel_in_force(shape)])
