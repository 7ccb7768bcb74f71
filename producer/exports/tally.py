"""What an export holds, counted while it is chosen: for its columns, its card, and whether it was made alike."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from producer.exports.done_jobs import DoneJob
from producer.exports.exported_fields import KINDS, META, Kind, kind_of

_COUNTED: Final = (
    *("pair", "scheduler", "num_inference_steps", "guidance_scale", "refiner.mode", "output.format", "prompt_syntax"),
)


class Column(NamedTuple):
    """``is_full``: every row has a value."""

    name: str
    kind: Kind
    is_full: bool


@dataclass
class Tally:
    """Of the chosen jobs; ``left_out`` of the others, by reason."""

    num_images: int = 0
    num_bytes: int = 0
    num_left_out: Counter[str] = field(default_factory=Counter)
    of_split: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    #: (environment, images in the forward pass, how it was compiled)
    made_by: Counter[tuple[str, int, str]] = field(default_factory=Counter)
    #: column → value → how many
    of_value: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in _COUNTED})
    #: column → in how many rows it has a value
    filled: Counter[str] = field(default_factory=Counter)

    def add(self, job: DoneJob, split: str) -> None:
        values = job.values
        self.num_images += 1
        self.num_bytes += job.row.size_bytes
        self.of_split[split] += 1
        self.sizes[job.row.width, job.row.height] += 1
        made = job.provenance.get("forward_pass_size", 0), job.provenance.get("compile_mode", "off")
        self.made_by[str(values["environment"]), *made] += 1
        for name, counter in self.of_value.items():
            counter[str(values[name])] += 1
        self.filled.update([name for name, value in values.items() if value is not None])
        self.filled.update([META + name for name in job.meta])

    @property
    def columns(self) -> tuple[Column, ...]:
        """Those that any row has a value in, meta last."""
        return tuple(Column(name, kind_of(name), self.filled[name] == self.num_images) for name in self._names())

    def _names(self) -> Iterator[str]:
        yield from (name for name in KINDS if self.filled[name])
        yield from sorted(name for name in self.filled if name.startswith(META))
