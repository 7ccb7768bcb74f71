"""From an order to a batch: how `submit` and `render` are told what to do, and what a schedule says again and again."""

import unicodedata
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final

from farm.database import Database
from producer.counted_advice import CountedAdvice
from producer.inputs import Inputs
from producer.manifest import ReadOptions, read_manifest
from producer.rows import shown_value
from producer.submit import BatchRequest, Submission, submit
from schemas.errors import InputError
from schemas.fields import text_flaw
from schemas.printable import printable
from schemas.safe_url import safe_url
from schemas.settings import Settings
from schemas.submit_order import Origin, SubmitOrder
from schemas.timing import Timing

_MAX_NAME_CHARACTERS: Final = 200


def read_options(settings: Settings, order: SubmitOrder) -> ReadOptions:
    """How the order's manifest is read."""
    return ReadOptions(
        columns=order.columns,
        defaults=order.fields,
        limit=order.limit,
        base_seed=_base_seed(settings, order),
        inputs=Inputs(settings),
        placeholders=order.placeholders,
    )


def batch_request(settings: Settings, order: SubmitOrder) -> BatchRequest:
    """What the order's batch is called and how it is treated.

    Raises:
        PairError: an unknown pair.
        InputError: a name that is none; a window, not_before or deadline that is none.
    """
    return BatchRequest(
        name=_batch_name(order),
        pair=settings.model_pair(order.pair).name,
        priority=order.priority,
        invalid_folder=settings.home / "invalid" if order.skip_invalid else None,
        weight=order.weight,
        timing=Timing.parse(order.window, order.not_before, order.deadline),
        linked_in=None if order.again else settings.images_url,
        origin=_origin(settings, order).as_json(),
    )


def of_schedule(settings: Settings, order: SubmitOrder, schedule: str, due_at: datetime) -> BatchRequest:
    """The same, of a schedule's firing."""
    origin = _origin(settings, order).model_copy(update={"schedule": schedule, "due_at": due_at})
    return replace(batch_request(settings, order), origin=origin.as_json())


def submit_manifest(database: Database, manifest: Path, options: ReadOptions, request: BatchRequest,
                    advised: CountedAdvice) -> Submission:  # fmt: skip
    """Reads and submits; `name` and the rest as in ``request``. ``advised`` sees the rows."""
    return submit(database, advised.passed(read_manifest(manifest, options)), request)


def _base_seed(settings: Settings, order: SubmitOrder) -> int:
    return settings.base_seed if order.base_seed is None else order.base_seed


def _origin(settings: Settings, order: SubmitOrder) -> Origin:
    """It says where the manifest lies on this machine, and no secret of a URL."""
    manifest = safe_url(order.manifest) if "://" in order.manifest else str(Path(order.manifest).absolute())
    placed = order.model_copy(update={"manifest": manifest, "pair": settings.model_pair(order.pair).name})
    return Origin(order=placed, base_seed=_base_seed(settings, order))


def _batch_name(order: SubmitOrder) -> str:
    if order.name is None:
        return printable(Path(order.manifest).stem)[:_MAX_NAME_CHARACTERS]  # a file may be called anything
    if flaw := name_flaw(order.name):
        raise InputError(f'--name "{shown_value(order.name)}": {flaw}')
    return order.name


def name_flaw(name: str) -> str | None:
    """Why nothing can be called so, or None."""
    if not name.strip():
        return "is empty; leave it out, and the batch is called as the manifest"
    if len(name) > _MAX_NAME_CHARACTERS:
        return f"has more than {_MAX_NAME_CHARACTERS} characters"
    if flaw := text_flaw(name):
        return flaw
    return "contains a control character" if any(unicodedata.category(c) == "Cc" for c in name) else None
