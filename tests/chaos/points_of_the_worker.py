"""The crash points of a worker process, from a popped message to the row, and what its device may do."""

import errno
import os
import signal
import time
from typing import Any

import kombu.transport.virtual.base
import torch
from diffusers import AutoencoderKL

import farm.image_store
import worker.device_process.pack_runner
import worker.device_process.preparing
import worker.passes.denoising
import worker.passes.rendering
from farm import ledger
from tests.chaos.crash_points import after, around, before, is_on, note, reached
from tests.chaos.quiet_moment import count_transactions

#: A job whose prompt has one of these kills its worker, each time.
POISONS = {"poison by SIGKILL": signal.SIGKILL, "poison by SIGSEGV": signal.SIGSEGV}
EARLY_POISON = "poison in preparation"

_prompts_in_work: list[str] = []


def put_worker_points(step_seconds: float) -> None:
    count_transactions()
    before(kombu.transport.virtual.base.Transport, "_deliver", "popped")
    before(worker.device_process.pack_runner.PackRunner, "run", "received")
    after(ledger, "claim_pack", "claimed", answered=True)
    around(worker.passes.rendering, "denoise", _poisoned)
    around(worker.device_process.preparing.Preparer, "prepared", _poisoned_early)
    before(worker.passes.denoising, "base_conditioning", "embedding")
    before(worker.passes.denoising._Run, "_refiner_stage", "handoff")
    around(worker.passes.denoising.Sampler, "_predicted_noise", _stepping(step_seconds))
    around(AutoencoderKL, "decode", _decoded)
    around(farm.image_store, "write_atomically", _in_two_halves)
    before(ledger, "finish_jobs", "before_the_row")
    after(ledger, "_fence", "in_a_transaction")  # the pack is locked
    after(ledger, "finish_jobs", "after_the_row")


def _poisoned(denoise: Any, pair: Any, specs: Any, *args: Any, **kwargs: Any) -> Any:
    _prompts_in_work[:] = [spec.prompt for spec in specs]
    for prompt in _prompts_in_work:
        for poison, number in POISONS.items():
            if poison in prompt:
                os.kill(os.getpid(), number)
    return denoise(pair, specs, *args, **kwargs)


def _poisoned_early(prepared: Any, preparer: Any, job: Any, *args: Any) -> Any:
    if EARLY_POISON in job.spec:
        os.kill(os.getpid(), signal.SIGKILL)
    return prepared(preparer, job, *args)


def _stepping(step_seconds: float) -> Any:
    def predicted(function: Any, sampler: Any, stage: Any, *args: Any) -> Any:
        time.sleep(step_seconds)
        is_base = stage.conditioning.time_ids.shape[-1] == 6  # the refiner has five
        reached("in_the_base" if is_base else "in_the_refiner")
        if len(_prompts_in_work) > 1 and is_on("room_for_one"):
            note("room_for_one")
            raise torch.OutOfMemoryError("CUDA out of memory")
        if reached("device") == "STICKY":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return function(sampler, stage, *args)

    return predicted


def _decoded(decode: Any, *args: Any, **kwargs: Any) -> Any:
    picture = decode(*args, **kwargs)
    if reached("decoding", prompts=list(_prompts_in_work)) == "NAN":
        return (picture[0] * float("nan"),)
    return picture


def _in_two_halves(_: Any, path: Any, content: bytes) -> None:
    """As the product's, with a moment in the middle of the file."""
    with farm.image_store.writing_atomically(path) as stream:
        stream.write(content[: len(content) // 2])
        stream.flush()
        if is_on("disk_full"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if not path.name.startswith("."):  # a probe
            reached("in_the_file")
        stream.write(content[len(content) // 2 :])
