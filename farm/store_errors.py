"""What stores raise, made one: OSError, with a sentence that says what to do where credentials or the bucket are wrong.

s3fs lets errors of others through: botocore's of connections that fail and of credentials that are missing, aiohttp's
and urllib3's of answers that break off. Of what S3 itself refuses it makes OSErrors.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

#: module → its errors that are no OSError, and mean that the store does not answer
_FOREIGN: Final = MappingProxyType({
    "botocore.exceptions": ("BotoCoreError",),
    "botocore.parsers": ("ResponseParserError",),
    "aiohttp": ("ClientError",),
    "urllib3.exceptions": ("HTTPError",),
})  # fmt: skip
_CREDENTIALS: Final = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile of AWS's own"
_RIGHTS: Final = f"look at the credentials ({_CREDENTIALS}): may they list, read, write and delete there?"
_ADVICE: Final = MappingProxyType({
    "NoSuchBucket": "make the bucket, or mend its name",
    "NoCredentialsError": f"give {_CREDENTIALS}",
    **dict.fromkeys(("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "AccessDenied", "403"), _RIGHTS),
})  # fmt: skip


@contextmanager
def os_errors_alone() -> Iterator[None]:
    """Around calls of a fsspec file system: every error of a store is an OSError.

    A refusal of S3's is never a PermissionError, which would be of one file: it is of the credentials.
    """
    try:
        yield
    except FileNotFoundError as error:
        if (advice := _advice(error)) is None:
            raise
        raise FileNotFoundError(f"{error}; {advice}") from error
    except OSError as error:
        if (advice := _advice(error)) is None:
            raise
        raise OSError(f"{_one_line(error)}; {advice}") from error
    except _foreign_errors() as error:
        advice = _ADVICE.get(type(error).__name__)
        raise OSError(_one_line(error) + (f"; {advice}" if advice else "")) from error
    except ValueError as error:  # botocore's, of what no client can be made for
        if not str(error).startswith("Invalid endpoint"):
            raise
        raise OSError(f"{error}; AWS_ENDPOINT_URL is like https://s3.example") from error


def _advice(error: OSError) -> str | None:
    """By the code of S3's own answer, which s3fs keeps as the cause."""
    answer = getattr(error.__cause__, "response", None)
    return _ADVICE.get(answer["Error"].get("Code", "")) if isinstance(answer, dict) and "Error" in answer else None


def _one_line(error: Exception) -> str:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.split()) or type(error).__name__


def _foreign_errors() -> tuple[type[Exception], ...]:
    """Of the packages that are imported: they come with s3fs alone."""
    found = ((sys.modules.get(module), names) for module, names in _FOREIGN.items())
    return tuple(getattr(module, name) for module, names in found if module is not None for name in names)
