"""The schedulers that a spec may name: diffusers' class names and the short names people use for them."""

from types import MappingProxyType
from typing import Final

from schemas.errors import SpecError

#: short name → diffusers class name
SCHEDULERS: Final = MappingProxyType(
    {
        "euler": "EulerDiscreteScheduler",
        "euler a": "EulerAncestralDiscreteScheduler",
        "ddim": "DDIMScheduler",
    }
)

_BY_LOWER_NAME: Final = {name.lower(): cls for name, cls in SCHEDULERS.items()} | {
    cls.lower(): cls for cls in SCHEDULERS.values()
}


def scheduler_class_name(name: str) -> str:
    """The diffusers class name for a short name or a class name, without regard to case or ``_``.

    Raises:
        SpecError: the name is no scheduler that Nightshift renders with.
    """
    found = _BY_LOWER_NAME.get(name.strip().lower().replace("_", " "))
    if found is None:
        known = ", ".join(f'"{short}"' for short in SCHEDULERS)
        raise SpecError(f"unknown scheduler {name[:60]!r}; known are {known} and their diffusers class names")
    return found


def short_scheduler_name(class_name: str) -> str:
    """The short name of a diffusers class name, for captions and A1111 text."""
    return next(short for short, cls in SCHEDULERS.items() if cls == class_name)
