"""What can be known to be wrong with a schedule before its first night."""

from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from producer.manifests.manifest import read_manifest
from producer.manifests.rows import BadRow, shown_value
from producer.submitting.batch_name import name_flaw
from producer.submitting.orders import batch_request, read_options, source_of
from schemas.errors import InputError, ManifestError, MissingManifestError
from schemas.fields import text_flaw
from schemas.printable import printable
from schemas.safe_url import require_no_secrets
from schemas.schedule import order_of_firing
from schemas.settings import Settings
from schemas.submit_order import SubmitOrder

_CHECKED_ROWS: Final = 100
_MAX_NAME_CHARACTERS: Final = 100
_STDIN: Final = "-"


@dataclass(frozen=True)
class CheckedOrder:
    """``order``: as the ledger keeps it, with what this machine knows filled in. ``unread``: why no row was read."""

    order: SubmitOrder
    unread: str | None


def checked_order(settings: Settings, name: str, order: SubmitOrder, due_at: datetime, zone: ZoneInfo) -> CheckedOrder:
    """Looks at all of it as it would be submitted at its first firing, and at the first rows of its manifest.

    Raises:
        InputError: says what could not be submitted then.
    """
    _check_name(name)
    placed = order.model_copy(
        update={
            "manifest": _placed(order.manifest),
            "pair": settings.model_pair(order.pair).name,
            "name": order.name if order.name is not None else f"{name} {{date}}",
        }
    )
    for text in _texts(placed):
        if flaw := text_flaw(text):
            raise InputError(f'"{printable(text)}" {flaw}, which the ledger cannot keep')
    first = order_of_firing(name, placed, due_at, zone)
    batch_request(settings, first)
    return CheckedOrder(placed, _check_rows(settings, first))


def _check_name(name: str) -> None:
    flaw = name_flaw(name) if name.strip() else "is empty"
    if flaw is None and len(name) > _MAX_NAME_CHARACTERS:
        flaw = f"has more than {_MAX_NAME_CHARACTERS} characters"
    if flaw is not None:
        raise InputError(f'the name "{shown_value(name)}" {flaw}')


def _placed(manifest: str) -> str:
    """Where dispatchers find it, whatever folder they were started in."""
    if manifest == _STDIN:
        raise InputError("a schedule cannot read standard input again each night; name a file")
    if "://" in manifest:
        require_no_secrets("the manifest", manifest, "a schedule would keep it in the ledger")
        return manifest
    return str(Path(manifest).absolute())


def _texts(order: SubmitOrder) -> list[str]:
    values = (order.manifest, order.name, *order.fields, *order.fields.values(), *order.columns)
    return [text for text in values if text is not None]


def _check_rows(settings: Settings, order: SubmitOrder) -> str | None:
    rows = read_manifest(source_of(order), read_options(settings, order))
    try:
        bad = [str(row) for row in islice(rows, _CHECKED_ROWS) if isinstance(row, BadRow)]
    except MissingManifestError as error:
        return f"{error} yet; at each firing it has to be where the dispatchers run"
    if bad and not order.skip_invalid:
        raise ManifestError(f"of the first {_CHECKED_ROWS} rows some are invalid\n" + "\n".join(bad))
    return None
