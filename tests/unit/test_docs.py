"""What the documents promise is there: commands, settings, folders, examples."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

from nightshift import COMMANDS, loaded
from producer.manifests.manifest_format import COMPRESSIONS, FORMATS
from schemas.buckets import ASPECT_RATIO
from schemas.device_options import DeviceOptions
from schemas.output import Output
from schemas.pair import ModelPair
from schemas.refiner import Refiner
from schemas.settings import Settings
from schemas.spec import JobSpec

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
BULK = (ROOT / "docs" / "bulk.md").read_text()
RENDERING = (ROOT / "docs" / "rendering.md").read_text()


def all_commands() -> dict[str, Any]:
    leaves = {}
    for name, command in ((name, loaded(name)) for name in COMMANDS):
        inner = getattr(command, "commands", None)
        leaves |= {f"{name} {sub}": leaf for sub, leaf in inner.items()} if inner else {name: command}
    return leaves


#: promised commands that have an answer, and so --json
ANSWERING = [
    *[
        "render",
        "grid",
        "plan",
        "submit",
        "watch",
        "status",
        "show",
        "reproduce",
        "verify",
        "export",
        "cancel",
        "retry",
        "pairs",
        "doctor",
        "sizes",
        "report",
        "gc",
        "drain",
    ],
    "db upgrade",
    *(f"token {name}" for name in ("new", "list", "revoke")),
    *(f"schedule {name}" for name in ("add", "list", "pause", "resume", "run", "remove")),
]


def test_the_commands_are_those_that_were_promised() -> None:
    assert set(all_commands()) == {
        *ANSWERING,
        "failures",
        "pause",
        "resume",
        "reprioritise",
        "up",
        "worker",
        "dispatcher",
        "web",
    }


@pytest.mark.parametrize("name", all_commands())
def test_every_command_is_in_the_readme_and_its_help_has_an_example(name: str) -> None:
    assert f"`nightshift {name}" in README
    assert all_commands()[name].epilog.startswith(f"Example: nightshift {name}")


@pytest.mark.parametrize("name", ANSWERING)
def test_every_command_that_shows_something_shows_it_as_json_too(name: str) -> None:
    options = [option for parameter in all_commands()[name].params for option in parameter.opts]
    assert "--json" in options


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name != "pairs"])
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    (row,) = re.findall(rf"^\| `NIGHTSHIFT_{name.upper()}` \| ([^|]*) \|", OPERATIONS, re.M)
    default = Settings.model_fields[name].default
    if isinstance(default, bool):
        assert row.strip() == str(default).lower()
    elif isinstance(default, int | float):
        assert row.strip() == f"{default:g}"


@pytest.mark.parametrize("name", [name for name in ModelPair.model_fields if name != "name"])
def test_every_field_of_a_pair_is_documented(name: str) -> None:
    assert re.search(rf"^\| `{name}` \|", OPERATIONS, re.M)
    assert re.search(rf"^{name} = ", OPERATIONS, re.M)


@pytest.mark.parametrize("name", DeviceOptions.model_fields)
def test_every_device_option_is_documented(name: str) -> None:
    assert re.search(rf"^\| `{name}` \|", OPERATIONS, re.M)


@pytest.mark.parametrize("example", re.findall(r"```toml\n(\[pairs\..+?)```", OPERATIONS, re.S))
def test_every_pair_of_the_examples_can_be_read(example: str) -> None:
    for name, fields in tomllib.loads(example)["pairs"].items():
        assert ModelPair.model_validate({"name": name, **fields}).name == name


@pytest.mark.parametrize(
    "name",
    [
        *JobSpec.model_fields,
        ASPECT_RATIO,
        *(f"refiner.{name}" for name in Refiner.model_fields),
        *(f"output.{name}" for name in Output.model_fields),
    ],
)
def test_every_field_of_a_spec_is_documented(name: str) -> None:
    if name not in ("refiner", "output"):
        assert f"`{name}`" in RENDERING


@pytest.mark.parametrize("name", re.findall(r"^(\S+?)/? {2,}\S", README.split("## The house")[1].split("```")[1], re.M))
def test_every_folder_of_the_tree_is_there(name: str) -> None:
    assert (ROOT / name).exists()


@pytest.mark.parametrize(
    ("folder", "parts"),
    [
        ("deploy", [path.name for path in (ROOT / "deploy").iterdir()]),
        ("docs", [path.stem for path in (ROOT / "docs").glob("*.md")]),
    ],
)
def test_the_tree_names_what_is_in_a_folder(folder: str, parts: list[str]) -> None:
    said = re.findall(rf"^{folder}/ +(\S.*)$", README, re.M)
    assert [part for part in parts if part not in said[0].lower()] == []


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("option", [opt for parameter in all_commands()["export"].params for opt in parameter.opts])
def test_every_option_of_an_export_is_documented(option: str) -> None:
    assert option in ("batches", "--json") or f"`{option}" in BULK


def shown_commands() -> list[str]:
    """Every line of the documents' blocks that somebody would type, in one line each."""
    pages = [README, *(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))]
    blocks = (
        block.replace("\\\n", " ") for page in pages for block in re.findall(r"^```\n(.+?)^```", page, re.M | re.S)
    )
    return [line for block in blocks for line in block.splitlines() if line.startswith("nightshift ")]


@pytest.mark.parametrize("line", shown_commands())
def test_every_command_that_is_shown_has_the_options_that_it_is_shown_with(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    name = next(name for name in (" ".join(words[:2]), words[0]) if name in all_commands())
    known = {option for parameter in all_commands()[name].params for option in parameter.opts}
    assert [word for word in words if word.startswith("--") and word not in known] == []


def test_every_form_of_a_manifest_is_documented() -> None:
    said = BULK.split("## What a manifest may be")[1].split("\n## ")[0]
    assert [name for name in (*FORMATS, *COMPRESSIONS) if f"{name}`" not in said] == []
    options = {option for given in all_commands()["submit"].params for option in given.opts}
    assert set(re.findall(r"(?<!-)--[a-z][a-z-]+", said)) - {"--ultra"} <= options
