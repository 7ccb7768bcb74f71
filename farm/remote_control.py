"""For Celery's own command, where ``remote_control`` is set: ``celery --app farm.remote_control inspect ping``.

Nothing of Nightshift imports it. ``app``, which Celery's command asks a module for, is made when it is asked for.
"""

from functools import cache

from celery import Celery

from farm.broker import open_broker
from schemas.errors import SettingsError
from schemas.settings import load_settings


def __getattr__(name: str) -> Celery:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _app()


@cache
def _app() -> Celery:
    settings = load_settings()
    if not settings.remote_control:
        raise SettingsError("remote_control is off, and workers would not answer: docs/security.md says what it opens")
    return open_broker(settings).app
