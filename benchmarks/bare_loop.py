"""The rendering alone, pack after pack in one process, pictures thrown away: what `benchmarks/overhead.py` holds
Nightshift against."""

import argparse
import gc
import hashlib
import json
import sys
import threading
import time
from itertools import cycle

import numpy as np
import torch

from benchmarks import render_command
from farm.watermark import has_room, put_watermark
from schemas.settings import load_settings
from schemas.spec import JobSpec
from worker.loading.pipelines import LoadedPair, load_pair
from worker.passes.embedding import num_chunks
from worker.passes.forward_passes import split
from worker.passes.rendering import render


def run_bare_loop(options: argparse.Namespace) -> None:
    """Says that it is loaded, begins when it is told a line, and ends when nothing more comes: with one line of JSON,
    of each pack when it began and how many images it has, and of each image the sha256 of what Nightshift stores.

    It renders on a thread, as a worker does.
    """
    settings = load_settings()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pair = load_pair(settings.model_pair(options.pair), device, settings.home / "cache")
    packs = _packs(pair, options)
    loop = _Loop(pair, packs)
    gc.freeze()  # as a worker does
    print("loaded", flush=True)
    sys.stdin.readline()
    thread = threading.Thread(target=loop.run)
    thread.start()
    sys.stdin.read()
    loop.is_over.set()
    thread.join()
    pixels = {digest: _marked_sha256(image) for digest, image in loop.images.items()}
    print(json.dumps({"begins": loop.begins, "sizes": loop.sizes, "pixels": pixels}))


Pack = list[list[JobSpec]]


def _packs(pair: LoadedPair, options: argparse.Namespace) -> list[Pack]:
    """Each with its forward passes, as a worker splits it."""
    specs = render_command.specs(options)
    found = []
    for first in range(0, len(specs), options.pass_size):
        pack = specs[first : first + options.pass_size]
        passes = split(pack, [num_chunks(pair, spec) for spec in pack], options.pass_size)
        found.append([[pack[index] for index in indices] for indices in passes])
    return found


class _Loop:
    """The packs, from the first to the last and again. Keeps the pictures, which are checked when all is over."""

    def __init__(self, pair: LoadedPair, packs: list[Pack]) -> None:
        self._pair = pair
        self._packs = packs
        self.is_over = threading.Event()
        self.begins: list[float] = []
        self.sizes: list[int] = []
        self.images: dict[str, np.ndarray] = {}

    def run(self) -> None:
        for pack in cycle(self._packs):
            if self.is_over.is_set():
                return
            self.begins.append(time.time())
            self.sizes.append(sum(map(len, pack)))
            for one in pack:
                made = render(self._pair, one).images
                self.images |= {spec.digest: image for spec, image in zip(one, made, strict=True)}


def _marked_sha256(pixels: np.ndarray) -> str:
    return hashlib.sha256(put_watermark(pixels) if has_room(pixels) else np.ascontiguousarray(pixels)).hexdigest()
