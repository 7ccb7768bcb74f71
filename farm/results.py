"""The rows of finished images (tables environments, images, results); their jobs are moved in ``farm/ledger.py``."""

from collections.abc import Sequence

from sqlalchemy import insert, select

from farm.database import Transaction
from schemas.provenance import Environment
from schemas.records import ClaimedPack, FinishedImage
from schemas.tables import EnvironmentRow, Image, Result


def unrecorded(tx: Transaction, pack: ClaimedPack, images: Sequence[FinishedImage]) -> list[FinishedImage]:
    """Those of which an earlier commit, whose answer was lost, has recorded nothing."""
    recorded = set(tx.execute(select(Result.job_id).where(Result.pack_id == pack.id)).scalars())
    return [image for image in images if image.job_id not in recorded]


def record(tx: Transaction, pack: ClaimedPack, environment: Environment, images: Sequence[FinishedImage]) -> None:
    """One image row and one result row each."""
    row = {"digest": environment.digest, "content": environment.model_dump(mode="json")}
    tx.execute(tx.insert(EnvironmentRow).values(row).on_conflict_do_nothing())
    image_ids = _image_ids(tx, images)
    ours = {"environment_digest": row["digest"], "worker_id": pack.worker_id, "pack_id": pack.id, "finished_at": tx.now}
    rows = [{**image.result_row(), **ours, "image_id": image_ids[image.image.uri]} for image in images]
    if rows:
        tx.execute(insert(Result), rows)


def _image_ids(tx: Transaction, images: Sequence[FinishedImage]) -> dict[str, int]:
    """URI → row of each file; one that is there already has the same bytes, for its URI carries their hash."""
    rows = {image.image.uri: {**image.image_row(), "created_at": tx.now} for image in images}
    if not rows:
        return {}
    in_order = [rows[uri] for uri in sorted(rows)]  # or two packs might wait for each other
    insertion = tx.insert(Image).values(in_order)
    same = insertion.on_conflict_do_update(index_elements=[Image.uri], set_={"sha256": insertion.excluded.sha256})
    return {row.uri: row.id for row in tx.execute(same.returning(Image.uri, Image.id))}
