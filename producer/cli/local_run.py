"""What the commands that render here have in common: a batch is followed to its end, or to Ctrl-C."""

import signal
import sys

from producer.cli.session import Session
from producer.local_farm import LocalFarm
from producer.progress import follow, show_progress


def end_on_sigterm() -> None:
    """SIGTERM is as Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def follow_to_end(session: Session, farm: LocalFarm, batch_id: int) -> bool:
    """Until the batch has ended; False where Ctrl-C came before."""
    try:
        show_progress(follow(session.database, batch_id, session.settings.lease_seconds, farm.tend))
    except KeyboardInterrupt:
        print("\nstopping after the pack in hand (Ctrl-C again: at once)", file=sys.stderr, flush=True)
        return False
    return True
