"""What this process knows and must not tell: the passwords of its URLs, and tokens in its environment.

Messages hide them where they are made (``schemas.safe_url``). This is for what others write: a library's log line or
traceback that quotes a URL. Reads the environment, and nightshift.toml by way of the settings.
"""

import os
import re
import sys
import threading
import traceback
from functools import lru_cache
from types import TracebackType
from typing import Final

from schemas.errors import SettingsError
from schemas.safe_url import url_secrets

#: of variables whose values are secrets: HF_TOKEN, AWS_SECRET_ACCESS_KEY, PGPASSWORD
_NAMES: Final = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY", re.IGNORECASE)
#: a shorter one would be found in ordinary words
_MIN_CHARACTERS: Final = 6
_HIDDEN: Final = "***"


def without_secrets(text: str) -> str:
    """The text with ``***`` wherever a secret of this process stood in it."""
    for secret in _known():
        text = text.replace(secret, _HIDDEN)
    return text


def hide_in_tracebacks() -> None:
    """From now on, what nobody catches is printed without secrets."""
    sys.excepthook = _print_without_secrets
    threading.excepthook = _print_thread_without_secrets


def _print_without_secrets(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    sys.stderr.write(without_secrets("".join(traceback.format_exception(kind, error, where))))


def _print_thread_without_secrets(died: threading.ExceptHookArgs) -> None:
    if died.exc_value is None or isinstance(died.exc_value, SystemExit):
        return
    sys.stderr.write(f"the thread {died.thread.name if died.thread else '?'} died:\n")
    _print_without_secrets(died.exc_type, died.exc_value, died.exc_traceback)


@lru_cache(1)
def _known() -> tuple[str, ...]:
    """The longest first, for one may be a part of another."""
    found = {value for name, value in os.environ.items() if _NAMES.search(name)} | _in_settings()
    return tuple(sorted((secret for secret in found if len(secret) >= _MIN_CHARACTERS), key=len, reverse=True))


def _in_settings() -> set[str]:
    from schemas.settings import load_settings  # noqa: PLC0415  most processes never have anything to hide

    try:
        settings = load_settings()
    except SettingsError:  # said elsewhere; these variables are the settings' own names
        urls = [os.environ.get(f"NIGHTSHIFT_{name}_URL", "") for name in ("DATABASE", "BROKER", "IMAGES", "WEBHOOK")]
        own = set[str]()  # NIGHTSHIFT_WEBHOOK_SECRET is found by its name
    else:
        urls = [settings.database_url, settings.broker_url, settings.images_url, settings.webhook_url]
        own = {settings.webhook_secret, settings.webhook_url}
    return own | {secret for url in urls if url for secret in url_secrets(url)}
