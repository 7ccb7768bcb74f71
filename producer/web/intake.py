"""A submission over HTTP: who may, how much of it, and once, however often it is asked for under one key."""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Final

from farm import batches
from farm.submissions import Earlier, earlier_request, note_answer, num_jobs_left
from farm.workers import known_fingerprint
from producer.manifests.counted_advice import CountedAdvice
from producer.manifests.manifest import BadRow, Row
from producer.submitting.first_tick import first_tick
from producer.submitting.submit import BatchRequest, Submission, submit
from producer.web.api.shapes import AcceptedShape, WarnedShape
from producer.web.callers import Caller
from producer.web.farm import WebFarm
from producer.web.problems import SHOWN_ERRORS, RefusedRowsError, Wrong
from schemas.errors import ManifestError, NightshiftError, RequestError, TooManyJobsError
from schemas.records import Received

log = logging.getLogger("nightshift.web")

#: a request that staged no row for so long has died with its process; the same key may be used again then
_DEAD: Final = timedelta(minutes=10)
_PENDING_SECONDS: Final = 60.0
_BUSY_SECONDS: Final = 5.0
_IN_HAND_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Asked:
    """``key``: the Idempotency-Key; ``sha256``: of everything that is asked for."""

    caller: Caller
    key: str | None
    sha256: str

    def received(self) -> Received:
        """The key is hashed with whose it is: two tokens do not share theirs."""
        owner = f"{self.caller.token_id}\n{self.key}"
        hashed = hashlib.sha256(owner.encode()).hexdigest() if self.key is not None else None
        return Received(self.caller.token_id, hashed, self.sha256)


class Intake:
    """Takes one submission. ``asked``: by whom."""

    def __init__(self, farm: WebFarm, asked: Asked) -> None:
        self._farm = farm
        self._database = farm.database
        self._asked = asked
        self._received = asked.received()
        self._wrong: list[Wrong] = []
        self._num_wrong = 0

    def earlier_answer(self) -> AcceptedShape | None:
        """What was answered under the same key.

        Raises:
            RequestError: the key was used for something else, or the first request with it is being worked on.
        """
        hashed = self._received.key_sha256
        earlier = earlier_request(self._database, hashed) if hashed is not None else None
        if earlier is None:
            return None
        if earlier.request_sha256 != self._asked.sha256:
            raise RequestError(422, "idempotency_key", "this Idempotency-Key was used for another request")
        if earlier.answer is not None:
            return AcceptedShape.model_validate(earlier.answer)
        self._take_over(earlier)
        return None

    def _take_over(self, earlier: Earlier) -> None:
        """Whoever staged it can open it no more once it is discarded."""
        if earlier.seen_at - earlier.staged_at < _DEAD:
            sentence = "another request with this Idempotency-Key is being worked on"
            raise RequestError(409, "in_progress", sentence, _IN_HAND_SECONDS)
        batches.discard_batch(self._database, earlier.batch_id, batches.DISCARD_SECONDS)

    def accept(self, rows: Iterable[Row | BadRow], request: BatchRequest) -> AcceptedShape:
        """Stages every row and opens the batch.

        Raises:
            RefusedRowsError: bad rows, the first of them named; nothing was enqueued.
            RequestError: too many jobs, more than the token may have, or too many submissions in hand.
        """
        room = self._room(request)
        if not self._farm.submitting.acquire(blocking=False):
            raise RequestError(503, "busy", "other submissions are being worked on; try again soon", _BUSY_SECONDS)
        try:
            accepted = self._submitted(self._within(room, rows), request)
        finally:
            self._farm.submitting.release()
        self._farm.metrics.submitted(accepted.num_jobs)
        return accepted

    def _submitted(self, rows: Iterable[Row | BadRow], request: BatchRequest) -> AcceptedShape:
        advised = CountedAdvice(self._farm.settings.model_pair(request.pair))
        answers: list[AcceptedShape] = []

        def before_opening(submission: Submission) -> None:
            self._check_pending()
            answers.append(self._answer(submission, advised))
            note_answer(self._database, submission.batch_id, answers[0].model_dump(mode="json"))

        request = replace(request, received=self._received)
        try:
            submit(self._database, advised.passed(self._noted(rows)), request, before_opening)
        except TooManyJobsError as error:
            sentence = f"{error.would_be}: send fewer rows at a time, or ask for fewer images of each"
            raise RequestError(413, "too_many_jobs", sentence) from error
        except ManifestError as error:
            first, is_of_rows = str(error).partition("\n")[0], self._num_wrong and request.invalid_folder is None
            sentence = f"wrong rows: {self._num_wrong:,}; nothing was enqueued" if is_of_rows else first
            raise RefusedRowsError(sentence, self._wrong, self._num_wrong) from error
        return answers[0]

    def _noted(self, rows: Iterable[Row | BadRow]) -> Iterator[Row | BadRow]:
        most = self._farm.settings.web_max_jobs
        for number, row in enumerate(rows, 1):
            if number > most:
                raise RequestError(413, "too_many_jobs", f"more than {most:,} jobs; send the others as another batch")
            if isinstance(row, BadRow):
                self._num_wrong += 1
                if len(self._wrong) < SHOWN_ERRORS:
                    wrong = Wrong(line=row.line, column=row.column, value=row.value, reason=row.reason)
                    self._wrong.append(wrong)
            yield row

    def _answer(self, done: Submission, advised: CountedAdvice) -> AcceptedShape:
        warnings = [WarnedShape(**asdict(warned)) for warned in advised.warnings]
        return AcceptedShape(batch_id=done.batch_id, num_jobs=done.num_jobs, num_linked=done.num_linked,
                             num_left_out=done.num_left_out, left_out=self._wrong, warnings=warnings)  # fmt: skip

    def _room(self, request: BatchRequest) -> int | None:
        """How many jobs the batch may have; None where that is any number, or is known when all are staged: a job whose
        image exists is done, and counts no more. Raises RequestError where the token has too many without it."""
        rights, token_id = self._asked.caller.rights, self._asked.caller.token_id
        if rights.max_pending is None or token_id is None:
            return None
        left = num_jobs_left(self._database, token_id)
        if left >= rights.max_pending:
            raise self._too_many(f"{left:,}")
        may_link = request.linked_in is not None and known_fingerprint(self._database, request.pair) is not None
        return None if may_link else rights.max_pending - left

    def _within(self, room: int | None, rows: Iterable[Row | BadRow]) -> Iterator[Row | BadRow]:
        """The rest of a million is not staged in vain."""
        num_good = 0
        for row in rows:
            num_good += isinstance(row, Row)
            if room is not None and num_good > room:
                raise self._too_many("too many")
            yield row

    def _check_pending(self) -> None:
        """The batch's own jobs are counted by now, and so are those of any other that is being staged: of two that
        would be too many together, never both are opened."""
        most, token_id = self._asked.caller.rights.max_pending, self._asked.caller.token_id
        if most is None or token_id is None:
            return
        left = num_jobs_left(self._database, token_id)
        if left > most:
            raise self._too_many(f"{left:,}")

    def _too_many(self, told: str) -> RequestError:
        sentence = f"{told} jobs of this token would be unfinished; {self._asked.caller.rights.max_pending:,} may be"
        return RequestError(429, "pending", sentence, _PENDING_SECONDS)


def begin(farm: WebFarm, batch_id: int) -> None:
    """One ordinary tick, when the caller has the answer: a Redis that hangs is not waited for. The batch is accepted by
    now, so an error is none of the caller's."""
    try:
        first_tick(farm.database, farm.settings, batch_id)
    except NightshiftError as error:
        log.warning("%s", error)
