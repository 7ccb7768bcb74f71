"""How every process logs: one line a record on stderr, without secrets, and libraries only when something is wrong."""

import logging
from typing import Final

from farm.secrets import hide_in_tracebacks, without_secrets

_CHATTY: Final = ("alembic", "celery", "kombu", "httpx", "huggingface_hub", "diffusers")


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


def log_to_stderr(level: str, who: str) -> None:
    """``who`` stands in every line: the device, ``supervisor``, ``dispatcher``."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(f"%(asctime)s {who} %(levelname)s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    hide_in_tracebacks()
