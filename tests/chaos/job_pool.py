"""The jobs of chaos runs: small ones of eight kinds, so that packs differ, each one once in a run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_KINDS: tuple[dict[str, Any], ...] = (
    {"width": 64, "height": 64, "scheduler": "euler", "refiner.start": 0.5},
    {"width": 64, "height": 64, "scheduler": "euler", "refiner.mode": "off"},
    {"width": 64, "height": 96, "scheduler": "Euler a", "refiner.start": 0.5},
    {"width": 64, "height": 64, "scheduler": "DPM++ 2M", "refiner.start": 0.5, "num_inference_steps": 4},
    {"width": 96, "height": 64, "scheduler": "DDIM", "refiner.mode": "img2img", "refiner.strength": 0.5},
    {"width": 64, "height": 64, "scheduler": "euler", "refiner.start": 0.5, "guidance_scale": 1.0},
    {"width": 64, "height": 96, "scheduler": "Euler a", "refiner.start": 0.5, "output.format": "webp"},
    {"width": 64, "height": 64, "scheduler": "DPM++ 2M", "refiner.start_step": 1},
)
NUM_JOBS = 224
#: for pairs without one
NUM_WITHOUT_REFINER = 8


def pool_rows() -> list[dict[str, Any]]:
    """Every job that a run may have, as rows of a JSONL manifest: first those without a refiner."""
    return [*rows_without_refiner(), *ordinary_rows()]


def rows_without_refiner() -> list[dict[str, Any]]:
    return [
        {"prompt": f"a harbour, number {n}", "seed": n, "num_inference_steps": 2, **_KINDS[1]}
        for n in range(NUM_WITHOUT_REFINER)
    ]


def ordinary_rows() -> list[dict[str, Any]]:
    return [
        {"prompt": f"a lighthouse, number {n}", "seed": n, "num_inference_steps": 2, **_KINDS[n // 4 % len(_KINDS)]}
        for n in range(NUM_JOBS)
    ]


def poison_row(poison: str) -> dict[str, Any]:
    return {"prompt": poison, "seed": 1, "num_inference_steps": 2, **_KINDS[0]}


def write_manifest(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
