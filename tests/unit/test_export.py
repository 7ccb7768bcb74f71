"""What `nightshift export` writes, read by the libraries that train with it."""

import csv
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.errors import InputError, NotUniformError, SettingsError, StorageError
from schemas.spec import JobSpec
from tests.integration.ledger_farm import ENVIRONMENT
from tests.integration.stored_farm import image_path
from tests.unit.export_farm import ExportFarm, tree

FORMATS = ("imagefolder", "webdataset", "parquet", "csv")
MIXED = [
    {"prompt": f"a cat, {n // 2} \r\n on a mat", "output": {"format": ("png", "webp", "jpeg")[n % 3]}}
    for n in range(12)
]
#: neither of them has a value in the first rows
LATE = [{}, {}, {}, {"negative_prompt": "blurry", "clip_skip": 2}]


@pytest.fixture
def farm(tmp_path: Path) -> ExportFarm:
    return ExportFarm(tmp_path / "home")


@pytest.fixture
def load_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Of the real library, offline."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()
    return lambda *args, **kwargs: datasets.load_dataset(*args, cache_dir=str(tmp_path / "cache"), **kwargs)


def with_late_columns() -> list[dict[str, Any]]:
    return [{"prompt": f"a fox {n}", **fields} for n, fields in enumerate(LATE)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("by_name", [True, False])
def test_hugging_face_loads_the_imagefolder(farm: ExportFarm, load_dataset: Any, tmp_path: Path, by_name: bool) -> None:
    farm.batch(MIXED, meta=[{"Art style": "oil"}])
    farm.export(1, "--format", "imagefolder", "--to", tmp_path / "set", "--shard-size", 5)
    folder = str(tmp_path / "set")
    loaded = load_dataset("imagefolder", data_dir=folder) if by_name else load_dataset(folder)
    assert list(loaded) == ["train"]
    assert loaded["train"]["text"] == [f"a cat, {n // 2} on a mat" for n in range(12)]
    assert loaded["train"]["seed"] == [str(n + 1) for n in range(12)]
    assert loaded["train"]["meta.Art style"] == ["oil", *[""] * 11]
    assert [image.size for image in loaded["train"]["image"]] == [(64, 64)] * 12


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file_format", ["imagefolder", "parquet", "csv"])
def test_a_column_that_begins_empty_is_loaded_all_the_same(
    farm: ExportFarm, load_dataset: Any, tmp_path: Path, file_format: str
) -> None:
    farm.batch(with_late_columns())
    farm.export(1, "--format", file_format, "--to", tmp_path / "set", "--split", "train=0.5,test=0.5")
    loaded = load_dataset(str(tmp_path / "set"))
    plain = {name: split.select_columns(["text", "negative_prompt", "clip_skip"]) for name, split in loaded.items()}
    rows = {row["text"]: row for split in plain.values() for row in split}
    assert set(rows) == {f"a fox {n}" for n in range(4)}
    assert rows["a fox 3"]["negative_prompt"] == "blurry"
    assert int(float(rows["a fox 3"]["clip_skip"])) == 2
    assert not rows["a fox 0"]["negative_prompt"]


@pytest.mark.filterwarnings("ignore")
def test_hugging_face_loads_parquet_with_its_images(farm: ExportFarm, load_dataset: Any, tmp_path: Path) -> None:
    farm.batch(MIXED)
    farm.export(1, "--format", "parquet", "--to", tmp_path / "set", "--shard-size", 5)
    names = sorted(path.name for path in (tmp_path / "set" / "data").iterdir())
    assert names == [f"train-0000{n}-of-00003.parquet" for n in range(3)]
    loaded = load_dataset(str(tmp_path / "set"))["train"]
    assert [image.format for image in loaded["image"]] == ["PNG", "WEBP", "JPEG"] * 4
    assert loaded["num_inference_steps"] == [40] * 12


@pytest.mark.filterwarnings("ignore")
def test_webdataset_loads_the_shards(farm: ExportFarm, tmp_path: Path) -> None:
    import webdataset

    farm.batch(MIXED, meta=[{"Art style": "oil"}])
    farm.export(1, "--format", "webdataset", "--to", tmp_path / "set", "--shard-size", 5)
    shards = f"{tmp_path / 'set'}/{{00000..00002}}.tar"
    samples = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).decode("pil"))
    assert [sample["__key__"] for sample in samples] == [f"{n // 5:05}{n % 5}" for n in range(12)]
    assert [sample["txt"] for sample in samples] == [f"a cat, {n // 2} on a mat" for n in range(12)]
    suffixes = ("png", "webp", "jpg")
    assert {sample[suffixes[n % 3]].size for n, sample in enumerate(samples)} == {(64, 64)}
    first = samples[0]["json"]
    assert first["spec"] == JobSpec.parse({**MIXED[0], "seed": 1, "width": 64, "height": 64}).model_dump(mode="json")
    assert first["environment"] == ENVIRONMENT.model_dump(mode="json")
    assert first["meta"] == {"Art style": "oil"}
    assert first["caption"] == "a cat, 0 on a mat"


@pytest.mark.filterwarnings("ignore")
def test_the_loop_of_the_docs_reads_every_sample(
    farm: ExportFarm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "bulk.md").read_text()
    loop = page.split("```python\n")[1].split("```")[0]
    farm.batch([{"prompt": f"a fox {n}"} for n in range(12)])
    farm.export(1, "--format", "webdataset", "--to", tmp_path / "set", "--split", "train=0.9,test=0.1")
    with tarfile.open(tmp_path / "set" / "train" / "00000.tar") as tar:
        captions = [tar.extractfile(name).read().decode() for name in tar.getnames() if name.endswith(".txt")]
    exec(loop.replace("/data/tonight", str(tmp_path / "set")), {})
    read = [line for line in capsys.readouterr().out.splitlines() if line.startswith("(")]
    assert sorted(read) == sorted(f"(64, 64) {caption}" for caption in captions)


def test_a_shard_has_its_samples_together_and_its_table_and_statistics_beside_it(
    farm: ExportFarm, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    farm.batch(MIXED)
    farm.export(1, "--format", "webdataset", "--to", tmp_path / "set")
    with tarfile.open(tmp_path / "set" / "00000.tar") as tar:
        members = tar.getmembers()
        assert {(member.mtime, member.uid, member.gid, member.mode) for member in members} == {(0, 0, 0, 0o644)}
        suffixes = ("png", "webp", "jpg")
        assert [member.name for member in members] == [
            f"{n:09}.{suffix}" for n in range(12) for suffix in (suffixes[n % 3], "txt", "json")
        ]
        stored = image_path(farm.database, 5).read_bytes()
        assert tar.extractfile("000000004.webp").read() == stored  # type: ignore[union-attr]
    rows = pq.read_table(tmp_path / "set" / "00000.parquet").to_pylist()
    assert [row["key"] for row in rows] == [f"{n:09}" for n in range(12)]
    assert {row["status"] for row in rows} == {"success"}
    assert json.loads((tmp_path / "set" / "00000_stats.json").read_text())["successes"] == 12


def test_images_are_linked_and_take_no_second_disk(farm: ExportFarm, tmp_path: Path) -> None:
    farm.batch(MIXED)
    farm.export(1, "--format", "imagefolder", "--to", tmp_path / "linked")
    farm.export(1, "--format", "imagefolder", "--to", tmp_path / "copied", "--copy")
    stored, name = image_path(farm.database, 1), "train/00000/000000000.png"
    assert (tmp_path / "linked" / name).samefile(stored)
    assert not (tmp_path / "copied" / name).samefile(stored)
    assert tree(tmp_path / "linked" / "train") == tree(tmp_path / "copied" / "train")


def test_a_symbolic_link_in_the_store_is_copied_and_not_linked_to(farm: ExportFarm, tmp_path: Path) -> None:
    farm.batch([{"prompt": "a cat"}])
    stored, moved = image_path(farm.database, 1), tmp_path / "elsewhere.png"
    stored.rename(moved)
    stored.symlink_to(moved)
    farm.export(1, "--format", "imagefolder", "--to", tmp_path / "set")
    placed = tmp_path / "set" / "train" / "00000" / "000000000.png"
    assert not placed.is_symlink()
    assert not placed.samefile(moved)
    assert placed.read_bytes() == moved.read_bytes()


def test_a_column_is_a_csv_cell_and_the_image_a_uri(farm: ExportFarm, tmp_path: Path) -> None:
    farm.batch([{"prompt": 'say "hi",\nfox', "seed": 2**64 - 1}])
    farm.export(1, "--format", "csv", "--to", tmp_path / "set")
    with (tmp_path / "set" / "data" / "train-00000-of-00001.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["text"] == 'say "hi", fox'
    assert row["prompt"] == 'say "hi",\nfox'
    assert row["seed"] == str(2**64 - 1)
    assert row["uri"] == image_path(farm.database, 1).as_uri()


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_same_ledger_gives_the_same_bytes(farm: ExportFarm, tmp_path: Path, file_format: str) -> None:
    farm.batch(MIXED)
    for name in ("one", "two"):
        farm.export(1, "--format", file_format, "--to", tmp_path / name, "--shard-size", 5)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


@pytest.mark.parametrize("file_format", FORMATS)
def test_any_fsspec_url_gets_the_same_files(farm: ExportFarm, tmp_path: Path, file_format: str) -> None:
    import fsspec

    farm.batch(MIXED)
    url = f"memory://{tmp_path.name}/{file_format}"
    arguments = ("--format", file_format, "--shard-size", 5, "--split", "train=0.5,test=0.5")
    farm.export(1, "--to", url, *arguments)
    again = farm.export(1, "--to", url, *arguments)
    assert again["num_written"] == (12 if file_format == "imagefolder" else 0)
    farm.export(1, "--to", tmp_path / "set", *arguments)
    files = fsspec.filesystem("memory")
    remote = {name.partition(f"/{file_format}/")[2]: files.cat_file(name) for name in files.find(url)}
    assert {name: len(content) for name, content in remote.items()} == {
        name: (tmp_path / "set" / name).stat().st_size for name in tree(tmp_path / "set")
    }
    files.rm(url, recursive=True)


def test_several_batches_follow_each_other_as_they_are_named(farm: ExportFarm, tmp_path: Path) -> None:
    for animal in ("cat", "fox"):
        farm.batch([{"prompt": f"{animal} {n}"} for n in range(2)])
    farm.export(2, 1, "--format", "imagefolder", "--to", tmp_path / "set")
    assert texts(tmp_path / "set") == ["fox 0", "fox 1", "cat 0", "cat 1"]
    with pytest.raises(InputError, match="batch 2 is named twice"):
        farm.export(2, 1, 2, "--format", "csv", "--to", tmp_path / "other")


def texts(folder: Path, split: str = "train") -> list[str]:
    lines = (folder / split / "metadata.jsonl").read_text().splitlines()
    return [json.loads(line)["text"] for line in lines]


def test_a_batch_that_may_still_change_is_exported_only_as_a_part(farm: ExportFarm, tmp_path: Path) -> None:
    farm.batch([{"prompt": f"cat {n}"} for n in range(5)], num_done=3)
    with pytest.raises(InputError, match="batch 1 is not complete: 2 of 5 images are missing; --partial"):
        farm.export(1, "--format", "csv", "--to", tmp_path / "set")
    assert not (tmp_path / "set").exists()
    assert farm.export(1, "--format", "csv", "--to", tmp_path / "set", "--partial")["num_images"] == 3


def test_another_export_is_not_mixed_into_a_folder(farm: ExportFarm, tmp_path: Path) -> None:
    farm.batch(MIXED)
    farm.export(1, "--format", "webdataset", "--to", tmp_path / "set")
    before = tree(tmp_path / "set")
    with pytest.raises(InputError, match=r"holds another export: its --shard-size is 10000 and not 5; name another"):
        farm.export(1, "--format", "webdataset", "--to", tmp_path / "set", "--shard-size", 5)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(InputError, match=r"holds notes.txt and no export"):
        farm.export(1, "--format", "webdataset", "--to", tmp_path / "mine")
    farm.batch([{"prompt": "cat"}])
    with pytest.raises(InputError, match="its --batches is"):
        farm.export(1, 2, "--format", "webdataset", "--to", tmp_path / "set")
    assert tree(tmp_path / "set") == before
    held = tmp_path / "set" / ".nightshift-export.json"
    held.write_text(held.read_text().replace('"nightshift_export": 2', '"nightshift_export": 1'))
    with pytest.raises(InputError, match="its columns are those of another Nightshift"):
        farm.export(1, "--format", "webdataset", "--to", tmp_path / "set")


def test_a_split_that_got_nothing_is_said_to_be_empty(farm: ExportFarm, tmp_path: Path) -> None:
    farm.batch([{"prompt": "a cat"}])
    answer = farm.export(1, "--format", "csv", "--to", tmp_path / "set", "--split", "train=0.5,test=0.5")
    assert sorted(answer["splits"].values()) == [0, 1]
    assert len(list((tmp_path / "set" / "data").iterdir())) == 1


def test_a_folder_that_cannot_be_had_is_said_before_the_images_are_looked_through(
    farm: ExportFarm, tmp_path: Path
) -> None:
    farm.batch([{"prompt": "a cat"}])
    farm.export(1, "--format", "csv", "--to", tmp_path / "set")
    without_captions = (1, "--format", "csv", "--caption", "negative_prompt", "--to")
    with pytest.raises(InputError, match="holds another export: its --caption is"):
        farm.export(*without_captions, tmp_path / "set")
    with pytest.raises(InputError, match="has no caption"):
        farm.export(*without_captions, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_place_of_no_known_kind_is_named_as_the_option_that_it_is(farm: ExportFarm) -> None:
    farm.batch([{"prompt": "cat"}])
    with pytest.raises(SettingsError, match=r"^--to nope://… cannot be used"):
        farm.export(1, "--format", "csv", "--to", "nope://x")


def test_an_export_is_no_guest_of_the_image_store(farm: ExportFarm) -> None:
    farm.batch(MIXED)
    with pytest.raises(InputError, match="lies in the image store"):
        farm.export(1, "--format", "imagefolder", "--to", farm.home / "images" / "set")


def change(path: Path, content: bytes) -> None:
    """As another file: a link to the old one keeps what it has."""
    path.unlink()
    path.write_bytes(content)


def test_a_broken_file_ends_the_export_with_the_jobs_name(farm: ExportFarm, tmp_path: Path) -> None:
    farm.batch(MIXED)
    whole = image_path(farm.database, 3).read_bytes()
    change(image_path(farm.database, 3), whole[:-1] + b"x")
    with pytest.raises(StorageError, match=r"^job 1/3: file:.* has other bytes than were recorded; .*--skip-broken"):
        farm.export(1, "--format", "webdataset", "--to", tmp_path / "tar")
    with pytest.raises(StorageError, match=r"^job 1/3: "):
        farm.export(1, "--format", "imagefolder", "--to", tmp_path / "folder", "--verify")
    change(image_path(farm.database, 3), whole[:-1])
    with pytest.raises(StorageError, match=r"^job 1/3: .* has not the [\d,]+ bytes that were recorded"):
        farm.export(1, "--format", "imagefolder", "--to", tmp_path / "size")
    image_path(farm.database, 3).unlink()
    with pytest.raises(StorageError, match=r"^job 1/3: .* is missing"):
        farm.export(1, "--format", "parquet", "--to", tmp_path / "parquet")
    assert not list((tmp_path / "parquet").rglob("*.parquet"))


def test_broken_files_are_left_out_where_that_is_asked_for_and_listed(farm: ExportFarm, tmp_path: Path) -> None:
    farm.batch(MIXED)
    image_path(farm.database, 3).unlink()
    answer = farm.export(1, "--format", "webdataset", "--to", tmp_path / "set", "--skip-broken")
    assert (answer["num_images"], answer["left_out"]) == (11, {"broken": 1})
    listed = json.loads((tmp_path / "set" / "left_out.jsonl").read_text())
    assert listed == {"job": "1/3", "reason": "broken", "code": "missing"}
    assert "broken (1)" in (tmp_path / "set" / "README.md").read_text()


def test_a_store_that_is_not_mounted_is_not_taken_for_broken_files(farm: ExportFarm, tmp_path: Path) -> None:
    farm.batch(MIXED)
    (farm.home / "images").rename(farm.home / "elsewhere")
    with pytest.raises(StorageError, match="is its disk mounted"):
        farm.export(1, "--format", "csv", "--to", tmp_path / "set", "--skip-broken")


def test_images_that_were_made_otherwise_are_refused_or_reported(
    farm: ExportFarm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    farm.batch([{"prompt": f"cat {n}"} for n in range(3)])
    farm.batch([{"prompt": "fox"}], environment=ENVIRONMENT.model_copy(update={"device": "H200"}))
    command = (1, 2, "--format", "csv", "--to", tmp_path / "set")
    with pytest.raises(NotUniformError, match=r"not made alike: device: cpu \(3\), H200 \(1\); --where environment"):
        farm.export(*command, "--uniform", "refuse")
    assert not (tmp_path / "set").exists()
    assert NotUniformError.exit_code == 1
    farm.export(*command, "--uniform", "report")
    assert "- device: cpu (3), H200 (1)" in (tmp_path / "set" / "README.md").read_text()
    alike = (*command[:-1], tmp_path / "alike", "--where", f"environment={ENVIRONMENT.digest}", "--uniform", "refuse")
    assert farm.export(*alike)["num_images"] == 3


def test_the_card_is_one_that_the_hub_reads(farm: ExportFarm, tmp_path: Path) -> None:
    from huggingface_hub import DatasetCard

    sdxl = ENVIRONMENT.model_copy(update={"license": "CreativeML Open RAIL++-M"})
    farm.batch([{"prompt": f"cat {n}"} for n in range(20)], environment=sdxl)
    farm.export(1, "--format", "parquet", "--to", tmp_path / "set", "--split", "train=0.7,test=0.3")
    card = DatasetCard.load(tmp_path / "set" / "README.md")
    assert card.data.license == "openrail++"
    assert card.data.size_categories == ["n<1K"]
    assert "synthetic" in card.data.tags
    (config,) = card.data.to_dict()["configs"]
    assert [(file["split"], file["path"]) for file in config["data_files"]] == [
        ("train", "data/train-*.parquet"), ("test", "data/test-*.parquet"),
    ]  # fmt: skip
    assert "- steps: 40 (20)" in card.text
    assert sdxl.digest in card.text


def test_a_licence_is_repeated_and_never_guessed(farm: ExportFarm, tmp_path: Path) -> None:
    farm.batch([{"prompt": "cat"}], environment=ENVIRONMENT.model_copy(update={"license": 'my "own"'}))
    for options, expected in (((), ("other", 'my "own"')), (("--licence", "cc0-1.0"), ("cc0-1.0", None))):
        folder = tmp_path / expected[0]
        farm.export(1, "--format", "csv", "--to", folder, *options)
        front = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
        assert (front["license"], front.get("license_name")) == expected
    with pytest.raises(InputError, match="--licence '' is no licence"):
        farm.export(1, "--format", "csv", "--to", tmp_path / "x", "--licence", "")


def test_options_of_one_format_are_refused_for_another(farm: ExportFarm, tmp_path: Path) -> None:
    farm.batch(MIXED)
    with pytest.raises(InputError, match="--copy goes with --format imagefolder"):
        farm.export(1, "--format", "csv", "--to", tmp_path / "set", "--copy")
    with pytest.raises(InputError, match="it goes with --without duplicates"):
        farm.export(1, "--format", "csv", "--to", tmp_path / "set", "--max-distance", 2)
    with pytest.raises(InputError, match="--without 'black, grey': 'grey' is none of black, blank, duplicates"):
        farm.export(1, "--format", "csv", "--to", tmp_path / "set", "--without", "black, grey")
    with pytest.raises(InputError, match="no batch '7'"):
        farm.export(7, "--format", "csv", "--to", tmp_path / "set")
    with pytest.raises(InputError, match="there is no image to export"):
        farm.export(1, "--format", "csv", "--to", tmp_path / "set", "--where", "width>64")


def test_two_exports_into_one_folder_do_not_meet(farm: ExportFarm, tmp_path: Path) -> None:
    from producer.exports.targets import target

    farm.batch(MIXED)
    with target(str(tmp_path / "set")).held(), pytest.raises(InputError, match=r"another export into .* is under way"):
        farm.export(1, "--format", "csv", "--to", tmp_path / "set")


def test_a_disk_that_refuses_is_one_sentence(farm: ExportFarm, tmp_path: Path) -> None:
    farm.batch(MIXED)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot export to .*: (Not a directory|File exists)"):
        farm.export(1, "--format", "csv", "--to", tmp_path / "file")
