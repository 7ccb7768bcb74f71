"""Every error that Nightshift raises on purpose.

    NightshiftError                 code, retryable, is_of_the_job, exit_code
    ├── InputError                  what the user gave is wrong                      exit 2
    │   ├── SpecError               a spec is out of bounds or contradicts itself
    │   ├── ManifestError           a manifest cannot be read, or has bad rows
    │   │   ├── MissingManifestError    there is no such file
    │   │   └── TooManyJobsError    it would be more jobs than were allowed
    │   ├── SettingsError           a setting is missing, unknown or malformed
    │   ├── PairError               a pair is unknown or does not load
    │   ├── InputFileError          a picture or LoRA that a job starts from is missing or broken
    │   ├── TemplateError           a template, or a wildcard that it names, cannot be read
    │   └── NotFoundError           no such batch, job or file
    ├── UnavailableError            something outside does not answer               exit 3
    │   ├── BrokerUnavailableError  Redis
    │   │   └── BrokerRefusedError  Redis answers, and says no
    │   ├── DatabaseUnavailableError
    │   ├── SchemaVersionError      the ledger's tables are of another version
    │   └── StorageError            a disk or an image store refuses
    ├── WaitTimeoutError            a batch has not ended in the time that it was waited for
    ├── MessageError                a message on the queue is not one of ours
    ├── NotUniformError             a dataset's images were not made alike, and should be
    ├── RequestError                a request over HTTP is refused; says its status
    ├── LeaseLostError              the pack is somebody else's by now
    ├── OutOfServiceError           every device of a machine failed               exit 4
    └── RenderError                 one job, or one pack, could not be rendered
        ├── DeviceMemoryError       out of memory, for one image in the end
        ├── DeviceLostError         a sticky device error: the process must end
        └── InvalidImageError       the picture is black, or has NaN or infinite values

A message says what was wrong, where, and what would be right, in one sentence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class NightshiftError(Exception):
    """Base of the tree. ``str(error)`` is one sentence fit for the terminal."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False
    #: the job would fail alone as well as with others: nobody else of its pack is suspected
    is_of_the_job: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1


class InputError(NightshiftError):
    code = "input"
    is_of_the_job = True
    exit_code = 2


@dataclass(frozen=True)
class FieldProblem:
    """One wrong field of a spec (``refiner.start`` for one of the refiner's). A missing field has the value None.

    ``beside``: the other fields that make it wrong; with other values of theirs it would be right.
    """

    field: str
    value: object
    reason: str
    beside: tuple[str, ...] = ()


class SpecError(InputError):
    """``problems`` names every wrong field, where fields are what is wrong."""

    code = "spec"

    def __init__(self, message: str, problems: Sequence[FieldProblem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class ManifestError(InputError):
    code = "manifest"


class MissingManifestError(ManifestError):
    code = "missing_manifest"


class TooManyJobsError(ManifestError):
    """``would_be``: how many, and how many were allowed."""

    code = "too_many_jobs"

    def __init__(self, message: str, would_be: str) -> None:
        super().__init__(message)
        self.would_be = would_be


class SettingsError(InputError):
    code = "settings"


class PairError(InputError):
    code = "pair"


class InputFileError(InputError):
    code = "input_file"


class TemplateError(InputError):
    code = "template"


class NotFoundError(InputError):
    code = "not_found"


class UnavailableError(NightshiftError):
    code = "unavailable"
    retryable = True
    exit_code = 3


class BrokerUnavailableError(UnavailableError):
    code = "broker_unavailable"


class BrokerRefusedError(BrokerUnavailableError):
    code = "broker_refused"


class DatabaseUnavailableError(UnavailableError):
    code = "database_unavailable"


class SchemaVersionError(UnavailableError):
    code = "schema_version"
    retryable = False


class StorageError(UnavailableError):
    code = "storage"


class WaitTimeoutError(NightshiftError, TimeoutError):
    """The batch goes on."""

    code = "wait_timeout"
    retryable = True


class MessageError(NightshiftError):
    code = "message"


class NotUniformError(NightshiftError):
    code = "not_uniform"


class RequestError(NightshiftError):
    """``status``: of HTTP. ``retry_after``: seconds after which asking again may help."""

    def __init__(self, status: int, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.request_code = code
        self.retry_after = retry_after


class LeaseLostError(NightshiftError):
    code = "lease_lost"


class OutOfServiceError(NightshiftError):
    code = "out_of_service"
    exit_code = 4


class RenderError(NightshiftError):
    code = "render"
    retryable = True


class DeviceMemoryError(RenderError):
    """The device thread halves larger passes itself; what fails is one image, which nothing makes smaller."""

    code = "device_memory"
    retryable = False
    is_of_the_job = True


class DeviceLostError(RenderError):
    code = "device_lost"


class InvalidImageError(RenderError):
    code = "invalid_image"
    retryable = False
    is_of_the_job = True
