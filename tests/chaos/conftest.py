"""What the chaos tests share. They stand in one group: one process runs them all."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.services import Services, services
from tests.children import ForkServer


@pytest.fixture(scope="session")
def shared(fork_server: ForkServer, model_cache: Path) -> Iterator[Services]:
    with services(fork_server, model_cache) as started:
        yield started
