"""``.nightshift-export.json``: which export a folder holds. Written first, and never changed.

What is there already may be gone on with only by the same export: same options, same images, same versions.
"""

import json
from typing import Any, Final

from producer.exports.targets import Target, put
from schemas.errors import InputError
from schemas.printable import printable

KEY: Final = ".nightshift-export.json"
#: of what is written for an image: 2 leaves out fields that say nothing in the spec's mode
FORM: Final = 2
_ELSEWHERE: Final = "name another folder, or empty this one"


def check_held(target: Target, options: dict[str, Any], versions: dict[str, str]) -> None:
    """What can be known to be wrong with the folder before the images are chosen, which takes minutes of a million.

    Raises as ``hold_plan``.
    """
    content = target.read(KEY)
    if content is None:
        if stranger := min(target.sizes(""), default=None):
            raise InputError(f"{target.url} holds {printable(stranger)} and no export; {_ELSEWHERE}")
    elif (other := _other_way(_held(content, target.url), {"options": options, "versions": versions})) is not None:
        raise _other_export(target, other)


def hold_plan(target: Target, plan: dict[str, Any]) -> bool:
    """Writes the plan into an empty folder (``check_held``). Returns whether it was there already.

    Raises:
        InputError: the folder holds something else, or another export.
        StorageError: it cannot be read or written.
    """
    check_held(target, plan["options"], plan["versions"])
    content = target.read(KEY)
    if content is None:
        put(target, KEY, (json.dumps(plan, indent=2, ensure_ascii=False) + "\n").encode())
        return False
    held = _held(content, target.url)
    if held["plan"] != plan["plan"]:
        raise _other_export(
            target, f"it is of {held.get('num_images')} images and this one of {plan['num_images']}, or of other ones"
        )
    return True


def _held(content: bytes, url: str) -> dict[str, Any]:
    try:
        held = json.loads(content)
        if isinstance(held["options"], dict) and isinstance(held["versions"], dict) and held["plan"]:
            return dict(held)
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{url}/{KEY} is not what an export writes; {_ELSEWHERE}")


def _other_way(held: dict[str, Any], plan: dict[str, Any]) -> str | None:
    """The first option or version that is another; None where none is."""
    if held.get("nightshift_export") != FORM:  # shards of two forms have different columns
        return "its columns are those of another Nightshift"
    for part, said in (("options", "its --{} is {} and not {}"), ("versions", "it was begun by {} {} and not {}")):
        for name, value in plan[part].items():
            if (other := held[part].get(name)) != value:
                return printable(said.format(name, json.dumps(other), json.dumps(value)))
    return None


def _other_export(target: Target, other: str) -> InputError:
    return InputError(f"{target.url} holds another export: {other}; {_ELSEWHERE}")
