"""How a farm under test is set up, and how long it may take to work again."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """How a farm is set up. ``breaks``: see ``breaks.apply``."""

    num_workers: int = 3
    num_dispatchers: int = 2
    lease_seconds: float = 3.0
    tick_seconds: float = 0.3
    max_attempts: int = 4
    pack_size: int = 3
    step_seconds: float = 0.2
    breaks: str = ""

    @property
    def recovery_seconds(self) -> float:
        """Within this time after a fault the farm works again; on a machine with too much else to do, so much later."""
        return self.lease_seconds + 2 * self.tick_seconds + 10 * overload()


def overload() -> float:
    """How many processes want each core, beyond the two that a farm of sleeping workers gives it; 1 at least."""
    return max(1.0, os.getloadavg()[0] / (2 * (os.cpu_count() or 1)))
