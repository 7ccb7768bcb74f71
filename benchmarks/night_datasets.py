"""What two libraries read of a night's exports: each caption, seed and refiner, and each picture."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.night_checks import Check

#: caption, its prompt, seed, refiner, and the picture's size once it is decoded
Sample = tuple[str, str, str, str, tuple[int, int]]


def dataset_checks(folder: Path, prompts: list[str]) -> list[Check]:
    wanted = Counter[Sample](
        (" ".join(prompt.split()), prompt, seed, refiner, (64, 64))  # a caption is one line, without blanks about it
        for prompt in prompts
        for seed in ("1", "2", "3")
        for refiner in ("off", "ensemble 0.8")
    )
    checks = []
    for name, samples in (("webdataset", _webdataset(folder)), ("datasets", _imagefolder(folder))):
        found = Counter(samples)
        checks += [
            Check(f"samples that {name} reads", found.total(), wanted.total()),
            Check("as they were asked for", (found & wanted).total(), wanted.total()),
        ]
    return checks


def _webdataset(folder: Path) -> Iterator[Sample]:
    import webdataset

    shards = [str(path) for path in sorted((folder / "webdataset").glob("*.tar"))]
    for sample in webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).decode("pil"):
        spec = sample["json"]["spec"]
        asked = spec["refiner"]
        yield sample["txt"], spec["prompt"], spec["seed"], _refiner(asked["mode"], asked["start"]), sample["png"].size


def _imagefolder(folder: Path) -> Iterator[Sample]:
    os.environ |= {"HF_HOME": str(folder / "huggingface"), "HF_HUB_OFFLINE": "1"}  # read when it is imported
    import datasets

    datasets.disable_progress_bars()
    for row in datasets.load_dataset(str(folder / "imagefolder"), split="train"):
        row["image"].load()
        refiner = _refiner(row["refiner.mode"], row["refiner.start"])
        yield row["text"], row["prompt"], row["seed"], refiner, row["image"].size


def _refiner(mode: str, start: float) -> str:
    return mode if mode == "off" else f"{mode} {start}"
