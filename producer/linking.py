"""Linking: a job whose image exists is done without rendering. Spec digest and pair fingerprint decide the pixels."""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

from farm import ledger
from farm.database import Database
from farm.image_store import ImageStore
from farm.workers import known_fingerprint
from producer.queries import twins

_PAGE: Final = 1_000
#: A store far away answers each question in some milliseconds, and many at once.
_NUM_THREADS: Final = 16


def link_existing(database: Database, batch_id: int, pair: str, images_url: str) -> int:
    """Before the batch is opened: its jobs whose image lies in this store are done. Returns how many.

    Nothing is linked while no worker has said which weights the pair's name stands for.

    Raises:
        SettingsError: there are images, but this machine lacks the package to look for them in such a store.
        StorageError: the store does not answer.
    """
    fingerprint = known_fingerprint(database, pair)
    if fingerprint is None:
        return 0
    num_linked, after = 0, 0
    with ThreadPoolExecutor(_NUM_THREADS, "linking") as threads:
        while page := twins(database, batch_id, fingerprint, after, _PAGE):
            store = ImageStore(images_url)
            exists = threads.map(store.has, [twin.uri for twin in page])
            found = {twin.job_id: twin.image_id for twin, is_there in zip(page, exists, strict=True) if is_there}
            num_linked += ledger.link_jobs(database, batch_id, found)
            after = page[-1].job_id
    return num_linked
