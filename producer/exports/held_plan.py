"""``.nightshift-export.json``: which export a folder holds. Written first, and never changed.

What is there already may be gone on with only by the same export: same options, same images, same versions.
"""

import json
from typing import Any, Final

from producer.exports.targets import Target, put
from schemas.errors import InputError
from schemas.printable import printable

KEY: Final = ".nightshift-export.json"
_ELSEWHERE: Final = "name another folder, or empty this one"


def hold_plan(target: Target, plan: dict[str, Any]) -> bool:
    """Writes the plan into an empty folder. Returns whether it was there already.

    Raises:
        InputError: the folder holds something else, or another export.
        StorageError: it cannot be read or written.
    """
    content = target.read(KEY)
    if content is None:
        if stranger := min(target.sizes(""), default=None):
            raise InputError(f"{target.url} holds {printable(stranger)} and no export; {_ELSEWHERE}")
        put(target, KEY, (json.dumps(plan, indent=2, ensure_ascii=False) + "\n").encode())
        return False
    if (other := _difference(_held(content, target.url), plan)) is not None:
        raise InputError(f"{target.url} holds another export: {other}; {_ELSEWHERE}")
    return True


def _held(content: bytes, url: str) -> dict[str, Any]:
    try:
        held = json.loads(content)
        if isinstance(held["options"], dict) and isinstance(held["versions"], dict) and held["plan"]:
            return dict(held)
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{url}/{KEY} is not what an export writes; {_ELSEWHERE}")


def _difference(held: dict[str, Any], plan: dict[str, Any]) -> str | None:
    if held["plan"] == plan["plan"]:
        return None
    for part, said in (("options", "its --{} is {} and not {}"), ("versions", "it was begun by {} {} and not {}")):
        for name, value in plan[part].items():
            if (other := held[part].get(name)) != value:
                return printable(said.format(name, json.dumps(other), json.dumps(value)))
    return f"it is of {held.get('num_images')} images and this one of {plan['num_images']}, or of other ones"
