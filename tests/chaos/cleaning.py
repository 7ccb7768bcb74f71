"""What dead workers left in the store, two days later: `nightshift verify --clean` takes it away, and nothing else."""

import importlib.util
import os
import time
from collections.abc import Iterator

from tests.chaos.farm import Farm

#: whether this Nightshift can look after its store
HAS_VERIFY = importlib.util.find_spec("producer.cli.verify") is not None
_TWO_DAYS_SECONDS = 2 * 86_400.0


def leftovers(farm: Farm) -> Iterator[str]:
    """One sentence for each thing that is not as it should be after cleaning."""
    if not HAS_VERIFY:
        return
    long_ago = time.time() - _TWO_DAYS_SECONDS
    for path in (*farm.store.images(), *farm.store.temporary_files()):
        os.utime(path, (long_ago, long_ago))
    for (batch,) in farm.ask("SELECT id FROM batches WHERE state = 'staging'"):
        farm.command("cancel", str(batch))  # its submit died; while it lived, a file might have been for it
    farm.command("verify", "--clean", may_fail=True)
    code, output = farm.command("verify", may_fail=True)
    if code != 0:
        yield f"`nightshift verify` is not content after `verify --clean`: {output[-1000:]}"
    recorded = {farm.store.path_of(uri) for (uri,) in farm.ask("SELECT uri FROM images")}
    for path in {*farm.store.images(), *farm.store.temporary_files()} - recorded:
        yield f"{path} is still there after `verify --clean`, and no row is for it"
    for path in recorded - {*farm.store.images()}:
        yield f"{path} has a row, and is gone after `verify --clean`"
