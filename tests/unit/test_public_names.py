"""What ``from producer import …`` promises."""

import subprocess
import sys

import pytest

import producer
from schemas import errors


def test_the_public_names_are_those_that_were_promised() -> None:
    assert producer.__all__ == [
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


@pytest.mark.parametrize("name", producer.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(producer, name).__doc__ or name in str(errors.__doc__)
    assert name in dir(producer)


def test_what_is_not_public_is_not_there() -> None:
    assert not hasattr(producer, "Customer")


def modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_costs_nothing_and_the_client_no_gpu_stack() -> None:
    assert not {"sqlalchemy", "pydantic", "redis", "celery"} & modules_after("import producer")
    loaded = modules_after("from producer import Client")
    assert "sqlalchemy" in loaded
    assert not {"torch", "numpy", "typer", "pyarrow", "pandas"} & loaded
