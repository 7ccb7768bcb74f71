"""The environment that a worker renders in, as provenance records it."""

from importlib.metadata import PackageNotFoundError, version
from typing import Final

import torch

from schemas.provenance import Environment
from worker.pipelines import LoadedPair, dtype_name

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
        versions=_versions(pair.device),
        device=_device_name(pair.device),
        dtype=dtype_name(pair.dtype),
        attention_backend=_attention_backend(pair),
    )


def _textual_inversions(pair: LoadedPair) -> dict[str, str]:
    tokens = [inversion.token for inversion in pair.pair.textual_inversions]
    return dict(zip(tokens, pair.fingerprint.textual_inversion_hashes, strict=True))


def _versions(device: torch.device) -> dict[str, str]:
    versions = {library: version(library) for library in _LIBRARIES} | {"nightshift": _own_version()}
    if device.type == "cuda":
        versions |= {"cuda": torch.version.cuda, "cudnn": str(torch.backends.cudnn.version())}
    return versions


def _own_version() -> str:
    try:
        return version("nightshift")
    except PackageNotFoundError:
        return "not installed"  # run from a checkout


def _device_name(device: torch.device) -> str:
    """A CPU's threads share the work, and their number decides how sums are rounded."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    num_threads = torch.get_num_threads()
    return "cpu, 1 thread" if num_threads == 1 else f"cpu, {num_threads} threads"


def _attention_backend(pair: LoadedPair) -> str:
    """The attention processors of the UNets, and the kernels that PyTorch may choose from on a GPU."""
    pipes = [pipe for pipe in (pair.base, pair.refiner) if pipe is not None]
    processors = {type(processor).__name__ for pipe in pipes for processor in pipe.unet.attn_processors.values()}
    kernels = _sdpa_kernels() if pair.device.type == "cuda" else []
    return " ".join([*sorted(processors), *kernels])


def _sdpa_kernels() -> list[str]:
    backends = torch.backends.cuda
    enabled = {
        "cudnn": backends.cudnn_sdp_enabled(),
        "flash": backends.flash_sdp_enabled(),
        "math": backends.math_sdp_enabled(),
        "mem_efficient": backends.mem_efficient_sdp_enabled(),
    }
    return [name for name, is_enabled in enabled.items() if is_enabled]
