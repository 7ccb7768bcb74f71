"""On PYTHONPATH: lets each process of Nightshift that an interpreter should become come from the fork server instead.

Python reads ``sitecustomize`` by itself, before it runs what it was started for.
"""

import sys

_FORKED = ("nightshift", "worker.device_process.process", "worker.reproduction")


def _entry() -> int | None:
    """Where in the command line the module stands, behind -m."""
    places = [place for place, word in enumerate(sys.orig_argv[:-1]) if word == "-m"]
    return places[0] + 1 if places and sys.orig_argv[places[0] + 1] in _FORKED else None


if (place := _entry()) is not None:
    from tests.stand_in import become

    become(sys.orig_argv[place], sys.orig_argv[place + 1 :])
