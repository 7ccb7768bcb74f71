"""`nightshift export`."""

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final, Literal, get_args

import typer

from farm.database import Database
from farm.image_store import local_path
from producer.cli.answers import JsonOption, print_json
from producer.cli.session import Session, open_session
from producer.exports.captions import Caption
from producer.exports.csv_rows import CsvRows
from producer.exports.export import Environments, Export, Exported, MakeWriter
from producer.exports.imagefolder import Imagefolder
from producer.exports.looks import check_can_look
from producer.exports.near_duplicates import MAX_DISTANCE
from producer.exports.options import SHARD_SIZES, ExportOptions, FilterName, Format, Looks
from producer.exports.parquet import Parquet
from producer.exports.splits import WHOLE, Splits
from producer.exports.tables import check_can_write
from producer.exports.tally import Tally
from producer.exports.targets import target
from producer.exports.uniformity import differences
from producer.exports.webdataset import Webdataset
from producer.exports.where import Where
from producer.questions.queries import BatchSummary, find_batch
from schemas.errors import InputError, NotUniformError
from schemas.printable import printable, shown

app = typer.Typer()

_TOLD_SECONDS: Final = 10.0
_MAX_LICENCE_CHARACTERS: Final = 200

BatchesArgument = Annotated[list[str], typer.Argument(help="Numbers or names of batches, in the order of the dataset.")]
FormatOption = Annotated[Format, typer.Option("--format", help="What the dataset is read with.")]
ToOption = Annotated[str, typer.Option("--to", help="An empty or new folder, or any fsspec URL (s3://bucket/name).")]
CaptionOption = Annotated[
    str, typer.Option("--caption", help='The training text: a column, or a template: "{prompt}, {meta.style}".')
]
KeepWeightsOption = Annotated[
    bool, typer.Option("--keep-weights", help="Leave compel's weights in captions, which are else plain text.")
]
WhereOption = Annotated[
    list[str] | None, typer.Option("--where", help='Only such jobs: "num_inference_steps>=30". May be repeated.')
]
SplitOption = Annotated[str | None, typer.Option("--split", help="train=0.9,test=0.1, by the prompt's hash.")]
ShardSizeOption = Annotated[
    int | None, typer.Option("--shard-size", min=1, max=1_000_000_000, help="Images in a shard, or in a folder.")
]
PartialOption = Annotated[bool, typer.Option("--partial", help="Export what is done of batches that are not complete.")]
WithoutOption = Annotated[
    str | None, typer.Option("--without", help="Leave out pictures: black, blank, duplicates (with commas between).")
]
MaxDistanceOption = Annotated[
    int | None,
    typer.Option("--max-distance", min=0, max=MAX_DISTANCE, help="Bits of 64 in which duplicates may differ (3)."),
]
UniformOption = Annotated[
    Literal["refuse", "report"] | None,
    typer.Option("--uniform", help="Where images were made by different weights, versions, devices or pass sizes."),
]
SkipBrokenOption = Annotated[
    bool, typer.Option("--skip-broken", help="Leave out, and list, images whose file is missing or changed.")
]
CopyOption = Annotated[bool, typer.Option("--copy", help="imagefolder: copy images also where they could be linked.")]
VerifyOption = Annotated[bool, typer.Option("--verify", help="imagefolder: read and hash also what is linked.")]
LicenceOption = Annotated[
    str | None, typer.Option("--licence", help="The dataset card's licence, by the hub's name; else the model's.")
]


@app.command(epilog="Example: nightshift export 3 --format webdataset --to /data/cats --where scheduler=euler")
def export(
    batches: BatchesArgument,
    file_format: FormatOption,
    to: ToOption,
    caption: CaptionOption = "prompt",
    keep_weights: KeepWeightsOption = False,
    where: WhereOption = None,
    split: SplitOption = None,
    shard_size: ShardSizeOption = None,
    partial_batches: PartialOption = False,
    without: WithoutOption = None,
    max_distance: MaxDistanceOption = None,
    uniform: UniformOption = None,
    skip_broken: SkipBrokenOption = False,
    copy: CopyOption = False,
    verify: VerifyOption = False,
    licence: LicenceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a dataset of batches' images, ready for training: imagefolder, WebDataset, Parquet or CSV.

    Killed at any point, the same command goes on where it was and ends with the same bytes. Exit code 1 where --uniform
    refuses.
    """
    if file_format != "imagefolder" and (copy or verify):
        raise InputError(f"--{'copy' if copy else 'verify'} goes with --format imagefolder, the one that links images")
    with open_session() as session:
        summaries = _batches(session.database, batches)
        _check_complete(summaries, partial_batches)
        options = ExportOptions(
            batch_ids=tuple(summary.id for summary in summaries),
            format=file_format,
            caption=Caption.parse(caption, keeps_weights=keep_weights),
            where=tuple(map(Where.parse, where or ())),
            splits=WHOLE if split is None else Splits.parse(split),
            shard_size=shard_size or SHARD_SIZES[file_format],
            looks=_looks(without, max_distance),
            skip_broken=skip_broken,
            copies=copy,
            licence=_licence(licence),
        )
        _check_libraries(options)
        _check_apart(session, to)
        exported = Export(session.database, options, target(to), _Teller()).run(
            _writer_maker(options, reads_all=verify), partial(_judge, uniform)
        )
        _report(exported, to, as_json)


def _batches(database: Database, names: list[str]) -> list[BatchSummary]:
    found = [find_batch(database, name) for name in names]
    twice = next((batch.id for place, batch in enumerate(found) if batch in found[:place]), None)
    if twice is not None:
        raise InputError(f"batch {twice} is named twice")
    return found


def _check_complete(batches: list[BatchSummary], partial_batches: bool) -> None:
    """Canceled jobs never come; all others may, and would make another dataset of it."""
    missing = {batch.id: batch.num_jobs - batch.num_done - batch.num_canceled for batch in batches}
    for batch in batches:
        if (not batch.ended or missing[batch.id]) and not partial_batches:
            failed = f", {batch.num_failed:,} of them failed" if batch.num_failed else ""
            raise InputError(
                f"batch {batch.id} is not complete: {missing[batch.id]:,} of {batch.num_jobs:,} images are missing"
                f"{failed}; --partial exports what there is"
            )


def _looks(without: str | None, max_distance: int | None) -> Looks:
    names = [] if without is None else [name.strip() for name in without.split(",")]
    for name in names:
        if name not in get_args(FilterName):
            raise InputError(f"--without {shown(without)}: {shown(name)} is none of {', '.join(get_args(FilterName))}")
    if max_distance is not None and "duplicates" not in names:
        raise InputError("--max-distance says when pictures are duplicates, so it goes with --without duplicates")
    chosen: tuple[Any, ...] = tuple(names)
    return Looks(chosen) if max_distance is None else Looks(chosen, max_distance)


def _licence(text: str | None) -> str | None:
    if text is not None and (not text.strip() or len(text) > _MAX_LICENCE_CHARACTERS or not text.isprintable()):
        raise InputError(
            f"--licence {shown(text)} is no licence; the hub's names are such as openrail++, cc0-1.0, other"
        )
    return text


def _check_libraries(options: ExportOptions) -> None:
    if options.format in ("webdataset", "parquet"):
        check_can_write()
    check_can_look(options.looks)


def _check_apart(session: Session, to: str) -> None:
    """An export inside the image store would be so many strangers' files in it."""
    folder, store = local_path(to), local_path(session.settings.images_url)
    if folder is not None and store is not None and folder.resolve().is_relative_to(store.resolve()):
        raise InputError(f"--to {printable(to)} lies in the image store {store}; name a folder outside it")


def _writer_maker(options: ExportOptions, *, reads_all: bool) -> MakeWriter:
    size = options.shard_size
    makers: dict[str, MakeWriter] = {
        "imagefolder": lambda place, columns, _: Imagefolder(
            place, columns, size, copies=options.copies, reads_all=reads_all
        ),
        "webdataset": lambda place, columns, environments: Webdataset(
            place, columns, size, environments, has_splits=len(options.splits.shares) > 1
        ),
        "parquet": lambda place, columns, _: Parquet(place, columns, size),
        "csv": lambda place, columns, _: CsvRows(place, columns, size),
    }
    return makers[options.format]


def _judge(uniform: str | None, tally: Tally, environments: Environments) -> None:
    found = differences(tally, environments) if uniform is not None else []
    if found and uniform == "refuse":
        raise NotUniformError(
            f"the images were not made alike: {'; '.join(found)}; --where environment=… or forward_pass_size=… chooses,"
            " --uniform report exports them all the same"
        )
    for line in found:
        print(f"not uniform: {line}", file=sys.stderr)


class _Teller:
    """Says on stderr, every ten seconds, how far the export is."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = clock() + _TOLD_SECONDS

    def __call__(self, done: str, num_images: int, num_in_all: int | None) -> None:
        if (now := self._clock()) >= self._next:
            self._next = now + _TOLD_SECONDS
            so_far = f"{num_images:,} images" if num_in_all is None else f"{num_images:,} of {num_in_all:,} images"
            print(f"exporting: {so_far} {done} so far", file=sys.stderr, flush=True)


def _report(exported: Exported, to: str, as_json: bool) -> None:
    tally = exported.tally
    left_out = dict(sorted(tally.num_left_out.items()))
    if as_json:
        print_json({"to": to, "num_images": tally.num_images, "num_bytes": tally.num_bytes,
                    "num_shards": exported.num_shards, "num_written": exported.num_written,
                    "splits": exported.splits, "left_out": left_out, "plan": exported.plan})  # fmt: skip
        return
    splits = ", ".join(f"{name} {num:,}" for name, num in exported.splits.items())
    print(f"{tally.num_images:,} images ({splits}) are in {printable(to)}")
    for reason, num in left_out.items():
        print(f"left out: {num:,} {reason}; left_out.jsonl names them")
