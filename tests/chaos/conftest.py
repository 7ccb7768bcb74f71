"""What the chaos tests share. They stand in one group: one process runs them all, with one fork server."""

from collections.abc import Iterator

import pytest

from tests.chaos.services import Services, services


@pytest.fixture(scope="session")
def shared() -> Iterator[Services]:
    with services() as started:
        yield started
