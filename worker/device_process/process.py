"""One worker process on one device: ``python -m worker.device_process.process``. Its supervisor starts it.

``CUDA_VISIBLE_DEVICES`` is in the environment before this module's imports bring in torch.
"""

import argparse
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from celery.signals import worker_shutting_down

from farm.broker import Broker, open_broker
from farm.database import Database
from farm.image_store import ImageStore
from farm.inputs import InputStore
from farm.logs import log_to_stderr
from farm.schema import ensure_schema
from farm.workers import WorkerIdentity, note_fingerprint, note_worker, register_worker
from schemas.errors import NightshiftError
from schemas.settings import Settings, load_settings
from worker.device_process.budget import StepBudget
from worker.device_process.consumer import consume
from worker.device_process.device_thread import DeviceThread
from worker.device_process.gpu_watch import GpuWatch, no_reading
from worker.device_process.last_words import end_process
from worker.device_process.lease_keeper import LeaseKeeper
from worker.device_process.metrics import worker_metrics
from worker.device_process.pack_runner import PackRunner, Stages
from worker.device_process.preparing import Preparer
from worker.device_process.progress_watchdog import Listening, ProgressWatchdog
from worker.device_process.refusals import Refusals
from worker.device_process.watchdog import Watchdog
from worker.environment import environment
from worker.host.exit_codes import EXIT_DEAF, EXIT_DEVICE_LOST, EXIT_HUNG
from worker.image_files.finishing import FileMaker, Finisher
from worker.loading.pipelines import LoadedPair, load_pair
from worker.loading.timeline import Timeline, telling_of_first
from worker.passes.inputs import InputFetcher
from worker.passes.memory_probe import GpuMemory
from worker.passes.pass_limits import PassLimits
from worker.passes.pass_measuring import PassMeasurer
from worker.passes.remembered_texts import RememberedTexts

log = logging.getLogger("nightshift.worker")

#: How long a thread may keep the GIL from another that wants it, where it runs Python: the device thread must not wait
#: for Python's usual 5 ms whenever a finisher has it.
_SWITCH_SECONDS: Final = 0.001


def main() -> int:
    """Runs until SIGTERM. Returns the process's exit code."""
    timeline = Timeline.of_process("imports")
    arguments = _arguments()
    try:
        settings = load_settings()
        log_to_stderr(settings, arguments.name)
        threading.excepthook = _end_with_thread
        sys.setswitchinterval(_SWITCH_SECONDS)
        with timeline.part("ledger"):
            database = Database(settings.database_url)
            ensure_schema(database)
        return _serve(database, settings, arguments, timeline)
    except NightshiftError as error:
        print(f"nightshift: {error}", file=sys.stderr)
        return error.exit_code


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="worker.device_process.process")
    parser.add_argument("--worker-id", required=True)
    parser.add_argument("--pair", required=True)
    parser.add_argument("--device", required=True, help="cpu or cuda, as torch names it")
    parser.add_argument("--name", required=True, help="the device's on this host: cuda:3, which is the only one here")
    return parser.parse_args()


def _end_with_thread(thread: threading.ExceptHookArgs) -> None:
    """A thread that dies takes the process along: without its lease keeper a worker renders for nobody."""
    log.critical("thread %s died", thread.thread, exc_info=thread.exc_value)
    os._exit(1)


def _serve(database: Database, settings: Settings, arguments: argparse.Namespace, timeline: Timeline) -> int:
    worker_id = arguments.worker_id
    host, definition = socket.gethostname(), settings.model_pair(arguments.pair).definition
    identity = WorkerIdentity(worker_id, host, os.getpid(), arguments.name, arguments.pair, definition)
    register_worker(database, identity)
    leave = partial(os.kill, os.getpid(), signal.SIGTERM)  # a process that is still loading ends of it, too
    leases = LeaseKeeper(database, worker_id, settings.lease_seconds, leave, _gpu_reading(arguments))
    leases.start()
    end = partial(end_process, database, worker_id)
    watchdog = Watchdog(StepBudget(settings.render_budget_seconds), partial(end, EXIT_HUNG))
    watchdog.start()
    try:
        stages = _stages(settings, arguments, watchdog, timeline)
        gc.freeze()  # else looking through what torch consists of keeps the GIL for half a second, now and then
        runner = PackRunner(database, stages, leases, settings, partial(end, EXIT_DEVICE_LOST))
        note_fingerprint(database, worker_id, stages.finisher.maker.environment.pair_fingerprint)
        note_worker(database, worker_id, "ready")
        refusals = Refusals(database, worker_id)
        broker = open_broker(settings, refusals)
        listening = Listening(database, broker, arguments.pair, runner.hands, settings.deaf_seconds)
        ProgressWatchdog(listening, partial(end, EXIT_DEAF), runner.stopping.gently).start()
        log.info("ready %s", timeline)
        _consume(broker, runner, leases, arguments.pair)
        refusals.close()
        note_worker(database, worker_id, "stopped")
    except NightshiftError as error:
        note_worker(database, worker_id, "failed", str(error))
        raise
    finally:
        watchdog.stop()
        leases.stop()
    return 0


def _gpu_reading(arguments: argparse.Namespace) -> Callable[[], dict[str, Any] | None]:
    if arguments.device == "cpu":
        return no_reading
    watch = GpuWatch(arguments.name.partition(":")[2])
    watch.start()
    return watch.last


def _stages(settings: Settings, arguments: argparse.Namespace, watchdog: Watchdog, timeline: Timeline) -> Stages:
    with timeline.part("image store"):
        store = ImageStore(settings.images_url)
        store.check()
    pair = load_pair(settings.model_pair(arguments.pair), arguments.device, settings.home / "cache", timeline)
    pair = replace(pair, texts=RememberedTexts(settings.embedding_cache_megabytes * 10**6))
    finisher = Finisher(store, FileMaker(environment(pair), pair.pair.watermark, settings.png_compress_level))
    inputs = InputFetcher(InputStore(settings.images_url), settings.home / "cache")
    limits = PassLimits(settings.forward_pass_size)
    device = DeviceThread(pair, limits, watchdog, _measurer(settings, pair))
    metrics = worker_metrics(settings, arguments.pair, arguments.name)
    return Stages(Preparer(pair, inputs, limits), device, finisher, metrics)


def _measurer(settings: Settings, pair: LoadedPair) -> PassMeasurer | None:
    """None on a CPU: other programs share its memory, and a pass to measure it by takes minutes."""
    if pair.device.type != "cuda":
        return None
    folder = settings.home / "cache" / "pass_memory"
    return PassMeasurer(pair, GpuMemory(pair.device), folder, settings.forward_pass_size, settings.memory_share)


def _consume(broker: Broker, runner: PackRunner, leases: LeaseKeeper, pair: str) -> None:
    def stop(**_: Any) -> None:
        runner.stopping.ask(patiently=leases.is_draining.is_set())

    worker_shutting_down.connect(stop, weak=False)
    log.info("ready: waiting for packs of %s", pair)
    tell = partial(log.info, "the first pack came %.2f s after that")
    consume(broker, pair, f"{leases.worker_id}@{socket.gethostname()}", telling_of_first(runner.run, tell))
    runner.close()
    broker.close()


if __name__ == "__main__":
    sys.exit(main())
