"""What a submission says besides its rows: the keywords of ``SubmitOptions``, in a JSON body or in a query."""

from typing import Annotated, Final, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from producer.expanding.expansion import MAX_COUNT
from producer.submitting.submit_options import SubmitOptions
from schemas.errors import InputError
from schemas.fields import MAX_SEED
from schemas.printable import shown

Text = Annotated[str, Field(max_length=200)]


def _whole(value: object) -> object:
    """JSON has one kind of number, and 5.0 is a whole one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


#: goes last in an ``Annotated``, or the description would lose the bounds
WHOLE: Final = BeforeValidator(_whole)
MAX_ROWS: Final = 10_000_000
#: each is checked with its ten thousand values before anything is made of them
_MAX_SWEEPS: Final = 8

#: a number, or its digits: JavaScript would round it
Seed = Annotated[
    Annotated[int, Field(ge=0, le=MAX_SEED)] | Annotated[str, Field(pattern=r"^[0-9]{1,20}$")] | None,
    Field(description="Goes into every seed that is not given.", examples=["7"]),
    WHOLE,
]
SweepText = Annotated[str, Field(min_length=1, max_length=10_000)]
Sweeps = Annotated[
    list[SweepText],
    Field(max_length=_MAX_SWEEPS, description="FIELD=VALUES: every row with each of them; of several, with all"
          " combinations.", examples=[["guidance_scale=4:8:1"]]),
]  # fmt: skip


class Treatment(BaseModel):
    """How a batch is called and treated; what is left out is as in `nightshift submit`."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str | None, Field(min_length=1, max_length=200, description="What the batch is called.")] = None
    pair: Annotated[Text | None, Field(description="Which pair renders.")] = None
    priority: Annotated[int | None, Field(ge=0, le=9, description="9 is rendered before 0."), WHOLE] = None
    weight: Annotated[float, Field(ge=0.001, le=1000, description="Its share among its priority.")] = 1.0
    window: Annotated[Text | None, Field(description="The hours in which its packs may begin.")] = None
    not_before: Annotated[Text | None, Field(description="Begin no sooner: 2026-11-22T22:00+01:00.")] = None
    deadline: Annotated[Text | None, Field(description="Say so when it will not be done by then.")] = None
    limit: Annotated[int | None, Field(ge=1, le=MAX_ROWS, description="Only so many rows."), WHOLE] = None
    max_jobs: Annotated[int | None, Field(ge=1, le=MAX_ROWS, description="More are refused."), WHOLE] = None
    skip_invalid: Annotated[bool, Field(description="Leave bad rows out instead of refusing all.")] = False
    again: Annotated[bool, Field(description="Render anew the images that exist already.")] = False
    templates: Annotated[
        Literal["sample", "all"] | None,
        Field(description="Read {red|blue} in prompts as a choice: draw from it, or take each."),
    ] = None
    sweep: Sweeps = []
    zipped: Annotated[bool, Field(description="Walk all of `sweep` side by side.")] = False
    count: Annotated[int, Field(ge=1, le=MAX_COUNT, description="So many images of each row."), WHOLE] = 1
    base_seed: Seed = None

    def options(self) -> SubmitOptions:
        """As ``Client.submit`` takes them."""
        own = {name: getattr(self, name) for name in Treatment.model_fields}
        return cast(SubmitOptions, {**own, "base_seed": None if self.base_seed is None else int(self.base_seed)})


class RowsOrder(Treatment):
    """Rows, and what is to be done with them."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={
            "examples": [
                {"rows": [{"prompt": "a lighthouse in a storm", "seed": 7, "refiner": {"start": 0.9}}],
                 "name": "lighthouses", "pair": "tiny", "defaults": {"width": 512, "height": 512}},
                {"rows": [{"prompt": "a {red|blue} __animal__ at {dawn|night}"}], "templates": "sample", "count": 4,
                 "wildcards": {"animal": ["fox", "owl"]}, "sweep": ["guidance_scale=4:8:2"], "base_seed": "7"},
            ]
        },
    )  # fmt: skip

    rows: Annotated[list[dict[str, JsonValue]], Field(min_length=1, description="As the lines of a JSONL manifest.")]
    defaults: Annotated[dict[str, JsonValue], Field(description="Field → value for rows without one.")] = {}
    columns: Annotated[dict[str, str], Field(description="Column → field, for columns of other names.")] = {}

    wildcards: Annotated[dict[str, list[str]] | None,
                         Field(description="Name → values, for `templates`.")] = None  # fmt: skip

    def options(self) -> SubmitOptions:
        own: SubmitOptions = {"defaults": self.defaults, "columns": self.columns, "wildcards": self.wildcards}
        return {**super().options(), **own}


class UploadOrder(Treatment):
    """What is to be done with a manifest."""

    file: Annotated[str, Field(min_length=1, max_length=200, description="What it is called: its suffixes say what is"
                               " in it, and errors name it so.", examples=["prompts.tsv"])]  # fmt: skip
    format: Annotated[Literal["tsv", "csv", "jsonl", "txt", "parquet"] | None,
                      Field(description="What is in it, where its name does not say.")] = None  # fmt: skip
    set: Annotated[list[str], Field(description="FIELD=VALUE for rows without one.")] = []
    map: Annotated[list[str], Field(description="COLUMN=FIELD for columns of other names.")] = []

    def options(self) -> SubmitOptions:
        return {**super().options(), "defaults": _pairs("set", self.set), "columns": _pairs("map", self.map)}


def _pairs(parameter: str, items: list[str]) -> dict[str, str]:
    split = [item.partition("=") for item in items]
    for key, sign, value in split:
        if not sign or not key.strip():
            raise InputError(f"{parameter} takes key=value, not {shown(key + sign + value)}")
    return {key.strip(): value for key, _, value in split}
