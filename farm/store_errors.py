"""What stores raise that do not answer, made one: OSError. s3fs lets botocore's own errors through: of connections that
fail, of credentials that are missing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def os_errors_alone() -> Iterator[None]:
    """Around calls of a fsspec file system: botocore's errors become OSError, as those of other stores are."""
    try:
        yield
    except _botocore_errors() as error:
        raise OSError(str(error)) from error


def _botocore_errors() -> tuple[type[Exception], ...]:
    """None of them where nothing has imported botocore: it comes with s3fs alone."""
    module = sys.modules.get("botocore.exceptions")
    return () if module is None else (module.BotoCoreError,)
