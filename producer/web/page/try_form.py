"""The form for a prompt to try: what it shows of a job, what it carries over besides, and what it asks for. Pure.

A job has more fields than the form. Those without a field of their own stand below it, each with a box that drops it,
so that a form that is sent as it came asks for the very spec of its job.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from schemas.schedulers import short_scheduler_name
from schemas.spec import JobSpec

#: what is typed or chosen, and shown before anybody changes it
USUAL: Final = {
    "prompt": "", "negative_prompt": "", "width": "1024", "height": "1024", "num_inference_steps": "40",
    "guidance_scale": "5.0", "scheduler": "euler", "seed": "",
}  # fmt: skip
_OFF: Final = {"mode": "off"}
_NEGATIVE, _REFINER = "negative_prompt", "refiner"


@dataclass(frozen=True)
class Carried:
    """A field of the job that the form has none for. ``box``: its name in the form."""

    name: str
    text: str
    box: str
    is_kept: bool


def shown_of(spec: JobSpec) -> dict[str, str]:
    """The job in the form's own fields."""
    texts = {name: "" if (value := getattr(spec, name)) is None else str(value) for name in USUAL}
    refiner = {} if spec.refiner.mode == "off" else {_REFINER: "on"}
    return {**texts, "scheduler": short_scheduler_name(spec.scheduler), **refiner}


def carried(spec: JobSpec, given: Mapping[str, str] | None = None) -> list[Carried]:
    """``given``: the form as it was sent; None: it is new, and keeps everything."""
    return [
        Carried(name, _text(value), _box(name), given is None or _box(name) in given)
        for name, value in _content(spec).items()
        if _needs_box(spec, name)
    ]


def row_of(given: Mapping[str, str], spec: JobSpec | None = None) -> dict[str, Any]:
    """What the form asks for, as a row of JSON. ``spec``: of the job that it was filled with. An empty field says
    nothing: what the job said is gone, too."""
    content = {} if spec is None else _content(spec)
    row = dict(_kept(given, spec, content)) if spec is not None else {}
    shown = {} if spec is None else shown_of(spec)
    for name in USUAL:
        text = given.get(name, "")
        if spec is not None and text == _lines(shown[name]) and (text or name != _NEGATIVE):
            row |= {name: content[name]} if name in content else {}  # to the last digit
        elif text:
            row[name] = text
    if _REFINER not in given:
        row[_REFINER] = _OFF
    return row


def _kept(given: Mapping[str, str], spec: JobSpec, content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The fields without one of their own whose boxes are ticked."""
    for name, value in content.items():
        if _needs_box(spec, name) and _box(name) in given:
            yield name, value


def _content(spec: JobSpec) -> dict[str, Any]:
    """The fields that are not at their default. Of a refiner that is off there is nothing beside that."""
    content: dict[str, Any] = json.loads(spec.canonical)
    return content if spec.refiner.mode != "off" else {name: content[name] for name in content if name != _REFINER}


def _needs_box(spec: JobSpec, name: str) -> bool:
    """Whether no field of the form shows it. A negative prompt without a word in it looks like none, and is encoded."""
    return name not in USUAL or (name == _NEGATIVE and spec.negative_prompt == "")


def _box(name: str) -> str:
    return f"keep.{name}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _lines(text: str) -> str:
    """As a browser keeps and sends it, less what forms do to ends of lines."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
