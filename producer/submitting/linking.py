"""Linking: a job whose image exists is done without rendering. Spec digest and pair fingerprint decide the pixels."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Final, Self

from farm import ledger
from farm.database import Database
from farm.image_store import ImageStore
from farm.workers import known_fingerprint
from producer.questions.queries import twins

_PAGE: Final = 1_000
#: A store far away answers each question in some milliseconds, and many at once.
_NUM_THREADS: Final = 16


class StoredImages:
    """Which of the recorded images lie in a store. A context manager.

    The store is opened for the first question: a producer may lack its package, and needs it only if there are images.
    """

    def __init__(self, images_url: str) -> None:
        self._images_url = images_url
        self._threads = ThreadPoolExecutor(_NUM_THREADS, "linking")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()

    @cached_property
    def _store(self) -> ImageStore:
        return ImageStore(self._images_url)

    def lie_there(self, uris: Iterable[str]) -> list[bool]:
        """In the order of the URIs.

        Raises:
            SettingsError: this machine lacks the package to look for them in such a store.
            StorageError: the store does not answer.
        """
        return list(self._threads.map(self._store.has, uris))


def link_existing(database: Database, batch_id: int, pair: str, images_url: str, definition: str | None = None) -> int:
    """Before the batch is opened: its jobs whose image lies in this store are done. Returns how many.

    Nothing is linked while no worker has said which weights the pair's name stands for, or where ``definition``, which
    the submitter has of the pair, is not that of the workers.

    Raises:
        SettingsError: there are images, but this machine lacks the package to look for them in such a store.
        StorageError: the store does not answer.
    """
    fingerprint = known_fingerprint(database, pair, definition)
    if fingerprint is None:
        return 0
    num_linked, after = 0, 0
    with StoredImages(images_url) as stored:
        while page := twins(database, batch_id, fingerprint, after, _PAGE):
            exists = stored.lie_there(twin.uri for twin in page)
            found = {twin.job_id: twin.image_id for twin, is_there in zip(page, exists, strict=True) if is_there}
            num_linked += ledger.link_jobs(database, batch_id, found)
            after = page[-1].job_id
    return num_linked
