"""How every process logs: one line a record on stderr, and libraries only when something is wrong."""

import logging
from typing import Final

_CHATTY: Final = ("alembic", "celery", "kombu", "httpx", "huggingface_hub", "diffusers")


def log_to_stderr(level: str, who: str) -> None:
    """``who`` stands in every line: the device, ``supervisor``, ``dispatcher``."""
    logging.basicConfig(level=level.upper(), format=f"%(asctime)s {who} %(levelname)s %(message)s")
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
