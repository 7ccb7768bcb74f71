"""Which runs there are: each fault alone, mixtures of many, and the short form. Seeds decide everything."""

import random
from collections.abc import Iterator

from tests.chaos.farm import Ledger
from tests.chaos.faults import FAULTS, RANDOM_KILL, Fault
from tests.chaos.rules import Rules
from tests.chaos.run import Plan

NUM_SINGLE_SEEDS = 3
NUM_MIXTURES = 30
_MIXED_FAULTS = 14
_MIXED_JOBS = 72


def singles() -> Iterator[tuple[str, Plan]]:
    """Each fault by itself, under three seeds, on either ledger; each plan with its name."""
    for place, fault in enumerate(FAULTS):
        for seed in range(NUM_SINGLE_SEEDS):
            ledger: Ledger = fault.ledger or ("postgresql", "sqlite")[(place + seed) % 2]  # type: ignore[assignment]
            name = f"single {fault.number} {fault.name}, seed {seed}"
            yield name, Plan(1000 * place + seed, ledger, [fault], short=False)


def mixtures(num: int = NUM_MIXTURES) -> Iterator[tuple[str, Plan]]:
    """At least twelve faults and sixty jobs each, on two to four workers."""
    for seed in range(num):
        yield f"mixture, seed {seed}", mixture(seed)


def mixture(seed: int) -> Plan:
    chance = random.Random(f"mixture {seed}")
    ledger: Ledger = chance.choice(["postgresql", "postgresql", "sqlite"])
    fitting = [fault for fault in FAULTS if fault.suits(ledger)]
    faults = [*chance.sample(fitting, _MIXED_FAULTS), RANDOM_KILL, RANDOM_KILL]
    chance.shuffle(faults)
    return Plan(seed, ledger, faults, _MIXED_JOBS, rules=Rules(num_workers=chance.randint(2, 4)))


def short_form(seed: int) -> list[Plan]:
    """Every fault once, several to a run: for `make test`."""
    chance = random.Random(f"short {seed}")
    groups: dict[Ledger, list[Fault]] = {"postgresql": [], "sqlite": []}
    for fault in FAULTS:
        # more of them on SQLite: PostgreSQL has faults of its own
        groups[fault.ledger or chance.choice(["postgresql", "sqlite", "sqlite"])].append(fault)
    plans = []
    for ledger, faults in groups.items():
        chance.shuffle(faults)
        plans.append(Plan(seed, ledger, faults))
    return plans
