"""The pixels of every job of the pool, rendered one by one without a farm: what a run with faults is held against.

Writes lines to ``$CHAOS_REFERENCE`` as it goes: spec digest, a space, sha256 of the RGB bytes.
"""

import hashlib
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

from producer.manifests.inputs import Inputs
from producer.manifests.manifest import ReadOptions, read_manifest
from producer.manifests.rows import Row
from schemas.settings import load_settings
from tests.chaos.job_pool import pool_rows, write_manifest


def main() -> int:
    from worker.loading.pipelines import load_pair
    from worker.passes.rendering import render

    settings = load_settings()
    pair = load_pair(settings.model_pair("tiny"), "cpu", settings.home / "cache")
    manifest = write_manifest(settings.home / "pool.jsonl", pool_rows())
    with Path(os.environ["CHAOS_REFERENCE"]).open("a", buffering=1) as lines:
        for row in read_manifest(manifest, ReadOptions(inputs=Inputs(settings))):
            assert isinstance(row, Row), row
            (image,) = render(pair, [row.spec]).images
            assert image is not None
            lines.write(f"{row.spec.digest} {hashlib.sha256(image.tobytes()).hexdigest()}\n")
    return 0


class Reference:
    """What ``main`` has written so far, in another process."""

    def __init__(self, path: Path, runs: Callable[[], bool]) -> None:
        self._path = path
        self._runs = runs

    def pixels(self, digests: Collection[str]) -> dict[str, str]:
        """spec digest → sha256 of its pixels. Waits for those that are still to come."""
        while True:
            runs = self._runs()
            lines = self._path.read_text().splitlines() if self._path.exists() else []
            known = dict(line.split(" ") for line in lines if len(line) == 129)
            if known.keys() >= {*digests}:
                return known
            if not runs:
                raise RuntimeError(f"the reference ended without {len({*digests} - known.keys())} jobs of the pool")
            time.sleep(0.2)
