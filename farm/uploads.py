"""Files for a store that is no folder of this machine: written to its temporary folder first, then put.

The temporary file has no name, so that a process that is killed leaves nothing there. What fsspec itself opens for
writing would be stored as far as it came, also after an error.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from farm.store_errors import os_errors_alone


@contextmanager
def uploading(remote: Any, path: str) -> Iterator[BinaryIO]:
    """A seekable stream; when the block ends well the file is in the store, whole. After an error nothing is.

    Large files go to S3 in parts, and are there when the last one is. Raises OSError.
    """
    with tempfile.TemporaryFile(prefix="nightshift-") as stream:
        yield stream
        stream.flush()
        stream.seek(0)
        with os_errors_alone():
            if not remote.async_impl:  # a store of objects has no folders, and s3fs would make a bucket that is missing
                remote.makedirs(path.rpartition("/")[0], exist_ok=True)
            remote.put_file(f"/dev/fd/{stream.fileno()}", path)
