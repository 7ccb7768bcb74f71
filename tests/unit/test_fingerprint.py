"""The fingerprint of a pair: changed by whatever changes pixels, and by nothing else."""

import fcntl
import hashlib
import json
import os
import shutil
from pathlib import Path
from threading import Thread

import pytest

from farm.file_digests import file_sha256
from schemas.pair import BUILT_IN_PAIRS
from worker.loading.fingerprint import pair_fingerprint, weight_files
from worker.loading.model_files import ModelFiles, PairFiles

TINY = BUILT_IN_PAIRS["tiny"]


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "elsewhere")


def fingerprint(folder, cache, pair=TINY, dtype="float32", **others):
    refiner = ModelFiles(folder / "refiner") if pair.refiner else None
    return pair_fingerprint(pair, dtype, PairFiles(ModelFiles(folder / "base"), refiner, **others), cache)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def edit_json(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields, indent=4))


def test_place_and_times_of_the_files_do_not_matter(folder, tiny_folder, tmp_path):
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    assert fingerprint(folder, tmp_path / "a") == fingerprint(tiny_folder, tmp_path / "b")


@pytest.mark.parametrize("part", ["base/unet", "base/vae", "base/text_encoder", "base/text_encoder_2", "refiner/unet"])
def test_every_weight_file_matters(folder, tmp_path, part):
    before = fingerprint(folder, tmp_path)
    flip_a_bit(next((folder / part).glob("*.safetensors")))
    assert fingerprint(folder, tmp_path).sha256 != before.sha256


@pytest.mark.parametrize("option", [{"vae_tiling": True}, {"vae_slicing": False}])
def test_how_the_vae_decodes_matters(folder, tmp_path, option):
    assert fingerprint(folder, tmp_path, TINY.model_copy(update=option)).sha256 != fingerprint(folder, tmp_path).sha256


def test_where_the_networks_are_between_their_turns_does_not_matter(folder, tmp_path):
    before = fingerprint(folder, tmp_path)
    assert fingerprint(folder, tmp_path, TINY.model_copy(update={"offload": "model"})) == before


def test_another_vae_matters_and_its_own_then_does_not(folder, tiny_folder, tmp_path):
    before = fingerprint(folder, tmp_path)
    same = fingerprint(folder, tmp_path, vae=ModelFiles(tiny_folder / "base" / "vae"))
    assert same.sha256 == before.sha256
    flip_a_bit(next((folder / "base" / "vae").glob("*.safetensors")))
    assert fingerprint(folder, tmp_path, vae=ModelFiles(tiny_folder / "base" / "vae")) == same
    other = fingerprint(folder, tmp_path, vae=ModelFiles(folder / "base" / "vae"))
    assert other.sha256 != same.sha256
    assert other.vae_hash != same.vae_hash


@pytest.mark.parametrize("part", ["vae", "text_encoder_2"])
def test_what_the_refiner_is_given_by_the_base_does_not_matter(folder, tmp_path, part):
    before = fingerprint(folder, tmp_path)
    shutil.rmtree(folder / "refiner" / part)
    assert fingerprint(folder, tmp_path) == before


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("base/scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}),
        ("base/vae/config.json", {"scaling_factor": 0.18215}),
        ("base/model_index.json", {"force_zeros_for_empty_prompt": False}),
        ("refiner/model_index.json", {"requires_aesthetics_score": False}),
        ("base/tokenizer_2/tokenizer_config.json", {"pad_token": "?"}),
    ],
)
def test_configs_that_change_pixels_matter(folder, tmp_path, name, fields):
    before = fingerprint(folder, tmp_path)
    edit_json(folder / name, **fields)
    after = fingerprint(folder, tmp_path)
    assert after.sha256 != before.sha256
    assert (after.base_hash, after.refiner_hash) == (before.base_hash, before.refiner_hash)


def test_who_wrote_a_config_and_how_does_not_matter(folder, tmp_path):
    before = fingerprint(folder, tmp_path)
    edit_json(folder / "base/unet/config.json", _diffusers_version="0.99", _name_or_path="/somewhere")
    edit_json(folder / "base/text_encoder/config.json", transformers_version="9.9")
    assert fingerprint(folder, tmp_path) == before


def test_options_that_change_pixels_matter_and_names_do_not(folder, tmp_path):
    before = fingerprint(folder, tmp_path)
    assert fingerprint(folder, tmp_path, dtype="float16").sha256 != before.sha256
    assert fingerprint(folder, tmp_path, TINY.model_copy(update={"watermark": False})).sha256 != before.sha256
    alone = fingerprint(folder, tmp_path, TINY.model_copy(update={"refiner": None}))
    assert alone.sha256 != before.sha256
    assert (alone.base_hash, alone.refiner_hash) == (before.base_hash, None)
    assert fingerprint(folder, tmp_path, TINY.model_copy(update={"name": "other", "license": "MIT"})) == before


def test_the_short_hashes_are_those_of_the_unet_files(folder, tmp_path):
    found = fingerprint(folder, tmp_path)
    for part, short in (("base", found.base_hash), ("refiner", found.refiner_hash)):
        content = (folder / part / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
        assert short == hashlib.sha256(content).hexdigest()[:10]


def test_weights_in_shards_have_a_short_hash_too(folder, tmp_path):
    unet = folder / "base" / "unet"
    whole = unet / "diffusion_pytorch_model.safetensors"
    whole.rename(unet / "diffusion_pytorch_model-00001-of-00002.safetensors")
    (unet / "diffusion_pytorch_model-00002-of-00002.safetensors").write_bytes(b"second shard")
    first = fingerprint(folder, tmp_path).base_hash
    flip_a_bit(unet / "diffusion_pytorch_model-00002-of-00002.safetensors")
    assert fingerprint(folder, tmp_path).base_hash != first


def test_only_files_of_the_variant_count_where_there_are_any(tmp_path):
    for name in ("model.safetensors", "model.fp16.safetensors", "model.safetensors.index.json", "model.bin"):
        (tmp_path / name).touch()
    assert [path.name for path in weight_files(tmp_path, "fp16")] == ["model.fp16.safetensors"]
    assert [path.name for path in weight_files(tmp_path, None)] == ["model.safetensors"]
    assert [path.name for path in weight_files(tmp_path, "bf16")] == ["model.safetensors"]


def test_a_file_is_read_once_and_again_after_it_changed(tmp_path):
    path, cache = tmp_path / "weights", tmp_path / "cache"
    path.write_bytes(b"one")
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    assert file_sha256(path, cache) == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"two")
    os.utime(path, ns=times)  # nobody does this; it shows that the file was not read again
    assert file_sha256(path, cache) == hashlib.sha256(b"one").hexdigest()
    os.utime(path, ns=(times[0], times[1] + 1))
    assert file_sha256(path, cache) == hashlib.sha256(b"two").hexdigest()
    path.write_bytes(b"three")
    os.utime(path, ns=(times[0], times[1] + 1))
    assert file_sha256(path, cache) == hashlib.sha256(b"three").hexdigest()


def test_who_comes_while_another_process_reads_the_file_waits_for_its_digest(tmp_path):
    path, cache, digests = tmp_path / "weights", tmp_path / "cache", []
    path.write_bytes(b"one")
    file_sha256(path, cache)
    (remembered,) = (file for file in (cache / "file-digests").iterdir() if file.suffix != ".lock")
    remembered.unlink()
    waits = Thread(target=lambda: digests.append(file_sha256(path, cache)))
    with remembered.with_name(f"{remembered.name}.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waits.start()
        waits.join(0.1)
        assert waits.is_alive()
        remembered.write_text("what the other process found")
    waits.join(30)
    assert digests == ["what the other process found"]


def test_two_files_of_one_size_and_time_are_two_files(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (1, 1))
    assert file_sha256(tmp_path / "one", tmp_path) != file_sha256(tmp_path / "two", tmp_path)


def test_a_cache_that_is_emptied_meanwhile_is_filled_again(tmp_path, monkeypatch):
    path, cache = tmp_path / "weights", tmp_path / "cache"
    path.write_bytes(b"one")
    file_sha256(path, cache)
    exists, read_text = Path.exists, Path.read_text

    def emptied_after(look):
        def looked(*arguments, **options):
            try:
                return look(*arguments, **options)
            finally:
                shutil.rmtree(cache, ignore_errors=True)

        return looked

    monkeypatch.setattr(Path, "exists", emptied_after(exists))
    monkeypatch.setattr(Path, "read_text", emptied_after(read_text))
    assert [file_sha256(path, cache) for _ in range(3)] == [hashlib.sha256(b"one").hexdigest()] * 3
