"""The fingerprint of a pair: which weights and which options decide its pixels.

Reads the weight and config files that the pipelines load. ``farm.file_digests`` remembers their digests in the cache,
so that a restart does not read 14 GB again. A first start reads them beside the loading, all files at once.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from farm.file_digests import file_sha256
from schemas.digest import canonical_json, sha256_hex
from schemas.pair import ModelPair
from worker.beside import beside
from worker.loading.model_files import ModelFiles, PairFiles
from worker.loading.weight_files import weight_files

#: What the pipelines load from each folder; the refiner is given the base's other parts.
BASE_PARTS: Final = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler", "unet", "vae")
REFINER_PARTS: Final = ("unet",)
_SHORT: Final = 10  # hexadecimal digits

_TEXTS: Final = frozenset({".json", ".txt"})
# who wrote a config, and from where, changes no pixel
_SIGNATURES: Final = frozenset({"_diffusers_version", "_name_or_path", "name_or_path", "transformers_version"})


@dataclass(frozen=True)
class Fingerprint:
    """sha256 of everything, and short hashes of weights as A1111 writes them: of a single file, else of the UNet's."""

    sha256: str
    base_hash: str
    refiner_hash: str | None
    #: of the VAE in place of the base's own
    vae_hash: str | None = None
    #: of each textual inversion's file
    textual_inversion_hashes: tuple[str, ...] = ()


def pair_fingerprint(pair: ModelPair, dtype: str, files: PairFiles, cache: Path) -> Fingerprint:
    """The fingerprint of a pair that is loaded from these files, whatever their names and times are."""
    _hash_at_once(files, cache)
    other_vae = {"vae": _part_digests(files.vae.folder, files.vae, cache)} if files.vae else {}
    inversions = [file_sha256(path, cache) for path in files.textual_inversions]
    tokens = [inversion.token for inversion in pair.textual_inversions]
    everything = {
        "base": _model_digests(files.base, BASE_PARTS, cache) | other_vae,
        "refiner": files.refiner and _model_digests(files.refiner, REFINER_PARTS, cache),
        "textual_inversions": sorted(zip(tokens, inversions, strict=True)),
        "dtype": dtype,
        "watermark": pair.watermark,
        "vae_slicing": pair.vae_slicing,
        "vae_tiling": pair.vae_tiling,
        **_options(pair),
    }
    return Fingerprint(
        sha256=sha256_hex(canonical_json(everything)),
        base_hash=_short_hash(files.base.folder / "unet", files.base, cache),
        refiner_hash=files.refiner and _short_hash(files.refiner.folder / "unet", files.refiner, cache),
        vae_hash=files.vae and _short_hash(files.vae.folder, files.vae, cache),
        textual_inversion_hashes=tuple(digest[:_SHORT] for digest in inversions),
    )


def _options(pair: ModelPair) -> dict[str, Any]:
    """Nothing where all are as by default: what was rendered before there were options keeps its fingerprint."""
    options = pair.options.moving_pixels()
    return {"options": options} if options else {}


def _hash_at_once(files: PairFiles, cache: Path) -> None:
    """Remembers the digest of every file: two UNets are most of it, and take half the time side by side."""
    weights = {*files.textual_inversions, *(_weights(files.vae.folder, files.vae) if files.vae else ())}
    for model, parts in ((files.base, BASE_PARTS), (files.refiner, REFINER_PARTS)):
        for part in parts if model else ():
            weights |= {*_weights(model.folder / part, model)}
    hashing = [beside("digest", partial(file_sha256, path, cache)) for path in weights]
    for digest in hashing:
        digest.result()


def _model_digests(files: ModelFiles, parts: Iterable[str], cache: Path) -> dict[str, list[str]]:
    digests = {part: _part_digests(files.folder / part, files, cache) for part in parts}
    return digests | {"model_index": [_text_digest(files.folder / "model_index.json")]}


def _part_digests(folder: Path, files: ModelFiles, cache: Path) -> list[str]:
    weights = [file_sha256(path, cache) for path in _weights(folder, files)]
    return weights + [f"{path.name} {_text_digest(path)}" for path in _text_files(folder)]


def _weights(folder: Path, files: ModelFiles) -> list[Path]:
    return weight_files(folder, files.variant) if files.file is None else [files.file]


def _text_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.suffix in _TEXTS and not path.name.endswith(".index.json"):
            yield path


def _text_digest(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        return sha256_hex(text)
    content = json.loads(text)
    return sha256_hex(canonical_json({key: value for key, value in content.items() if key not in _SIGNATURES}))


def _short_hash(folder: Path, files: ModelFiles, cache: Path) -> str:
    digests = [file_sha256(path, cache) for path in _weights(folder, files)]
    whole = digests[0] if len(digests) == 1 else sha256_hex("".join(digests))
    return whole[:_SHORT]
