"""The examples of docs/api.md, asked of the real application."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from farm.image_store import ImageStore
from schemas.settings import Settings
from tests.integration.ledger_farm import open_batch
from tests.integration.played_worker import render
from tests.integration.web_client import HERE
from tests.integration.web_farm import farm_with_page

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.+?)^```", PAGE, re.M | re.S)
EXAMPLES = [command for block in BLOCKS for command in re.split(r"\n(?=curl )", block.strip())]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Of a farm whose first batch has an image and a job that waits."""
    with farm_with_page(tmp_path_factory.mktemp("docs")) as farm, farm.client(peer=HERE) as client:
        batch_id = open_batch(farm.database, 2)
        assert batch_id == 1
        render(farm.database, ImageStore(farm.page.settings.images_url), batch_id, 1)
        yield client


def asked(client: TestClient, command: str, folder: Path) -> int:
    """Does what curl would, and returns the status."""
    words = iter(shlex.split(command)[1:])
    method, url, headers, content = "", "", {}, None
    for word in words:
        match word:
            case "-X":
                method = next(words)
            case "-H":
                name, _, value = next(words).partition(": ")
                headers[name] = value
            case "-d":
                content = next(words).encode()
            case "-T":
                content = (folder / next(words)).read_bytes()
            case "-o":
                next(words)
            case _:
                url = word
    answer = client.request(method or ("POST" if content else "GET"), url, headers=headers, content=content)
    return answer.status_code


def test_every_example_does_what_it_says(client: TestClient, tmp_path: Path) -> None:
    """In the order of the page: what is resumed was paused before."""
    (tmp_path / "prompts.tsv").write_text("Prompt\na lighthouse in a storm\n")
    for command in EXAMPLES:
        assert "-N" in command or asked(client, command, tmp_path) in (200, 201), command


def test_there_is_an_example_of_each_noun() -> None:
    for noun in ("/batches ", "/manifests", "/jobs", "/image", "/provenance", "/results", "/events", "/cancel"):
        assert any(noun in example for example in EXAMPLES), noun


def test_every_code_that_the_web_page_gives_is_documented() -> None:
    sources = [path.read_text() for path in (ROOT / "producer" / "web").rglob("*.py")]
    refusal = re.compile(r'(?:RequestError|problem_response)\(\s*\d{3}, "(\w+)"')
    given = {code for source in sources for code in refusal.findall(source)}
    assert len(given) > 10
    assert [code for code in sorted(given) if f"`{code}`" not in PAGE.split("## Errors")[1]] == []


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name.startswith("web_")])
def test_every_setting_of_the_web_page_is_explained(name: str) -> None:
    pages = PAGE + (ROOT / "docs" / "security.md").read_text() + (ROOT / "docs" / "operations.md").read_text()
    assert f"`NIGHTSHIFT_{name.upper()}" in pages
