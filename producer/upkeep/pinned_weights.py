"""Whether the workers of a pair have pinned the same: a host with other weights or options makes other images."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import select

from farm.database import Transaction, question
from farm.workers import is_live
from schemas.tables import Worker

_SHOWN_DIGITS: Final = 8


@dataclass
class PinnedWeights:
    """Of one pair, by its live workers. ``hosts``: fingerprint → their hosts."""

    pair: str
    hosts: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    @property
    def agree(self) -> bool:
        return len(self.hosts) == 1

    def __str__(self) -> str:
        if self.agree:
            (hosts,) = self.hosts.values()
            where = "one host" if len(hosts) == 1 else f"{len(hosts)} hosts"
            return f"the workers of pair {self.pair} have pinned the same, on {where}"
        parts = [f"{sha256[:_SHOWN_DIGITS]} on {', '.join(sorted(hosts))}" for sha256, hosts in self.hosts.items()]
        return (
            f"the workers of pair {self.pair} have pinned different weights or options: {'; '.join(sorted(parts))}."
            " Their images differ: copy the model files and the pair's settings from one,"
            " then start the others again"
        )


@question
def pinned_weights(tx: Transaction, seen_within_seconds: float) -> list[PinnedWeights]:
    """Of each pair that live workers have loaded, by name."""
    found: dict[str, PinnedWeights] = {}
    loaded = select(Worker.pair, Worker.pair_fingerprint, Worker.host).where(
        is_live(tx, seen_within_seconds), Worker.pair_fingerprint.is_not(None)
    )
    for row in tx.execute(loaded.distinct().order_by(Worker.pair)):
        found.setdefault(row.pair, PinnedWeights(row.pair)).hosts[str(row.pair_fingerprint)].add(row.host)
    return list(found.values())
