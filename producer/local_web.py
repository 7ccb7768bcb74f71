"""The web page beside `nightshift up`: a process of its own, so that nothing that befalls it stops the farm.

Files: ``$NIGHTSHIFT_HOME/logs/web.log``.
"""

import signal
import subprocess
import sys
from importlib.util import find_spec
from types import TracebackType
from typing import Final, Self

from farm.log_tail import last_line
from farm.tether import tethered
from schemas.errors import SettingsError
from schemas.settings import Settings

_PACKAGES: Final = ("fastapi", "jinja2", "uvicorn")
_NEEDS: Final = "the web page needs packages: pip install 'nightshift[web]'"
_STOP_SECONDS: Final = 15


def require_web_extra() -> None:
    """Raises SettingsError where the web page's packages are missing."""
    if not _has_web_extra():
        raise SettingsError(_NEEDS)


def _has_web_extra() -> bool:
    return all(find_spec(name) is not None for name in _PACKAGES)


class LocalWeb:
    """A context manager, for the main thread: its process is tethered to it. What goes wrong is said, once."""

    def __init__(self, settings: Settings, *, wanted: bool = True) -> None:
        self._wanted = wanted
        self._log_file = settings.log_folder / "web.log"
        self._port = settings.web_port
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if not self._wanted:
            return self
        if not _has_web_extra():
            _say(_NEEDS)
            return self
        command = [sys.executable, "-P", "-m", "nightshift", "web"]
        try:
            self._log_file.parent.mkdir(parents=True, exist_ok=True)
            with self._log_file.open("ab") as stream:
                self._process = subprocess.Popen(
                    tethered(command), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
                )
        except OSError as error:
            _say(f"the web page does not run: cannot write {self._log_file}: {error.strerror}")
        else:
            _say(f"the web page is at http://127.0.0.1:{self._port or '...'} and writes to {self._log_file}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def tend(self) -> None:
        """Says it where the process has ended. To be called every second or so."""
        if self._process is not None and self._process.poll() is not None:
            self._process = None
            _say(f"the web page does not run: {last_line(self._log_file)}")


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
