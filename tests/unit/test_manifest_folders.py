"""A folder as a manifest: the datasets that Hugging Face's own library writes and reads, and shards in general."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from producer.manifests.manifest import ReadOptions, Row, read_manifest
from producer.manifests.manifest_source import ManifestSource
from schemas.errors import ManifestError
from tests.unit.test_parquet_manifests import parquet_of

#: Writes shards as push_to_hub lays them out, of captions and pictures, and has an imagefolder read by the library.
WRITE = """
import sys
from pathlib import Path
from datasets import Dataset, Features, Image, Value, load_dataset
from PIL import Image as Picture
hub, folder = Path(sys.argv[1]), Path(sys.argv[2])
picture = str(folder / "0.png")
Picture.new("RGB", (8, 8)).save(picture)
rows = {"image": [picture] * 7, "text": [f"fox {n}" for n in range(7)], "width": [64] * 7}
features = Features({"image": Image(), "text": Value("string"), "width": Value("int32")})
dataset = Dataset.from_dict(rows, features=features)
(hub / "data").mkdir()
for n in range(3):
    dataset.shard(3, n).to_parquet(hub / "data" / f"train-{n:05}-of-00003.parquet")
loaded = load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=str(hub / "cache"))
print(*loaded["text"], sep="\\n")
"""


def read(folder: Path | str, content_format: str | None = None, **options: object) -> list[Row]:
    rows = list(read_manifest(ManifestSource.parse(str(folder), content_format), ReadOptions(**options)))  # type: ignore[arg-type]
    assert all(isinstance(row, Row) for row in rows), rows
    return [row for row in rows if isinstance(row, Row)]


def prompts(folder: Path | str, **options: object) -> list[str]:
    return [row.spec.prompt for row in read(folder, **options)]  # type: ignore[arg-type]


def refusal(folder: Path) -> str:
    with pytest.raises(ManifestError) as error:
        read(folder)
    assert str(error.value).isprintable()
    return str(error.value)


def filled(folder: Path, **files: bytes | str) -> Path:
    """With these; two underscores stand for a point."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


# What the library writes and reads


def test_what_the_datasets_library_writes_and_reads_is_a_manifest(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    hub, folder = tmp_path / "hub", tmp_path / "folder"
    hub.mkdir()
    filled(folder, metadata__jsonl='{"file_name": "0.png", "text": "a fox, sleeping", "width": 64}\n')
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", WRITE, str(hub), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert prompts(hub) == [f"fox {n}" for n in range(7)]
    assert {(row.spec.width, *row.meta) for row in read(hub)} == {(64,)}
    [row] = read(folder)
    assert done.stdout.split("\n")[0] == row.spec.prompt == "a fox, sleeping"
    assert (row.meta, row.spec.width) == ({"file_name": "0.png"}, 64)


# Metadata beside pictures


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.jsonl", b'{"file_name": "0.png", "text": "a fox"}\n'),
        ("metadata.csv", b"file_name,text\n0.png,a fox\n"),
        ("metadata.parquet", parquet_of({"file_name": ["0.png"], "text": ["a fox"]})),
    ],
)
def test_the_text_of_metadata_is_the_prompt(tmp_path: Path, name: str, content: bytes) -> None:
    filled(tmp_path, **{"0__png": b"x", "README__md": "# Foxes", name.replace(".", "__"): content})
    [row] = read(tmp_path)
    assert (row.spec.prompt, row.meta) == ("a fox", {"file_name": "0.png"})


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_a_prompt_of_its_own_or_a_map_goes_before_the_text(tmp_path: Path, name: str) -> None:
    row = {"Prompt": "a fox", "text": "a cat", "caption": "a dog"}
    content = json.dumps(row) if name.endswith("jsonl") else "\n".join([",".join(row), ",".join(row.values())])
    filled(tmp_path, **{name.replace(".", "__"): content})
    [own] = read(tmp_path)
    assert (own.spec.prompt, own.meta["text"]) == ("a fox", "a cat")
    filled(tmp_path, **{name.replace(".", "__"): content.replace("Prompt", "other")})
    [mapped] = read(tmp_path, columns={"caption": "prompt"})
    assert (mapped.spec.prompt, mapped.meta["text"]) == ("a dog", "a cat")


def test_a_file_that_is_named_itself_is_no_dataset(tmp_path: Path) -> None:
    filled(tmp_path, metadata__csv="text\na fox\n")
    assert "has no prompt column" in refusal(tmp_path / "metadata.csv")


# Shards


def test_shards_are_one_manifest_in_the_order_of_their_names(tmp_path: Path) -> None:
    filled(tmp_path, b__jsonl__gz=gzip.compress(b'{"prompt": "b"}\n{"prompt": "a"}\n'), a__jsonl='{"prompt": "a"}\n',
           _SUCCESS="", **{".a__jsonl__crc": "x"})  # fmt: skip
    rows = read(tmp_path)
    assert [(row.spec.prompt, row.line, row.repeat) for row in rows] == [("a", 1, 0), ("b", 1, 0), ("a", 2, 0)]
    assert rows[0].spec.seed != rows[2].spec.seed  # counted through all of them
    assert prompts(tmp_path, limit=2) == ["a", "b"]


def test_a_shard_behind_the_limit_is_not_opened(tmp_path: Path) -> None:
    filled(tmp_path, a__tsv="Prompt\na\n", b__tsv=b"PK\x03\x04")
    assert prompts(tmp_path, limit=1) == ["a"]
    assert "b.tsv is a spreadsheet" in refusal(tmp_path)


def test_a_bad_row_is_named_by_its_shard(tmp_path: Path) -> None:
    filled(tmp_path / "data", **{f"train-0000{n}-of-00002__parquet": parquet_of({"text": ["a"], "width": [64 + n]})
                                 for n in range(2)})  # fmt: skip
    [_, bad] = read_manifest(tmp_path, ReadOptions())
    assert str(bad).startswith(f'{tmp_path}/data/train-00001-of-00002.parquet:1: column "width": "65": ')


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    filled(tmp_path / "data", **{f"train-0000{n}-of-00003__parquet": b"" for n in (0, 2)})
    assert refusal(tmp_path) == f"{tmp_path}/data is not whole: there is no train-00001-of-00003.parquet"


def test_a_folder_in_a_store_is_a_manifest() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/foxes/data/a.tsv": b"Prompt\na\n", "/foxes/data/b.tsv": b"Prompt\nb\n"})
    try:
        assert prompts("memory://foxes") == ["a", "b"]
        assert prompts("memory://foxes/data/") == ["a", "b"]
        memory.pipe({"/foxes.csv/a.tsv": b"Prompt\nc\n"})
        assert prompts("memory://foxes.csv/") == ["c"]
    finally:
        memory.store.clear()


# What is refused


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "is a folder in which no manifest is: no metadata.jsonl, .csv or .parquet, and no file of rows"),
        ({"README__md": "x", "0__png": "x", "0__txt": "a fox"}, "is a folder in which no manifest is"),
        ({"a__csv": "x", "b__tsv": "x"}, "has a.csv, b.tsv: which is the manifest? name one of them"),
        ({"metadata__csv": "x", "metadata__jsonl": "x"}, "has metadata.csv, metadata.jsonl: which is the manifest?"),
        ({"metadata__csv": "x", "other__csv": "x"}, "has metadata.csv, other.csv: which is the manifest?"),
        ({"a__csv": "caption\nx\n"}, 'a.csv has no prompt column; it has "caption"; say which'),
    ],
)
def test_a_folder_that_is_no_manifest_is_refused(tmp_path: Path, files: dict[str, str], sentence: str) -> None:
    assert sentence in refusal(filled(tmp_path, **files))


def test_a_format_chooses_among_the_files_of_a_folder(tmp_path: Path) -> None:
    filled(tmp_path, a__csv="prompt\nfrom csv\n", b__tsv="prompt\nfrom tsv\n")
    assert [row.spec.prompt for row in read(tmp_path, "tsv")] == ["from tsv"]
