"""The dataset card, ``README.md``: YAML that the Hugging Face hub reads, and how the images were made.

Licences are repeated, never guessed: what a pair says of its weights, by the hub's name where it is one of SDXL's own.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from producer.exports.options import ExportOptions
from producer.exports.tally import Tally
from producer.exports.uniformity import differences
from schemas.printable import printable
from schemas.schedulers import short_scheduler_name

#: how the weights' licence is written in a pair → the hub's name for it
_HUB_LICENCES: Final = {"CreativeML Open RAIL++-M": "openrail++", "unknown": "unknown"}
_SIZES: Final = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
                 (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))  # fmt: skip
_SHOWN: Final = 20


@dataclass(frozen=True)
class Card:
    """``environments``: digest → content. ``data_files``: split → as the hub finds its files."""

    options: ExportOptions
    tally: Tally
    environments: Mapping[str, Mapping[str, Any]]
    data_files: Mapping[str, str]
    versions: Mapping[str, str]
    plan: str

    def text(self) -> str:
        lines = [
            "---",
            *self._front_matter(),
            "---",
            "",
            *self._introduction(),
            "",
            *self._made(),
            "",
            *self._environments(),
        ]
        return "\n".join([*lines, "", *self._left_out(), "## Columns", "", *self._columns(), ""])

    def _front_matter(self) -> list[str]:
        """JSON strings are YAML's own double-quoted ones."""
        licences = sorted({str(content["license"]) for content in self.environments.values()})
        files = [
            line for split, path in self.data_files.items()
            for line in (f"      - split: {split}", f"        path: {_quoted(path)}")
        ]  # fmt: skip
        return [
            *_licence(self.options.licence, licences),
            "size_categories:", f"  - {_size_category(self.tally.num_images)}",
            "task_categories:", "  - text-to-image",
            "tags:", "  - synthetic", "  - nightshift",
            *(["  - webdataset"] if self.options.format == "webdataset" else []),
            "configs:", "  - config_name: default", "    data_files:", *files,
        ]  # fmt: skip

    def _introduction(self) -> list[str]:
        splits = ", ".join(f"{name} {self.tally.of_split[name]:,}" for name in self.data_files)
        licences = ", ".join(sorted({str(content["license"]) for content in self.environments.values()}))
        return [
            "# Synthetic images and their prompts", "",
            f"{self.tally.num_images:,} images ({splits}), {self.tally.num_bytes:,} bytes. "
            "**Every image is synthetic**: made from its prompt by a model, and marked so in its own metadata "
            "(`trainedAlgorithmicMedia`).", "",
            f"Licence of the model's weights: {licences}.",
        ]  # fmt: skip

    def _made(self) -> list[str]:
        names = {"pair": "pairs", "num_inference_steps": "steps", "guidance_scale": "guidance scale",
                 "refiner.mode": "refiner", "output.format": "format", "prompt_syntax": "prompt syntax"}  # fmt: skip
        of_value, options = self.tally.of_value, self.options
        schedulers = Counter({short_scheduler_name(name): num for name, num in of_value["scheduler"].items()})
        sizes = Counter({f"{width} × {height}": num for (width, height), num in self.tally.sizes.items()})
        where = "; ".join(f"`{printable(where.text)}`" for where in options.where) or "all that were done"
        return [
            "## How it was made", "",
            f"- rendered and exported by Nightshift {self.versions['nightshift']}, format {options.format}",
            f"- chosen from the jobs: {where}",
            *(f"- {said}: {_listed(of_value[name])}" for name, said in names.items()),
            f"- scheduler: {_listed(schedulers)}",
            f"- width × height: {_listed(sizes)}",
            *([f"- splits by the sha256 of the prompt, so that no prompt is in two: {_shares(options)}"]
              if len(options.splits.shares) > 1 else []),
            f"- export: `{self.plan}`",
        ]  # fmt: skip

    def _environments(self) -> list[str]:
        lines = ["## Environments", ""]
        counted: Counter[str] = Counter()
        for (digest, *_), num in self.tally.made_by.items():
            counted[digest] += num
        for digest, num in sorted(counted.items()):
            lines += [f"`{digest}` ({num:,} images)", "", "```json", _json(self.environments[digest]), "```", ""]
        found = differences(self.tally, self.environments)
        uniform = "All images were made alike: same weights, versions, device and size of the forward passes."
        return [*lines, *([uniform] if not found else ["They differ in", "", *(f"- {line}" for line in found)])]

    def _left_out(self) -> list[str]:
        if not self.tally.num_left_out:
            return []
        looks, counted = self.options.looks, _listed(self.tally.num_left_out)
        near = f"; near-duplicates differ in at most {looks.max_distance} of 64 bits (pHash)"
        near = near if "duplicates" in looks.without else ""
        return ["## Left out", "", f"{counted}{near}. Each is named in `left_out.jsonl`.", ""]

    def _columns(self) -> Iterable[str]:
        names = ", ".join(f"`{printable(column.name)}`" for column in self.tally.columns)
        spec = "`spec` is everything that decides an image's pixels beside the weights, less fields at their default."
        return [f"The caption is `text` (WebDataset: `.txt`). Beside it: {names}.", "", spec]


def _licence(given: str | None, licences: list[str]) -> list[str]:
    """One that the hub does not know is ``other``, by the name that the pair gives it."""
    if given is not None:
        return [f"license: {_quoted(given)}"]
    if len(licences) == 1 and licences[0] in _HUB_LICENCES:
        return [f"license: {_HUB_LICENCES[licences[0]]}"]
    return ["license: other", f"license_name: {_quoted(', '.join(licences))}"]


def _size_category(num_images: int) -> str:
    return next((name for most, name in _SIZES if num_images < most), "n>1B")


def _listed(counted: Counter[str]) -> str:
    common = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    more = [f"and {len(common) - _SHOWN} more"] if len(common) > _SHOWN else []
    return ", ".join([*(f"{value} ({num:,})" for value, num in common[:_SHOWN]), *more])


def _shares(options: ExportOptions) -> str:
    return ", ".join(f"{name} {share:g}" for name, share in options.splits.shares)


def _quoted(text: str) -> str:
    return json.dumps(text)


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
