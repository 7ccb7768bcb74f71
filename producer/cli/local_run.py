"""What the commands that render here have in common: a batch is followed to its end, or to Ctrl-C."""

import signal
import sys
from dataclasses import dataclass

from producer.cli.interruption import answered_interrupts
from producer.cli.session import Session
from producer.cli.submit import print_exceptions, print_warnings, twin_before
from producer.local_farm import LocalFarm
from producer.manifests.counted_advice import CountedAdvice
from producer.manifests.manifest import ReadOptions
from producer.manifests.manifest_source import ManifestSource
from producer.questions.following import follow
from producer.questions.progress import show_progress
from producer.questions.queries import BatchSummary, batch_summary
from producer.submitting.orders import submit_manifest
from producer.submitting.submit import BatchRequest


@dataclass(frozen=True)
class LocalRun:
    """A batch that was rendered here. ``ended``: False where Ctrl-C came before its end."""

    summary: BatchSummary
    ended: bool
    advised: CountedAdvice


def end_on_sigterm() -> None:
    """SIGTERM is as Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def run_here(session: Session, manifest: ManifestSource, options: ReadOptions, request: BatchRequest) -> LocalRun:
    """Starts what is missing, submits the manifest, and follows the batch; what was started is stopped again."""
    advised = CountedAdvice(session.settings.model_pair(request.pair))
    with LocalFarm(session.database, session.settings, request.pair, shares_workers=True) as farm:
        with answered_interrupts():
            submission = submit_manifest(session.database, manifest, options, request, advised)
        print_exceptions(submission, twin_before(session, submission.batch_id))
        print_warnings(advised)
        ended = _follow_to_end(session, farm, submission.batch_id)
    return LocalRun(batch_summary(session.database, submission.batch_id), ended, advised)


def _follow_to_end(session: Session, farm: LocalFarm, batch_id: int) -> bool:
    """Until the batch has ended; False where Ctrl-C came before."""
    try:
        show_progress(follow(session.database, [batch_id], session.settings, farm.tend))
    except KeyboardInterrupt:
        print("\nstopping after the pack in hand (Ctrl-C again: at once)", file=sys.stderr, flush=True)
        return False
    return True
