"""What becomes of a worker process that is dead for certain: its packs go back now, nobody need wait for the lease."""

from contextlib import suppress
from typing import Final

from farm import ledger, packs
from farm.database import Database
from farm.retries import Failure
from farm.workers import has_recorded, last_words, note_worker
from schemas.errors import DeviceLostError, LeaseLostError
from schemas.records import ClaimedPack
from worker.host.device_health import Death
from worker.host.exit_codes import EXIT_DEAF, EXIT_DEVICE_LOST, EXIT_HUNG

#: exit code → error code of the jobs
_ERROR_CODES: Final = {EXIT_DEVICE_LOST: DeviceLostError.code, EXIT_HUNG: "device_hung"}
#: no other pack of theirs had to do with it; a deaf process had nothing in hand when it was found deaf
_BLAMED_ALREADY: Final = (EXIT_DEVICE_LOST, EXIT_HUNG, EXIT_DEAF)


def bury(database: Database, worker_id: str, code: int, max_attempts: int) -> Death:
    """Gives back what the process held; what it was rendering is suspected of its death. Raises UnavailableError.

    Where the device ended it, that is the pack on the device alone: an earlier one was rendered, and only being stored.
    """
    said = last_words(database, worker_id) or f"the process ended with {code}"
    pack = packs.in_rendering(database, worker_id)
    if pack is not None and code != EXIT_DEAF:
        sentence = f"its worker died while rendering it: {said}"
        by_device = _ERROR_CODES.get(code)
        failure = Failure(by_device, sentence, retryable=True) if by_device else Failure.death(sentence)
        with suppress(LeaseLostError):  # its lease has run out, and it has gone back already
            ledger.fail_jobs(database, pack, [job.id for job in pack.jobs], failure, max_attempts)
    ledger.expire_leases(database, max_attempts, worker_id, blames=code not in _BLAMED_ALREADY)
    note_worker(database, worker_id, "failed", said)
    return _death(pack, has_recorded(database, worker_id))


def _death(pack: ClaimedPack | None, had_rendered: bool) -> Death:
    jobs = () if pack is None else pack.jobs
    suspects_job = len(jobs) == 1 and jobs[0].attempts > 0
    return Death(frozenset(job.id for job in jobs), suspects_job, had_rendered)
