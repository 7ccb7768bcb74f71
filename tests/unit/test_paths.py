"""Files that strangers name: in manifests, specs, messages and image files. What is not offered is never opened."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from farm.envelope import pack_message, task_entry
from farm.recorded_images import recorded_in_file
from schemas.errors import InputError, MessageError, PairError, SpecError
from schemas.messages import PackMessage
from schemas.pair import ModelSource, TextualInversion
from schemas.settings import Settings
from schemas.spec import JobSpec
from tests.unit.test_inputs import lora_file, picture

#: ``{home}`` is the farm's home, ``{store}`` the URL of its image store. Each names an init image, and a LoRA
BAD = (
    "../secret.png",
    "../../etc/passwd",
    "a/../../secret.png",
    "..",
    ".",
    "",
    "/etc/passwd",
    "//etc/passwd",
    "{home}/secret.png",
    "{home}/inputs/../secret.png",
    "~/secret.png",
    "~root/.ssh/id_rsa",
    "$HOME/secret.png",
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "FILE:///etc/passwd",
    "file:{home}/secret.png",
    "{store}/../secret.png",
    "{store}/%2e%2e/secret.png",
    "{store}/inputs/../../secret.png",
    "{store}",
    "http://169.254.169.254/",
    "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
    "http://[fd00:ec2::254]/",
    "https://example.com/cat.png",
    "ftp://127.0.0.1/cat.png",
    "s3://bucket/cat.png",
    "memory://cat.png",
    "simplecache::http://127.0.0.1/cat.png",
    "redis://127.0.0.1:6379/0",
    "data:image/png;base64,iVBORw0KGgo=",
    r"\\host\share\cat.png",
    r"\\?\C:\cat.png",
    "//host/share/cat.png",
    r"C:\Windows\win.ini",
    r"..\secret.png",
    "%2e%2e/secret.png",
    "..%2fsecret.png",
    "%2Fetc%2Fpasswd",
    "..%c0%afsecret.png",
    "cat.png\0",
    "cat.png\0.txt",
    "cat.png\n",
    "new\nline.png",
    "cat.png\r\n",
    "\u202egnp.tac",
    "link",
    "link.png",
    "way/secret.png",
    "far/link.png",
    "loop",
    "pipe",
    "pipe.png",
    "folder",
    "folder.png",
    "socket.png",
    "zero.png",
    "/dev/zero",
    "/dev/stdin",
    "/proc/self/environ",
    "x" * 300,
    "x/" * 3000,
    "\ud800",
    "0" * 64,
    "A" * 64,
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good file in each folder; secrets beside them; and everything in them that is no file of theirs."""
    home = tmp_path_factory.mktemp("farm")
    for folder, suffix, content in (("inputs", ".png", picture()), ("loras", ".safetensors", lora_file())):
        place = home / folder
        (place / "folder").mkdir(parents=True)
        for name in ("cat", "new\nline", "cat.png\n"):
            (place / f"{name}{suffix}").write_bytes(content)
        (home / f"secret{suffix}").write_bytes(content)
        for name in ("link", f"link{suffix}", f"link.png{suffix}"):
            (place / name).symlink_to(home / f"secret{suffix}")
        (place / "way").symlink_to(home)
        (place / "far").mkdir()
        (place / "far" / f"link{suffix}").symlink_to("../../../../../../../../etc/passwd")
        (place / f"zero{suffix}").symlink_to("/dev/zero")
        (place / "loop").symlink_to("loop")
        for name in ("pipe", f"pipe{suffix}", f"pipe.png{suffix}"):
            os.mkfifo(place / name)  # opening one would wait for ever
        (place / f"folder.png{suffix}").mkdir()
    (home / "secret.png.safetensors").write_bytes(lora_file())
    (home / "inputs" / "folder.png").mkdir()
    return home


@pytest.fixture(scope="module")
def found(home: Path) -> dict[str, dict[str, Any]]:
    """field → name → what was said and what was opened, all from one process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")}
    names = {"init_image": [*map(filled(home), BAD), "cat.png"], "loras": [*map(filled(home), BAD), "cat"]}
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.offered_names", str(home)],
        input=json.dumps(names), capture_output=True, text=True, timeout=60, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    return {field: dict(zip(names[field], answers[field], strict=True)) for field in names}


def filled(home: Path):
    store = (home / "images").as_uri()
    return lambda name: name.replace("{home}", str(home)).replace("{store}", store)


@pytest.mark.parametrize("field", ["init_image", "loras"])
@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_a_name_that_is_not_offered_is_refused_and_nothing_is_opened(
    home: Path, found: dict[str, dict[str, Any]], field: str, name: str
) -> None:
    answer = found[field][filled(home)(name)]
    assert len(answer["reasons"]) == 1
    assert answer["events"] == []


@pytest.mark.parametrize(("field", "name"), [("init_image", "cat.png"), ("loras", "cat")])
def test_a_name_that_is_offered_is_opened(found: dict[str, dict[str, Any]], field: str, name: str) -> None:
    """So that the ones above would have been noted."""
    assert found[field][name]["reasons"] == []
    assert any(event.startswith("open ") for event in found[field][name]["events"])


def test_no_reason_tells_whether_a_file_outside_is_there(found: dict[str, dict[str, Any]], home: Path) -> None:
    outside = {answer["reasons"][0] for name, answer in found["init_image"].items() if ".." in Path(name).parts}
    assert {reason for reason in outside if "image store" not in reason} == {f"does not lie in {home}/inputs"}


#: where a spec names a file, it is by the hash of its content
_HASHES = [name for name in BAD if name != "0" * 64]


@pytest.mark.parametrize("name", _HASHES, ids=ascii)
def test_a_spec_names_its_picture_by_content_alone(name: str) -> None:
    with pytest.raises(SpecError, match="init_image"):
        JobSpec.parse({"prompt": "a cat", "seed": 1, "init_image": name, "strength": 0.5})


@pytest.mark.parametrize("name", _HASHES, ids=ascii)
def test_a_spec_names_its_loras_by_content_alone(name: str) -> None:
    with pytest.raises(SpecError, match="sha256"):
        JobSpec.parse({"prompt": "a cat", "seed": 1, "loras": [{"name": "a", "sha256": name}]})


@pytest.mark.parametrize("name", [name for name in BAD if not name.isalnum() and len(name) < 400], ids=ascii)
def test_what_a_lora_is_called_is_no_path(name: str) -> None:
    """It is shown, logged and written into files, and nothing is opened by it."""
    if name in ("cat.png", "link.png", "pipe.png", "folder.png", "socket.png", "zero.png"):
        assert JobSpec.parse({"prompt": "a cat", "seed": 1, "loras": [{"name": name, "sha256": "0" * 64}]})
        return
    with pytest.raises(SpecError, match=r"^loras\.0\.name"):
        JobSpec.parse({"prompt": "a cat", "seed": 1, "loras": [{"name": name, "sha256": "0" * 64}]})


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_a_message_names_its_pack_by_number_alone(name: str) -> None:
    with pytest.raises(MessageError, match="pack id"):
        pack_message(task_entry(PackMessage(name), "nightshift.tiny").encode())


@pytest.mark.parametrize("name", _HASHES, ids=ascii)
@pytest.mark.parametrize("field", ["init_image", "loras"])
def test_an_image_file_names_what_it_was_made_from_by_content_alone(field: str, name: str) -> None:
    inputs = {"init_image": {"init_image": name, "strength": 0.5}, "loras": {"loras": [{"name": "a", "sha256": name}]}}
    record = {
        "nightshift": 1,
        "spec": {"prompt": "a cat", **inputs[field]},
        "provenance": {},
        "environment": {},
        "meta": {},
    }
    with pytest.raises(InputError, match=field):
        recorded_in_file("cat.png", record)


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_an_image_file_names_its_pair_among_the_known_ones_alone(name: str) -> None:
    if name:
        with pytest.raises(PairError, match="unknown pair"):
            Settings().model_pair(name)


@pytest.mark.parametrize(
    "source",
    [
        "../models/base",
        "/models/../etc",
        "/models/base\n",
        "/models/base\0",
        "http://169.254.169.254/",
        "https://huggingface.co/someone/base",
        "file:///models/base",
        "s3://bucket/base",
        r"\\host\share",
        "~/models/base",
        "someone/base\n",
        "someone/../base",
        "a/b/c/d",
        "",
    ],
    ids=ascii,
)
def test_a_model_is_a_hub_id_or_an_absolute_path(source: str) -> None:
    with pytest.raises(ValidationError):
        ModelSource(source=source)
    with pytest.raises(ValidationError):
        ModelSource(source="/models/base.safetensors", config=source)


@pytest.mark.parametrize("source", ["someone/base", "base", "synthetic:tiny", "/models/base", "/models/b.safetensors"])
def test_sources_that_are_offered_are_taken(source: str) -> None:
    assert ModelSource(source=source).source == source


@pytest.mark.parametrize(
    "source", ["/m/base.ckpt", "/m/base.CKPT", "/m/base.pt", "/m/Base.Bin", "/m/base.pkl", "a/b.pth"]
)
def test_a_pickle_is_refused_by_its_name(source: str) -> None:
    with pytest.raises(ValidationError, match="pickle"):
        ModelSource(source=source)


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/x.safetensors", "a/../x.safetensors", "x.safetensors\n", "x.bin"]
)
def test_a_file_of_a_hub_id_lies_in_it(name: str) -> None:
    with pytest.raises(ValidationError):
        TextualInversion(source="someone/x", token="<x>", weight_name=name)
