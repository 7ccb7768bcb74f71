"""Where a pair's files lie, with the hub's own client on a cache of its layout, offline."""

import shutil

import huggingface_hub.constants
import pytest

from schemas.pair import ModelPair, ModelSource, TextualInversion
from tests.unit.original_layout import base_tensors, write
from worker.loading.model_files import ModelFiles, locate_model, locate_textual_inversion, locate_vae
from worker.loading.vae import load_vae

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Puts folders into the client's cache, as the only revision of a hub id."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def keep(name, folder):
        home = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        (home / "refs").mkdir(parents=True)
        (home / "refs" / "main").write_text(COMMIT)
        return shutil.copytree(folder, home / "snapshots" / COMMIT)

    return keep


def test_a_vae_comes_from_the_hub_with_its_commit(hub, tiny_folder, tmp_path):
    snapshot = hub("someone/vae", tiny_folder / "base" / "vae")
    files = locate_vae(ModelSource(source="someone/vae"), ModelFiles(tiny_folder / "base"), tmp_path)
    assert (files.folder, files.revision) == (snapshot, COMMIT)


def test_the_vae_of_a_whole_model_on_the_hub_is_its_own_part(hub, tiny_folder, tmp_path):
    snapshot = hub("someone/model", tiny_folder / "base")
    base = ModelFiles(tiny_folder / "base")
    files = locate_vae(ModelSource(source="someone/model", revision=COMMIT), base, tmp_path)
    assert (files.folder, files.revision) == (snapshot / "vae", COMMIT)
    assert load_vae(files, base, dtype=None).config.scaling_factor == 0.13025


def test_the_configs_of_a_file_come_from_the_hub_and_its_revision_is_not_the_file_s(hub, tiny_folder, tmp_path):
    only_texts = shutil.copytree(
        tiny_folder / "base", tmp_path / "texts", ignore=shutil.ignore_patterns("*.safetensors")
    )
    snapshot = hub("stabilityai/stable-diffusion-xl-base-1.0", only_texts)
    path = write(base_tensors(tiny_folder / "base"), tmp_path / "base.safetensors")
    files = locate_model(ModelSource(source=str(path)), "base", tmp_path)
    assert (files.folder, files.file, files.revision) == (snapshot, path, None)


def test_a_textual_inversion_comes_from_the_hub_by_its_name(hub, tmp_path):
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "x.safetensors").touch()
    snapshot = hub("someone/x", tmp_path / "repo")
    inversion = TextualInversion(source="someone/x", token="<x>", weight_name="x.safetensors")
    assert locate_textual_inversion(inversion) == snapshot / "x.safetensors"


def test_a_local_folder_has_no_commit(tiny_folder, tmp_path):
    pair = ModelPair(name="mine", base=ModelSource(source=str(tiny_folder / "base")))
    assert locate_model(pair.base, "base", tmp_path).revision is None
