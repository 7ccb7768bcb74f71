"""From an order to a batch: how `submit` and `render` are told what to do, and what a schedule says again and again."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

from farm.database import Database
from producer.expanding.expansion import Expansion, TemplateMode
from producer.expanding.sweeps import parsed_sweep
from producer.manifests.counted_advice import CountedAdvice
from producer.manifests.inputs import Inputs
from producer.manifests.manifest import ReadOptions, read_manifest
from producer.manifests.manifest_source import ManifestSource
from producer.manifests.rows import shown_value
from producer.submitting.batch_name import name_flaw, name_of_manifest
from producer.submitting.submit import BatchRequest, Submission, submit
from schemas.errors import InputError
from schemas.safe_url import safe_url
from schemas.settings import Settings
from schemas.submit_order import Origin, SubmitOrder
from schemas.timing import Timing


def source_of(order: SubmitOrder) -> ManifestSource:
    """What the order reads. Raises ManifestError where it cannot be told what that is."""
    return ManifestSource.parse(order.manifest, order.manifest_format)


def read_options(settings: Settings, order: SubmitOrder) -> ReadOptions:
    """How the order's manifest is read. Raises InputError for templates or sweeps that cannot be."""
    return ReadOptions(
        columns=order.columns,
        defaults=order.fields,
        limit=order.limit,
        base_seed=_base_seed(settings, order),
        inputs=Inputs(settings),
        expansion=_expansion(order),
        max_jobs=order.max_jobs,
        placeholders=order.placeholders,
    )


def batch_request(settings: Settings, order: SubmitOrder) -> BatchRequest:
    """What the order's batch is called and how it is treated.

    Raises:
        PairError: an unknown pair.
        InputError: a name that is none; a window, not_before or deadline that is none.
    """
    pair = settings.model_pair(order.pair).name
    return BatchRequest(
        name=_batch_name(order),
        pair=pair,
        priority=order.priority,
        invalid_folder=settings.home / "invalid" if order.skip_invalid else None,
        weight=order.weight,
        timing=Timing.parse(order.window, order.not_before, order.deadline),
        linked_in=None if order.again else settings.images_url,
        definition=settings.given_definition(pair),
        origin=_origin(settings, order).as_json(),
    )


def of_schedule(settings: Settings, order: SubmitOrder, schedule: str, due_at: datetime) -> BatchRequest:
    """The same, of a schedule's firing."""
    origin = _origin(settings, order).model_copy(update={"schedule": schedule, "due_at": due_at})
    return replace(batch_request(settings, order), origin=origin.as_json())


def submit_manifest(database: Database, manifest: Path | ManifestSource, options: ReadOptions, request: BatchRequest,
                    advised: CountedAdvice) -> Submission:  # fmt: skip
    """Reads and submits; `name` and the rest as in ``request``. ``advised`` sees the rows."""
    return submit(database, advised.passed(read_manifest(manifest, options)), request)


def _base_seed(settings: Settings, order: SubmitOrder) -> int:
    return settings.base_seed if order.base_seed is None else order.base_seed


def _origin(settings: Settings, order: SubmitOrder) -> Origin:
    """It says where the manifest lies on this machine, and no secret of a URL."""
    place = source_of(order).place
    manifest = str(place.absolute()) if isinstance(place, Path) else safe_url(place)
    placed = order.model_copy(update={"manifest": manifest, "pair": settings.model_pair(order.pair).name})
    return Origin(order=placed, base_seed=_base_seed(settings, order))


def _batch_name(order: SubmitOrder) -> str:
    if order.name is None:
        return name_of_manifest(source_of(order))
    if flaw := name_flaw(order.name):
        raise InputError(f'--name "{shown_value(order.name)}": {flaw}')
    return order.name


def _expansion(order: SubmitOrder) -> Expansion:
    templates = TemplateMode(order.templates) if order.templates else None
    wildcards = Path(order.wildcards) if order.wildcards else None
    return Expansion(templates, wildcards, parsed_sweep(order.sweep, zipped=order.zipped), order.count)
