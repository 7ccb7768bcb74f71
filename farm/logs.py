"""How every process logs: one line a record on stderr, without secrets, and libraries only when something is wrong.

As text for people, or as JSON for machines (setting ``log_format``): time, level, who, logger, message, the batch, pack
and jobs that the record is about, and the traceback where there is one.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from farm.secrets import hide_in_tracebacks, without_secrets
from schemas.settings import Settings

if TYPE_CHECKING:
    from structlog.typing import EventDict

_CHATTY: Final = ("alembic", "celery", "kombu", "httpx", "huggingface_hub", "diffusers")

#: not structlog's own context, which would cost every process a fifth of a second, whatever it logs
_ABOUT: Final[ContextVar[dict[str, Any]]] = ContextVar("nightshift_about", default={})  # noqa: B039


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


def log_to_stderr(settings: Settings, who: str) -> None:
    """``who`` stands in every line: the device, ``supervisor``, ``dispatcher``."""
    handler = logging.StreamHandler()
    handler.setFormatter(_formatter(settings.log_format, who))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    hide_in_tracebacks()


@contextmanager
def about(**ids: Any) -> Iterator[None]:
    """While inside, each record that is logged as JSON has these ids (``batch``, ``pack``, ``jobs``), too.

    A call that is handed to another thread takes them along in a copy of the context (``contextvars.copy_context``).
    """
    before = _ABOUT.set({**_ABOUT.get(), **ids})
    try:
        yield
    finally:
        _ABOUT.reset(before)


def _formatter(log_format: str, who: str) -> logging.Formatter:
    if log_format == "json":
        return _json_formatter(who)
    return _TextFormatter(f"%(asctime)s {who.replace('%', '%%')} %(levelname)s %(message)s")


def _json_formatter(who: str) -> logging.Formatter:
    # a fifth of a second, which a process that logs text need not wait for
    import structlog  # noqa: PLC0415

    def add_who(_logger: Any, _method: str, record: "EventDict") -> "EventDict":
        return {"who": who, **record}

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            _add_ids,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            add_who,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            _hide_secrets,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
    )


def _add_ids(_logger: Any, _method: str, record: "EventDict") -> "EventDict":
    return {**_ABOUT.get(), **record}


def _hide_secrets(_logger: Any, _method: str, record: "EventDict") -> "EventDict":
    """Before JSON writes a quote or backslash of a password in another way."""
    return {key: without_secrets(value) if isinstance(value, str) else value for key, value in record.items()}
