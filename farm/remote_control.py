"""For Celery's own command, where ``remote_control`` is set: ``celery --app farm.remote_control inspect ping``.

An entry point, which is why it reads the settings when it is imported. Nothing of Nightshift imports it.
"""

from typing import Final

from celery import Celery

from farm.broker import open_broker
from schemas.errors import SettingsError
from schemas.settings import Settings, load_settings


def _app(settings: Settings) -> Celery:
    if not settings.remote_control:
        raise SettingsError("remote_control is off, and workers would not answer: docs/security.md says what it opens")
    return open_broker(settings).app


app: Final = _app(load_settings())
