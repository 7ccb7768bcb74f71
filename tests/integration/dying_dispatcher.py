"""A dispatcher's part in schedules, as a process that can be made to die at a point: ``tests.chaos.crash_points``."""

import os
from contextlib import closing
from pathlib import Path

from farm import batches, ledger
from farm.database import Database
from producer.dispatching import firings
from producer.dispatching.firings import Firings
from schemas.settings import Settings
from tests.chaos.crash_points import after, before

#: point → the function of the product, and on which side of it
POINTS = {
    "after firing": (after, firings, "fire"),
    "claimed": (after, firings, "claim_firing"),
    "created": (after, batches, "create_batch"),
    "staged": (after, ledger, "stage_jobs"),
    "before opening": (before, batches, "open_batch"),
    "opened": (after, batches, "open_batch"),
}


def main(url: str, home: Path, points: Path) -> None:
    """``points``: the folder of the armed ones. In a process of its own: it changes the product's functions."""
    os.environ["CHAOS_POINTS"] = str(points)
    for point, (side, module, name) in POINTS.items():
        side(module, name, point)
    with closing(Database(url)) as database:
        mine = Firings(database, Settings(home=home))
        mine.tend()
        mine.wait()
