"""`nightshift render` as a user runs it, with a ledger and an image store of its own: to be held against other ways of
rendering the same prompts."""

import argparse
import os
import sys
from pathlib import Path

from producer.manifests.manifest import ReadOptions, Row, read_manifest
from schemas.spec import JobSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is rendered."""
    parser.add_argument("manifest", type=Path, nargs="?", default=Path("benchmarks/prompts.txt"))
    parser.add_argument("--pair", default="tiny")
    parser.add_argument("--side", default="256", help="width and height")
    parser.add_argument("--steps", default="10")
    parser.add_argument("--limit", type=int, default=24, help="prompts of the manifest")
    parser.add_argument("--pass-size", type=int, default=8)
    parser.add_argument("--record", default="benchmarks.jsonl")


def specs(options: argparse.Namespace) -> list[JobSpec]:
    """Those that the command makes of the manifest."""
    wanted = ReadOptions(columns={}, defaults=_fields(options), limit=options.limit, base_seed=0)
    return [row.spec for row in read_manifest(options.manifest, wanted) if isinstance(row, Row)]


def command(options: argparse.Namespace) -> list[str]:
    fields = [f"{name}={value}" for name, value in _fields(options).items()]
    return [
        sys.executable, "-m", "nightshift", "render", str(options.manifest), "--pair", options.pair,
        "--limit", str(options.limit), "--json", *(word for field in fields for word in ("--set", field)),
    ]  # fmt: skip


def database_url(folder: Path) -> str:
    return f"sqlite:///{folder}/ledger.sqlite3"


def environment(options: argparse.Namespace, folder: Path) -> dict[str, str]:
    """This process's, with ledger and images in the folder. The pair is where it always is."""
    return {
        **os.environ,
        "NIGHTSHIFT_HOME": os.environ.get("NIGHTSHIFT_HOME", str(Path("~/.nightshift").expanduser())),
        "NIGHTSHIFT_DATABASE_URL": database_url(folder),
        "NIGHTSHIFT_IMAGES_URL": Path(folder, "images").as_uri(),
        "NIGHTSHIFT_FORWARD_PASS_SIZE": str(options.pass_size),
        "NIGHTSHIFT_PACK_SIZE": str(options.pass_size),
    }


def _fields(options: argparse.Namespace) -> dict[str, str]:
    return {"width": options.side, "height": options.side, "num_inference_steps": options.steps}
