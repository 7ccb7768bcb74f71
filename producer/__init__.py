"""The control plane. ``from producer import Client`` is the Python API; everything else in here may change.

The names below are loaded when they are asked for, so that importing a part of this package costs that part alone.
"""

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from farm.recorded_images import Recorded
    from producer.client import AcceptedBatch, Client
    from producer.questions.job_results import JobResult
    from producer.questions.queries import BatchSummary
    from producer.submitting.submit_options import SubmitOptions
    from schemas.errors import InputError, ManifestError, NightshiftError, UnavailableError, WaitTimeoutError
    from schemas.settings import Settings, load_settings
    from schemas.spec import JobSpec
    from schemas.states import JobState

__all__ = [
    "AcceptedBatch",
    "BatchSummary",
    "Client",
    "InputError",
    "JobResult",
    "JobSpec",
    "JobState",
    "ManifestError",
    "NightshiftError",
    "Recorded",
    "Settings",
    "SubmitOptions",
    "UnavailableError",
    "WaitTimeoutError",
    "load_settings",
]

_HOME_OF: Final = MappingProxyType(
    {
        "AcceptedBatch": "producer.client",
        "BatchSummary": "producer.questions.queries",
        "Client": "producer.client",
        "JobResult": "producer.questions.job_results",
        "JobSpec": "schemas.spec",
        "JobState": "schemas.states",
        "Recorded": "farm.recorded_images",
        "Settings": "schemas.settings",
        "SubmitOptions": "producer.submitting.submit_options",
        "load_settings": "schemas.settings",
        **dict.fromkeys(
            ("InputError", "ManifestError", "NightshiftError", "UnavailableError", "WaitTimeoutError"), "schemas.errors"
        ),
    }
)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
