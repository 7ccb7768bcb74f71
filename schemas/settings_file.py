"""``nightshift.toml``: found, read, and bounded, so that no file stops a command otherwise than by a sentence.

It is read from ``$NIGHTSHIFT_CONFIG``, else from the current folder, else from the home folder.
"""

import os
import tomllib
from pathlib import Path
from typing import Any, Final

from schemas.errors import SettingsError
from schemas.printable import printable

MAX_FILE_BYTES: Final = 200_000
#: tomllib keeps every beginning of a dotted key, so that one of 100,000 parts takes gigabytes
MAX_DOTS_OF_A_LINE: Final = 1_000


def settings_file_content(home: Path) -> dict[str, Any]:
    """The tables and values of the file; none where there is no file.

    Raises:
        SettingsError: it cannot be read, or is no TOML.
    """
    path = _file_path(home)
    if path is None:
        return {}
    try:
        return _tables(_text(path))
    except OSError as error:
        reason = error.strerror or str(error)
    except UnicodeDecodeError as error:
        reason = f"it is not UTF-8 (0x{error.object[error.start]:02x} at byte {error.start + 1})"
    except ValueError as error:
        reason = str(error)
    raise SettingsError(printable(f"cannot read {path}: {reason}"))


def _file_path(home: Path) -> Path | None:
    named = os.environ.get("NIGHTSHIFT_CONFIG")
    if named:
        return Path(named)
    candidates = (Path("nightshift.toml"), home / "nightshift.toml")
    return next((path for path in candidates if path.is_file()), None)


def _tables(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise ValueError("its values are nested too deep") from None
    except ValueError:
        raise ValueError("a number has too many digits") from None


def _text(path: Path) -> str:
    """Raises ValueError for what tomllib would take too long over."""
    with path.open("rb") as stream:
        content = stream.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"it has more than {MAX_FILE_BYTES:,} bytes")
    text = content.decode("utf-8-sig")
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > MAX_DOTS_OF_A_LINE:
            raise ValueError(f"line {number} has more than {MAX_DOTS_OF_A_LINE:,} dots")
    return text
