"""What the models of a spec say of a field on an axis: whether it holds a number, whether it may be absent."""

from collections.abc import Mapping
from typing import Any, Final, get_args, get_origin

from producer.manifests.defaults import START_FIELDS
from schemas.spec import JobSpec

#: What ``none`` leaves out may have no default of its own.
_NO_DEFAULT: Final = (None, ())


def holds_number(field: str) -> bool:
    """Whether its value is one number: no text, no pair of numbers, no scheduler's option."""
    found = _model_fields(field).get(field.rpartition(".")[2])
    return found is not None and _is_number(found.annotation)


def may_be_absent(field: str) -> bool:
    """Whether a spec without the field has none, rather than a default."""
    group, dot, name = field.partition(".")
    if field in START_FIELDS or group not in JobSpec.model_fields:
        return False
    fields = _model_fields(field)
    # The scheduler's options are no model's fields: each may be absent.
    return fields[name if dot else group].default in _NO_DEFAULT if fields else True


def _model_fields(field: str) -> Mapping[str, Any]:
    group, dot, _ = field.partition(".")
    if not dot or group not in JobSpec.model_fields:
        return JobSpec.model_fields
    return getattr(JobSpec.model_fields[group].annotation, "model_fields", {})


def _is_number(annotation: Any) -> bool:
    if get_origin(annotation) is tuple:
        return False
    return annotation in (int, float) or any(map(_is_number, get_args(annotation)))
