"""An order: everything that `nightshift submit` is told, as one value. A schedule keeps it, a batch comes from it."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from schemas.errors import InputError
from schemas.fields import MAX_SEED, text_flaw
from schemas.printable import printable, shown

#: what a batch has at the most, unless more is asked for
MAX_JOBS: Final = 1_000_000


def _number(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20 else value


#: Text in JSON: a double would round it.
Seed = Annotated[int, Field(ge=0, le=MAX_SEED), BeforeValidator(_number), PlainSerializer(str)]


class SubmitOrder(BaseModel):
    """``manifest_format``, ``fields``, ``columns``: as `--format`, `--set` and `--map` say. Checked here is only that
    it is well-formed.

    not_before, deadline: as `--not-before` and `--deadline` say; of a schedule, times of the clock (``07:00``).
    templates, wildcards, sweep, zipped, count: how one row becomes several, as the options of these names say.
    max_jobs: of more in all the order is refused.
    placeholders: what stands for ``{date}`` and its like in the manifest's rows; none where a user submits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[1] = 1
    manifest: str
    manifest_format: str | None = None
    pair: str | None = None
    name: str | None = None
    fields: Mapping[str, str] = {}
    columns: Mapping[str, str] = {}
    limit: Annotated[int, Field(ge=1)] | None = None
    base_seed: Seed | None = None
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    weight: Annotated[float, Field(gt=0)] = 1.0
    window: str | None = None
    not_before: str | None = None
    deadline: str | None = None
    again: bool = False
    skip_invalid: bool = False
    templates: Literal["sample", "all"] | None = None
    wildcards: str | None = None
    sweep: tuple[str, ...] = ()
    zipped: bool = False
    count: Annotated[int, Field(ge=1)] = 1
    max_jobs: Annotated[int, Field(ge=1)] = MAX_JOBS
    placeholders: Mapping[str, str] = {}

    def as_json(self) -> dict[str, Any]:
        """For a JSON column."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, content: object) -> Self:
        """Raises InputError for anything that ``as_json`` of this version did not write."""
        try:
            return cls.model_validate_json(json.dumps(content))
        except ValidationError as error:
            first = error.errors()[0]
            flaw = f"{printable('.'.join(map(str, first['loc'])))} {shown(first['input'])}: {first['msg']}"
            raise InputError(f"the order is of another version of Nightshift: {flaw.strip()}") from None


class Origin(BaseModel):
    """How a batch came to be. ``order``: as it was read, placeholders filled. ``due_at``: of its schedule's firing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    order: SubmitOrder
    base_seed: Seed
    schedule: str | None = None
    due_at: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        """For a JSON column. What no column could hold (half a surrogate pair, of a file's name) is escaped."""
        return json.loads(json.dumps(self.model_dump(mode="json"), ensure_ascii=False), object_pairs_hook=_escaped)  # type: ignore[no-any-return]


def _escaped(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {_storable(key): _storable(value) for key, value in pairs}


def _storable(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and text_flaw(value) else value
