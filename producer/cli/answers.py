"""How commands answer: in sentences, or as JSON for programs."""

import json
from typing import Annotated, Any

import typer

from schemas.printable import json_printable

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def print_json(content: Any) -> None:
    """One JSON document on stdout. What would move a terminal's cursor or turn its text stands as JSON's ``\\u``."""
    print("\n".join(map(json_printable, json.dumps(content, indent=2, ensure_ascii=False, default=str).split("\n"))))


def so_many(num: int, noun: str) -> str:
    """``1 job``, ``2,400 jobs``"""
    return f"{num:,} {noun}{'' if num == 1 else 's'}"
