"""The columns of an exported row: every field of a spec by its name in manifests, and what is known of the image.

A seed is text, because a reader that uses doubles would round 2⁶⁴−1. Sizes and LoRAs are text as manifests write them.
"""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec
from pydantic import BaseModel

from producer.manifests.columns import GROUPS
from schemas.combinations import OF_THE_BASE
from schemas.output import Output
from schemas.refiner import FOREIGN, Refiner
from schemas.schedulers import SCHEDULER_OPTIONS
from schemas.spec import JobSpec

Kind = Literal["int", "float", "bool", "text"]
Value = int | float | bool | str | None

_MODELS: Final[Mapping[str, type[BaseModel]]] = MappingProxyType({"refiner": Refiner, "output": Output})
_KINDS: Final[Mapping[type, Kind]] = MappingProxyType({int: "int", float: "float", bool: "bool", str: "text"})


def _kind(annotation: Any) -> Kind:
    """``Annotated[Int, …] | None`` is an ``int``; what is no plain number or switch is text."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kind(get_args(annotation)[0])
    if origin in (Union, UnionType):
        (inner,) = (part for part in get_args(annotation) if part is not NoneType)
        return _kind(inner)
    return _KINDS.get(annotation, "text")


def _option_kind(name: str) -> Kind:
    """Of the values that any scheduler takes for the option; text where they are of several kinds."""
    kinds = {_KINDS[type(value)] for options in SCHEDULER_OPTIONS.values() for value in options.get(name, ())}
    return kinds.pop() if len(kinds) == 1 else "text"


def _spec_kinds() -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    for name, field in JobSpec.model_fields.items():
        if name == "scheduler_options":
            kinds |= {f"{name}.{option}": _option_kind(option) for option in GROUPS[name]}
        elif name in _MODELS:
            kinds |= {f"{name}.{part}": _kind(inner.annotation) for part, inner in _MODELS[name].model_fields.items()}
        else:
            kinds[name] = _kind(field.annotation)
    return {**kinds, "seed": "text"}


#: field of a spec → what its values are
SPEC_KINDS: Final[Mapping[str, Kind]] = MappingProxyType(_spec_kinds())
#: what is known of how the image was made
MADE_KINDS: Final[Mapping[str, Kind]] = MappingProxyType({
    "pair": "text", "pair_fingerprint": "text", "environment": "text", "handoff": "text", "forward_pass_size": "int",
    "base_steps": "int", "refiner_steps": "int",
})  # fmt: skip
FILE_KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {"sha256": "text", "pixel_sha256": "text", "size_bytes": "int"}
)
#: every column but those of meta, in the order in which they are written
KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {"job": "text", **SPEC_KINDS, **MADE_KINDS, **FILE_KINDS, "spec": "text"}
)
META: Final = "meta."


def kind_of(name: str) -> Kind:
    """Of any column: those of meta are text."""
    return KINDS.get(name, "text")


def _text(value: Any) -> Value:
    return value if isinstance(value, int | float | str | NoneType) else json.dumps(value, ensure_ascii=False)


def _size(value: Any) -> Value:
    return None if value is None else ",".join(map(str, value))


def _loras(value: Any) -> Value:
    return ", ".join(f"{lora['name']}:{lora.get('weight', 1.0):g}" for lora in value) or None


_AS_TEXT: Final[Mapping[str, Callable[[Any], Value]]] = MappingProxyType({
    "loras": _loras,
    **{name: _size for name in JobSpec.model_fields if name.endswith("_size") or "_coords_" in name},
})  # fmt: skip


def _flat(fields: Mapping[str, Any]) -> dict[str, Value]:
    flat: dict[str, Value] = {}
    for name, value in fields.items():
        if name in GROUPS:
            flat.update((f"{name}.{part}", inner) for part, inner in value.items())
        else:
            flat[name] = _AS_TEXT.get(name, _text)(value)
    return flat


#: mode of the refiner → the fields that say nothing in it: their default would say that the image had it
_SILENT: Final[Mapping[str, frozenset[str]]] = MappingProxyType({
    mode: frozenset([*(f"refiner.{name}" for name in names), *(OF_THE_BASE if mode == "only" else ())])
    for mode, names in FOREIGN.items()
})  # fmt: skip
_UNGUIDED: Final = "negative_aesthetic_score"
_EMPTY: Final = JobSpec(prompt="x", seed=0).model_dump(mode="json")


def _defaults(mode: str) -> dict[str, Value]:
    values = {**dict.fromkeys(SPEC_KINDS), **_flat(_EMPTY)}
    return {name: None if name in _SILENT[mode] else value for name, value in values.items()}


def _full(mode: str) -> dict[str, Any]:
    own = {name: None if name in _SILENT[mode] else value for name, value in _EMPTY.items()}
    refiner = {name: None if name in FOREIGN[mode] else value for name, value in _EMPTY["refiner"].items()}
    return {**own, "refiner": refiner}


_DEFAULTS: Final = MappingProxyType({mode: _defaults(mode) for mode in FOREIGN})
_FULL: Final = MappingProxyType({mode: _full(mode) for mode in FOREIGN})


def _mode(given: Mapping[str, Any]) -> str:
    return str(given.get("refiner", {}).get("mode", _EMPTY["refiner"]["mode"]))


def spec_values(canonical: str) -> dict[str, Value]:
    """Every field of the spec that ``JobSpec.canonical`` wrote, None where it says nothing beside the others. It leaves
    out those at their default, and is read here without being checked again, which would take ten times as long."""
    given = msgspec.json.decode(canonical)
    values = _DEFAULTS[_mode(given)] | _flat(given)
    if not _refiner_is_guided(values["guidance_scale"], values["refiner.guidance_scale"]):
        values[f"refiner.{_UNGUIDED}"] = None
    return values


def full_spec(canonical: str) -> dict[str, Any]:
    """As ``JobSpec.from_json(canonical).model_dump(mode="json")``, which checks and takes ten times as long, but for
    fields that say nothing beside the others: they are None."""
    given = msgspec.json.decode(canonical)
    full = _FULL[_mode(given)]
    parts = {name: {**full[name], **given.get(name, {})} for name in _MODELS}
    loras = [{"weight": 1.0, **lora} for lora in given.get("loras", ())]
    spec = {**full, **given, **parts, "loras": loras}
    if not _refiner_is_guided(spec["guidance_scale"], spec["refiner"]["guidance_scale"]):
        spec["refiner"][_UNGUIDED] = None
    return spec


def _refiner_is_guided(base_scale: Any, own_scale: Any) -> bool:
    """As ``schemas.combinations.refiner_is_guided``, of a spec that may be without a refiner."""
    scale: float = base_scale if own_scale is None else own_scale
    return scale > 1
