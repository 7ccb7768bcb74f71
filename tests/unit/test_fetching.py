"""What a worker fetches for a forward pass, from a folder and from another store."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from farm.image_store import ImageStore, local_path
from farm.inputs import InputStore
from schemas.errors import InputFileError, StorageError
from schemas.spec import JobSpec
from worker.passes.inputs import NO_INPUTS, InputFetcher, PassInputs, joined

LORA = b"the bytes of a LoRA"
LORA_SHA256 = hashlib.sha256(LORA).hexdigest()


def picture(orientation: int = 1) -> tuple[bytes, str]:
    pixels = np.random.default_rng(7).integers(0, 256, (64, 128, 3), np.uint8)
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(stream, "PNG", exif=exif)
    return stream.getvalue(), hashlib.sha256(stream.getvalue()).hexdigest()


def spec(**fields: object) -> JobSpec:
    size = {"width": 128, "height": 64} if "init_image" in fields else {}
    strength = {"strength": 0.5} if "init_image" in fields else {}
    return JobSpec.parse({"prompt": "a cat", "seed": 1, **size, **strength, **fields})


def with_lora(sha256: str = LORA_SHA256) -> JobSpec:
    return spec(loras=[{"name": "film-grain", "sha256": sha256}])


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> InputStore:
    name = request.node.name.replace("[", "-").replace("]", "")
    return InputStore(str(tmp_path / "images") if request.param == "folder" else f"memory://fetching/{name}")


@pytest.fixture
def fetcher(store: InputStore, tmp_path: Path) -> InputFetcher:
    return InputFetcher(store, tmp_path / "cache")


def put_lora(store: InputStore, folder: Path) -> None:
    (folder / "lora").write_bytes(LORA)
    store.put_lora(folder / "lora", LORA_SHA256)


def test_a_spec_without_inputs_asks_no_store(tmp_path: Path) -> None:
    assert InputFetcher(InputStore("file:///proc/none"), tmp_path).fetch(spec()) is NO_INPUTS


def test_an_init_image_comes_as_upright_rgb(store: InputStore, fetcher: InputFetcher) -> None:
    from diffusers.utils import load_image

    content, sha256 = picture(orientation=3)
    store.put_image(content, sha256, "png")
    [pixels] = fetcher.fetch(spec(init_image=sha256)).init_images
    assert (pixels.shape, pixels.dtype) == ((64, 128, 3), np.uint8)
    assert np.array_equal(pixels, np.asarray(load_image(Image.open(io.BytesIO(content)))))
    assert not pixels.flags.writeable


def test_a_rendered_image_is_an_init_image_too(store: InputStore, fetcher: InputFetcher) -> None:
    content, sha256 = picture()
    ImageStore(store.url).put(content, sha256, "png")
    assert len(fetcher.fetch(spec(init_image=sha256)).init_images) == 1


def test_a_lora_comes_as_a_local_file(store: InputStore, fetcher: InputFetcher, tmp_path: Path) -> None:
    put_lora(store, tmp_path)
    [path] = fetcher.fetch(with_lora()).loras.values()
    assert path.read_bytes() == LORA
    in_store = local_path(f"{store.url}/inputs/{LORA_SHA256[:2]}/{LORA_SHA256[2:4]}/{LORA_SHA256}.safetensors")
    assert path == (in_store or tmp_path / "cache" / "inputs" / f"{LORA_SHA256}.safetensors")


def test_a_lora_is_downloaded_once_for_all_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = InputStore("memory://fetching/once")
    put_lora(store, tmp_path)
    InputFetcher(store, tmp_path / "cache").fetch(with_lora())
    monkeypatch.setattr(InputStore, "download", lambda *_: pytest.fail("it was downloaded again"))
    InputFetcher(store, tmp_path / "cache").fetch(with_lora())


@pytest.mark.parametrize("one", [spec(init_image="0" * 64), with_lora("0" * 64)], ids=["image", "lora"])
def test_what_is_missing_fails_the_job_for_good(fetcher: InputFetcher, one: JobSpec) -> None:
    with pytest.raises(InputFileError, match="is not in the image store") as error:
        fetcher.fetch(one)
    assert not error.value.retryable


def test_what_is_broken_is_not_used(store: InputStore, fetcher: InputFetcher, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(b"other bytes").hexdigest()
    images, inputs = ImageStore(store.url), ImageStore(f"{store.url}/inputs")
    images.put(picture()[0], sha256, "png")
    inputs.put(LORA, sha256, "safetensors")
    for one in (spec(init_image=sha256), with_lora(sha256)):
        with pytest.raises(InputFileError, match="bytes are not those of"):
            fetcher.fetch(one)
    assert list((tmp_path / "cache").rglob("*.safetensors")) == []


def test_a_store_that_does_not_answer_is_asked_again(fetcher: InputFetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", fail)
    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.info", fail)
    for one in (spec(init_image="0" * 64), with_lora()):
        with pytest.raises(StorageError, match="Permission denied") as error:
            fetcher.fetch(one)
        assert error.value.retryable


@pytest.mark.parametrize("refusal", [PermissionError(13, "Permission denied"), IsADirectoryError(21, "Is a directory")])
def test_one_file_that_may_not_be_read_fails_its_job_for_good(
    store: InputStore, fetcher: InputFetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: OSError
) -> None:
    content, sha256 = picture()
    store.put_image(content, sha256, "png")
    put_lora(store, tmp_path)
    refuse_to_open(monkeypatch, refusal)
    for one in (spec(init_image=sha256), with_lora()):
        with pytest.raises(InputFileError, match=f"cannot .*: {refusal.strerror}"):
            fetcher.fetch(one)


def test_a_disk_that_fails_is_asked_again(
    store: InputStore, fetcher: InputFetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, sha256 = picture()
    store.put_image(content, sha256, "png")
    put_lora(store, tmp_path)
    refuse_to_open(monkeypatch, OSError(5, "Input/output error"))
    for one in (spec(init_image=sha256), with_lora()):
        with pytest.raises(StorageError, match="Input/output error"):
            fetcher.fetch(one)


def test_a_cache_that_may_not_be_written_is_no_fault_of_the_input(
    store: InputStore, fetcher: InputFetcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_lora(store, tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(StorageError, match="Permission denied"):
        fetcher.fetch(with_lora())


def refuse_to_open(monkeypatch: pytest.MonkeyPatch, refusal: OSError) -> None:
    def fail(*_: object, **__: object) -> None:
        raise refusal

    monkeypatch.setattr(Path, "open", fail)
    monkeypatch.setattr(Path, "read_bytes", fail)
    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem._open", fail)


def test_the_inputs_of_a_pass_stand_in_the_order_of_its_specs() -> None:
    first, second = np.zeros((8, 8, 3), np.uint8), np.ones((8, 8, 3), np.uint8)
    path = Path("a")
    both = joined([PassInputs((first,), {"a": path}), PassInputs((second,), {"a": path})])
    assert [image is wanted for image, wanted in zip(both.init_images, (first, second), strict=True)] == [True, True]
    assert both.loras == {"a": path}
    assert joined([NO_INPUTS, NO_INPUTS]).init_images == ()
