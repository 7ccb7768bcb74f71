"""Where the files of a pair lie on this machine: a folder, a single file, the hub's cache.

What is on the hub is fetched into its client's cache: weights in safetensors and texts, nothing else. Synthetic models
are built in the worker's cache.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from diffusers import DiffusionPipeline
from huggingface_hub import hf_hub_download, snapshot_download

from schemas.pair import SAFETENSORS, SYNTHETIC, ModelSource, TextualInversion
from worker.loading.weight_files import require_honest_file, require_honest_folder
from worker.synthetic_pairs.synthetic import synthetic_pair_folder

#: What the refiner is given by the base.
SHARED_PARTS: Final = ("text_encoder_2", "tokenizer_2", "vae")

#: what has weights, and is loaded from the model's own folder
_WEIGHTS_OF: Final = {"base": ("text_encoder", "text_encoder_2", "unet", "vae"), "refiner": ("unet",)}
_DEFAULT_CONFIGS: Final = {
    "base": "stabilityai/stable-diffusion-xl-base-1.0",
    "refiner": "stabilityai/stable-diffusion-xl-refiner-1.0",
}
_TEXTS: Final = ["*.json", "*.txt"]  # the hub's patterns: a star also stands for folders


@dataclass(frozen=True)
class ModelFiles:
    """One model. ``folder`` has its configs, and its weights where there is no ``file``."""

    folder: Path
    variant: str | None = None
    #: weights of every part in one safetensors file
    file: Path | None = None

    @property
    def revision(self) -> str | None:
        """The hub's commit, for it keeps a revision's files in ``snapshots/<commit>``; None for a local source."""
        return _commit(self.folder) if self.file is None else None


@dataclass(frozen=True)
class PairFiles:
    """Everything that a pair is loaded from."""

    base: ModelFiles
    refiner: ModelFiles | None = None
    #: in place of the base's; ``folder`` is the VAE's own
    vae: ModelFiles | None = None
    #: of each textual inversion of the pair, in its order
    textual_inversions: tuple[Path, ...] = ()


def locate_model(source: ModelSource, part: str, cache: Path) -> ModelFiles:
    """The ``part``: base or refiner.

    Raises:
        OSError: the files cannot be had; or an error of the hub's client.
        ValueError: one is a pickle, cut off, or has a header that lies. So do the others here.
    """
    if not source.is_file:
        folder = _model_folder(source, part, cache)
        require_honest_folder(folder, _WEIGHTS_OF[part], source.variant)
        return ModelFiles(folder, source.variant)
    file = _honest(Path(source.source))
    configs = ModelSource(source=source.config or _DEFAULT_CONFIGS[part], revision=source.revision)
    return ModelFiles(_config_folder(configs, part, cache), file=file)


def locate_vae(source: ModelSource, base: ModelFiles, cache: Path) -> ModelFiles:
    """A single file without ``config`` is understood by the config of the base's VAE."""
    if not source.is_file:
        folder = _vae_folder(_vae_home(source, cache))
        require_honest_folder(folder.parent, [folder.name], source.variant)
        return ModelFiles(folder, source.variant)
    file = _honest(Path(source.source))
    if source.config is None:
        return ModelFiles(base.folder / "vae", file=file)
    home = _vae_home(ModelSource(source=source.config, revision=source.revision), cache)
    return ModelFiles(_vae_folder(home), file=file)


def locate_textual_inversion(inversion: TextualInversion) -> Path:
    if inversion.is_file:
        return _existing(Path(inversion.source))
    return Path(hf_hub_download(inversion.source, inversion.weight_name, revision=inversion.revision))


def _model_folder(source: ModelSource, part: str, cache: Path) -> Path:
    local = _local_folder(source, part, cache)
    if local is not None:
        return _in_layout(local)
    passed = dict.fromkeys(SHARED_PARTS) if part == "refiner" else {}  # not fetched: the base's are used
    return Path(
        DiffusionPipeline.download(
            source.source, revision=source.revision, variant=source.variant, use_safetensors=True, **passed
        )
    )


def _config_folder(configs: ModelSource, part: str, cache: Path) -> Path:
    local = _local_folder(configs, part, cache)
    if local is not None:
        return _in_layout(local)
    return Path(snapshot_download(configs.source, revision=configs.revision, allow_patterns=_TEXTS))


def _vae_home(source: ModelSource, cache: Path) -> Path:
    local = _local_folder(source, "base", cache)
    if local is not None:
        return local
    weights = f"diffusion_pytorch_model{'.' + source.variant if source.variant else ''}{SAFETENSORS}"
    wanted = [f"{folder}{name}" for folder in ("", "vae/") for name in ("config.json", weights)]
    return Path(
        snapshot_download(source.source, revision=source.revision, allow_patterns=["model_index.json", *wanted])
    )


def _vae_folder(home: Path) -> Path:
    """The VAE's own folder, or that of a model which has one in ``vae``."""
    if (home / "model_index.json").is_file():
        return home / "vae"
    if not (home / "config.json").is_file():
        raise FileNotFoundError("the folder has no config.json, so it is no VAE in diffusers' layout")
    return home


def _local_folder(source: ModelSource, part: str, cache: Path) -> Path | None:
    """None for a hub id."""
    if source.source.startswith(SYNTHETIC):
        return synthetic_pair_folder(source.source.removeprefix(SYNTHETIC), cache) / part
    if not Path(source.source).is_absolute():
        return None
    if not Path(source.source).is_dir():
        raise FileNotFoundError("there is no such folder")
    return Path(source.source)


def _in_layout(folder: Path) -> Path:
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError("the folder has no model_index.json, so it is no model in diffusers' layout")
    return folder


def _honest(file: Path) -> Path:
    require_honest_file(_existing(file))
    return file


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise FileNotFoundError("there is no such file")
    return file


def _commit(folder: Path) -> str | None:
    """Of a model's folder, or of the ``vae`` in one."""
    return next((place.name for place in (folder, folder.parent) if place.parent.name == "snapshots"), None)
