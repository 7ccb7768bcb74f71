"""The rows of `benchmarks/gpu.py` one after the other, within a time: what came of each, and of all together. Pure."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks.figures import Figures
from benchmarks.option_rows import Row


class Bench(Protocol):
    """What measures a row."""

    def refusal(self, row: Row) -> str: ...
    def measured(self, row: Row) -> Figures: ...


@dataclass
class TriedRows:
    """``deadline``: by the monotonic clock. ``scale``: times a row's seconds is about what it takes here. ``show``:
    prints figures under a name, and gives what is recorded of them."""

    bench: Bench
    deadline: float
    scale: float
    show: Callable[[str, Figures], dict[str, Any]]
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def run(self, rows: Iterable[Row]) -> None:
        """Whatever goes wrong with one row, the others are measured."""
        for row in rows:
            left, needed = self.deadline - time.monotonic(), row.seconds * self.scale
            if left < needed:
                _say(row.name, f"left out: {max(left, 0):.0f} s are left, and it takes about {needed:.0f}")
                self.left_out.append(row.name)
                continue
            self.found[row.name] = self._tried(row)

    def exit_code(self) -> str | int:
        """For ``sys.exit``. Says of what it left out how to measure it."""
        if self.left_out:
            names = ",".join(self.left_out)
            print(f'left out for lack of time: {names}; measured by a run of their own, --rows "{names}",'
                  " or with more --seconds", flush=True)  # fmt: skip
        if failed := [name for name, one in self.found.items() if "failure" in one]:
            return f"failed, or other pictures than stated: {', '.join(failed)}"
        is_measured = any("not here" not in one for one in self.found.values())
        return 0 if is_measured else "nothing was measured"

    def _tried(self, row: Row) -> dict[str, Any]:
        try:
            if refusal := self.bench.refusal(row):
                return _not_measured(row, "not here", refusal)
            figures = self.bench.measured(row)
        except Exception as failure:
            return _not_measured(row, "failure", f"{type(failure).__name__}: {failure}")
        shown = self.show(row.name, figures)
        if figures.difference <= row.tolerance:
            return shown
        differs = f"images differ by {figures.difference:.3g} of 255, more than {row.tolerance:g}"
        _say(row.name, differs)
        return {**shown, "failure": differs}


def _not_measured(row: Row, what: str, reason: str) -> dict[str, Any]:
    sentence = reason.splitlines()[0]
    _say(row.name, f"{what}: {sentence}")
    return {what: sentence}


def _say(name: str, sentence: str) -> None:
    print(f"{name:<28}   {sentence}", flush=True)
