"""Pictures and LoRAs that a manifest names: what is found, what is refused, and what is stored before a batch opens."""

import hashlib
import io
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import fsspec
import pytest
from PIL import Image

from farm.image_store import ImageStore, read_image
from farm.inputs import InputStore
from producer.manifests.inputs import Inputs
from producer.manifests.manifest import BadRow, ReadOptions, Row, read_manifest
from schemas.errors import InputFileError, ManifestError, StorageError
from schemas.loras import Lora
from schemas.settings import Settings

KOHYA = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight"


def picture(size: tuple[int, int] = (64, 128), mode: str = "RGB", image_format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, options.pop("colour", 0)).save(stream, image_format, **options)
    return stream.getvalue()


def lora_file(*names: str, size_bytes: int = 4) -> bytes:
    header = {
        name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * n, 4 * n + size_bytes]}
        for n, name in enumerate(names or [KOHYA])
    }
    content = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return struct.pack("<Q", len(content)) + content + b"\0" * 4 * max(len(names), 1)


def lora_that_ends_at(end: str) -> bytes:
    """``end`` as it stands in the header."""
    content = f'{{"{KOHYA}": {{"dtype": "F32", "shape": [1], "data_offsets": [0, {end}]}}}}'.encode()
    return struct.pack("<Q", len(content)) + content + b"\0" * 4


class House:
    """The folders of an operator, and manifests that name what is in them."""

    def __init__(self, home: Path, images_url: str = "") -> None:
        self.settings = Settings(home=home, images_url=images_url)
        self.inputs, self.loras = Path(self.settings.input_folder), Path(self.settings.lora_folder)
        for folder in (self.inputs, self.loras):
            folder.mkdir(parents=True)
        self.store = InputStore(self.settings.images_url)

    def read(self, *rows: dict[str, object], **options: Any) -> list[Row | BadRow]:
        path = self.settings.home / "rows.jsonl"
        path.write_text("".join(f"{json.dumps({'prompt': 'a cat', **row})}\n" for row in rows))
        return list(read_manifest(path, ReadOptions(inputs=Inputs(self.settings), **options)))

    def read_tsv(self, header: str, *rows: str, **options: Any) -> list[Row | BadRow]:
        path = self.settings.home / "rows.tsv"
        path.write_text("\n".join([header, *rows]) + "\n")
        return list(read_manifest(path, ReadOptions(inputs=Inputs(self.settings), **options)))

    def reason(self, **row: object) -> str:
        [bad] = self.read({"strength": 0.5, **row} if "init_image" in row else row)
        assert isinstance(bad, BadRow)
        return bad.reason

    def stored(self) -> list[str]:
        folder = self.settings.home / "images"
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "home")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def key(content: bytes, suffix: str) -> str:
    digest = sha256(content)
    return f"inputs/{digest[:2]}/{digest[2:4]}/{digest}.{suffix}"


# Pictures


def test_a_picture_becomes_its_hash_and_lies_in_the_store_whatever_becomes_of_the_file(house: House) -> None:
    (house.inputs / "cats").mkdir()
    content = picture((64, 128))
    (house.inputs / "cats" / "tom.png").write_bytes(content)
    header, row = "Prompt\tInit image\tStrength\tWidth\tHeight", "a cat\tcats/tom.png\t0.4\t64\t128"
    [found] = house.read_tsv(header, row)
    assert isinstance(found, Row)
    assert found.spec.init_image == sha256(content)
    assert house.stored() == [key(content, "png")]

    (house.inputs / "cats" / "tom.png").unlink()
    uri = house.store.find_image(found.spec.init_image)
    assert uri is not None
    assert read_image(uri) == content


def test_the_digest_covers_the_picture_and_not_its_name(house: House) -> None:
    (house.inputs / "a.png").write_bytes(picture())
    (house.inputs / "b.png").write_bytes(picture())
    (house.inputs / "c.png").write_bytes(picture(colour=9))
    a, b, c = house.read(*({"init_image": name, "strength": 0.5, "seed": 1} for name in ("a.png", "b.png", "c.png")))
    assert isinstance(a, Row)
    assert isinstance(b, Row)
    assert isinstance(c, Row)
    assert a.spec.digest == b.spec.digest != c.spec.digest
    assert (a.repeat, b.repeat) == (0, 1)


@pytest.mark.parametrize(("image_format", "suffix"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")], ids=str.lower)
def test_the_suffix_is_that_of_the_content(house: House, image_format: str, suffix: str) -> None:
    content = picture(image_format=image_format)
    (house.inputs / "cat.dat").write_bytes(content)
    [row] = house.read({"init_image": "cat.dat", "strength": 0.5})
    assert isinstance(row, Row)
    assert house.stored() == [key(content, suffix)]


def test_without_width_and_height_they_are_the_pictures(house: House) -> None:
    (house.inputs / "cat.png").write_bytes(picture((128, 72)))
    [row] = house.read({"init_image": "cat.png", "strength": 0.5})
    assert isinstance(row, Row)
    assert (row.spec.width, row.spec.height) == (128, 72)


def test_a_lying_photograph_is_measured_upright(house: House) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (house.inputs / "cat.jpg").write_bytes(picture((128, 72), image_format="JPEG", exif=exif))
    [row] = house.read({"init_image": "cat.jpg", "strength": 0.5})
    assert isinstance(row, Row)
    assert (row.spec.width, row.spec.height) == (72, 128)


def test_another_size_is_refused_and_nothing_is_scaled(house: House) -> None:
    (house.inputs / "cat.png").write_bytes(picture((64, 128)))
    [bad] = house.read_tsv("Prompt\tInit image\tStrength\tWidth", "a cat\tcat.png\t0.4\t64")
    assert str(bad) == (
        f'{house.settings.home}/rows.tsv:2: column "Init image": "cat.png": is 64 x 128 pixels,'
        " and the row's image 64 x 1024; scale it, or leave width and height out"
    )


def test_sides_that_sdxl_does_not_have_are_told_of_the_picture(house: House) -> None:
    (house.inputs / "cat.png").write_bytes(picture((100, 128)))
    assert house.reason(init_image="cat.png") == (
        "is 100 x 128 pixels, and its width is not divisible by 8; the nearest sides are 96 and 104"
    )


def test_a_rendered_image_is_taken_from_the_store_and_not_stored_again(house: House) -> None:
    content = picture()
    uri = ImageStore(house.settings.images_url).put(content, sha256(content), "png")
    by_uri, by_hash = house.read(
        {"init_image": uri, "strength": 0.5, "seed": 1}, {"init_image": sha256(content), "strength": 0.5, "seed": 1}
    )
    assert isinstance(by_uri, Row)
    assert isinstance(by_hash, Row)
    assert by_uri.spec == by_hash.spec
    (house.inputs / "copy.png").write_bytes(content)
    assert isinstance(house.read({"init_image": "copy.png", "strength": 0.5})[0], Row)
    assert len(house.stored()) == 1


def test_an_image_that_is_broken_in_the_store_is_refused(house: House) -> None:
    digest = sha256(picture())
    ImageStore(house.settings.images_url).put(b"something else", digest, "png")
    assert "its bytes are not those of its name" in house.reason(init_image=digest)


@pytest.mark.parametrize(
    "name", ["0" * 64, "file:///etc/passwd", "{url}/../ledger.sqlite3", "{url}/inputs/", "{other}"]
)
def test_what_is_not_in_the_store_is_not_taken_from_it(house: House, name: str) -> None:
    content = picture()
    other = ImageStore(str(house.settings.home / "elsewhere")).put(content, sha256(content), "png")
    assert house.reason(init_image=name.format(url=house.store.url, other=other)) == "is no picture of the image store"


@pytest.mark.parametrize(
    "content",
    [b"", b"GIF89a", picture(image_format="GIF"), picture(image_format="BMP"), b"\x89PNG\r\n\x1a\n", b"no picture"],
    ids=["empty", "gif header", "gif", "bmp", "png header", "text"],
)
def test_only_png_jpeg_and_webp_are_pictures(house: House, content: bytes) -> None:
    (house.inputs / "cat.png").write_bytes(content)
    assert house.reason(init_image="cat.png") == "is no PNG, JPEG or WebP"
    assert house.stored() == []


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_a_picture_that_is_cut_off_is_refused(house: House, image_format: str) -> None:
    noise = Image.frombytes("RGB", (64, 64), os.urandom(64 * 64 * 3))
    stream = io.BytesIO()
    noise.save(stream, image_format)
    (house.inputs / "cat.png").write_bytes(stream.getvalue()[:-2000])
    reason = house.reason(init_image="cat.png")
    assert reason.startswith(("cannot be decoded", "cannot be read", "is no PNG"))
    assert house.stored() == []


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that claims a size and has next to no pixels."""
    content = bytearray(picture((8, 8)))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


@pytest.mark.parametrize("side", [5000, 12_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(house: House, side: int) -> None:
    (house.inputs / "bomb.png").write_bytes(png_of_size(side, side))
    assert "4096" in house.reason(init_image="bomb.png")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (picture(mode="RGBA", colour=(9, 9, 9, 128)), "has transparent parts"),
        (picture(mode="I;16"), "has 16 bits for each colour"),
        (picture(mode="CMYK", image_format="JPEG"), "has colours of the kind CMYK"),
        (picture(save_all=True, append_images=[Image.new("RGB", (64, 128), 9)]), "has more than one frame"),
    ],
    ids=["transparent", "16 bits", "cmyk", "animated"],
)
def test_what_rgb_would_lose_without_a_word_is_refused(house: House, content: bytes, reason: str) -> None:
    (house.inputs / "cat.png").write_bytes(content)
    assert house.reason(init_image="cat.png").startswith(reason)


#: PNG's colour types, and how many values a pixel has
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}


def png_of_depth(num_bits: int, colour_type: int) -> bytes:
    """An opaque white PNG of 64 x 128 pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = (b"\0" + b"\xff" * (64 * CHANNELS[colour_type] * num_bits // 8)) * 128
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 128, num_bits, colour_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("colour_type", CHANNELS, ids=["grey", "rgb", "grey with alpha", "rgb with alpha"])
def test_a_png_is_not_cut_to_8_bits(house: House, colour_type: int) -> None:
    (house.inputs / "deep.png").write_bytes(png_of_depth(16, colour_type))
    (house.inputs / "cat.png").write_bytes(png_of_depth(8, colour_type))
    assert house.reason(init_image="deep.png") == "has 16 bits for each colour; save it as RGB with 8 bits"
    assert isinstance(house.read({"init_image": "cat.png", "strength": 0.5})[0], Row)


def test_a_png_whose_header_does_not_stand_first_is_refused(house: House) -> None:
    content = png_of_depth(16, 2)
    other = b"\0\0\0\x08tEXtSoftware" + struct.pack(">I", zlib.crc32(b"tEXtSoftware"))
    (house.inputs / "cat.png").write_bytes(content[:8] + other + content[8:])
    assert house.reason(init_image="cat.png") == "cannot be read: its IHDR does not stand first"


def test_opaque_pictures_with_an_alpha_channel_are_taken(house: House) -> None:
    (house.inputs / "cat.png").write_bytes(picture(mode="RGBA", colour=(9, 9, 9, 255)))
    assert isinstance(house.read({"init_image": "cat.png", "strength": 0.5})[0], Row)


# Nothing that the operator did not offer


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("name", ["../secret.png", "{home}/secret.png", "a/../../secret.png", "link", "way/secret.png"])
def test_a_path_never_leaves_the_folder_and_tells_nothing_of_what_is_outside(
    house: House, name: str, exists: bool
) -> None:
    home = house.settings.home
    if exists:
        (home / "secret.png").write_bytes(picture())
    (house.inputs / "link").symlink_to(home / "secret.png")
    (house.inputs / "way").symlink_to(home)
    assert house.reason(init_image=name.format(home=home)) == f"does not lie in {house.inputs}"
    assert house.stored() == []


@pytest.mark.parametrize("name", ["../inputs/cat.png", "{home}/inputs/cat.png", "a/../cat.png"])
def test_a_path_does_not_go_up_or_begin_at_the_root_even_to_come_back(house: House, name: str) -> None:
    (house.inputs / "cat.png").write_bytes(picture())
    assert house.reason(init_image=name.format(home=house.settings.home)) == f"does not lie in {house.inputs}"


@pytest.mark.parametrize("name", ["nothing.png", "", ".", "folder", "loop", "pipe", "a\0b", "\ud800", "x" * 5000])
def test_what_is_no_regular_file_is_said_not_to_be_there(house: House, name: str) -> None:
    (house.inputs / "folder").mkdir()
    (house.inputs / "loop").symlink_to("loop")
    os.mkfifo(house.inputs / "pipe")  # reading it would wait for ever
    assert house.reason(init_image=name) == f"there is no such file in {house.inputs}"


@pytest.mark.parametrize("name", ["../secret", "link"])
def test_a_lora_never_comes_from_elsewhere(house: House, name: str) -> None:
    (house.settings.home / "secret.safetensors").write_bytes(lora_file())
    (house.loras / "link.safetensors").symlink_to(house.settings.home / "secret.safetensors")
    assert house.reason(loras=name) == f"{name}: does not lie in {house.loras}"


def test_a_link_inside_the_folder_is_followed(house: House) -> None:
    (house.inputs / "cat.png").write_bytes(picture())
    (house.inputs / "today.png").symlink_to("cat.png")
    assert isinstance(house.read({"init_image": "today.png", "strength": 0.5})[0], Row)


# LoRAs


def test_loras_are_read_from_text_and_from_json_alike(house: House) -> None:
    content, other = lora_file(), lora_file("unet.mid_block.attentions.0.proj_in.lora_A.weight")
    (house.loras / "pixel-art.safetensors").write_bytes(content)
    (house.loras / "film grain.safetensors").write_bytes(other)
    objects = [{"name": "pixel-art", "weight": -0.8}, {"name": "film grain", "sha256": sha256(other)}]
    by_text, by_json = house.read({"loras": "pixel-art:-0.8, film grain", "seed": 1}, {"loras": objects, "seed": 1})
    assert isinstance(by_text, Row)
    assert isinstance(by_json, Row)
    assert by_text.spec == by_json.spec
    assert by_text.spec.loras == (
        Lora(name="pixel-art", sha256=sha256(content), weight=-0.8),
        Lora(name="film grain", sha256=sha256(other)),
    )
    assert house.stored() == sorted([key(content, "safetensors"), key(other, "safetensors")])


def test_set_gives_inputs_to_all_rows(house: House) -> None:
    (house.loras / "a.safetensors").write_bytes(lora_file())
    (house.inputs / "cat.png").write_bytes(picture((64, 64)))
    rows = house.read_tsv("Prompt\tStrength", "a\t0.5", "b\t0.6", defaults={"loras": "a:0.5", "init_image": "cat.png"})
    assert [(row.spec.loras[0].weight, row.spec.width) for row in rows if isinstance(row, Row)] == [(0.5, 64)] * 2


@pytest.mark.parametrize(
    ("defaults", "reason"),
    [
        ({"loras": "nothing"}, "--set loras=nothing: nothing: there is no such file"),
        ({"init_image": "nothing.png"}, "--set init_image=nothing.png: there is no such file"),
        (
            {"init_image": "cat.png", "strength": "0.5", "width": "128", "height": "64"},
            "--set init_image=cat.png: is 64 x 64 pixels",
        ),
    ],
)
def test_a_wrong_input_for_all_rows_is_said_once(house: House, defaults: dict[str, str], reason: str) -> None:
    (house.inputs / "cat.png").write_bytes(picture((64, 64)))
    with pytest.raises(ManifestError) as error:
        house.read_tsv("Prompt", "a", "b", defaults=defaults)
    assert str(error.value).startswith(reason)


@pytest.mark.parametrize(
    ("loras", "reason"),
    [
        ("nothing", "nothing: there is no such file in"),
        ("a:", "should be NAME:WEIGHT"),
        ("a,,b", "should be NAME:WEIGHT"),
        ("a:heavy", "number 1: weight: 'heavy': is not a number"),
        ("a:11", "number 1: weight: '11': should be less than or equal to 10"),
        ("a, b", "name a twice; add its weights up"),
        ({"name": "a"}, "should be a list of objects"),
        (["a"], "should be a list of objects"),
        ([{"name": "a", "wieght": 1}], "number 1: wieght: is not a field of a spec"),
        ([{"name": "a", "sha256": "0" * 64}], "a: its file has the sha256"),
    ],
)
def test_wrong_loras_are_named(house: House, loras: object, reason: str) -> None:
    for name in "ab":
        (house.loras / f"{name}.safetensors").write_bytes(lora_file())
    [bad] = house.read({"LoRAs": loras})
    assert isinstance(bad, BadRow)
    assert bad.column == "LoRAs"
    assert bad.reason.startswith(reason)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is no safetensors file"),
        (b"PK\x03\x04" + b"\0" * 100, "is a pickle"),
        (b"\x80\x02}q\0.", "is a pickle"),
        (struct.pack("<Q", 1 << 40) + b"{}", "is no safetensors file"),
        (struct.pack("<Q", 2) + b"[]", "is no safetensors file"),
        (struct.pack("<Q", 2) + b"{}", "has no tensors"),
        (lora_file(size_bytes=400), "has 1"),
        (lora_that_ends_at("1e999"), "is no safetensors file"),
        (lora_that_ends_at("4.5"), "is no safetensors file"),
        (lora_that_ends_at("true"), "is no safetensors file"),
        (lora_file("transformer.blocks.0.attn.to_q.lora_A.weight"), "is no LoRA for SDXL"),
        (lora_file("unet.conv_in.weight"), "is no LoRA for SDXL"),
        (lora_file(KOHYA, "lora_unet_x.dora_scale"), "is a DoRA"),
    ],
    ids=["empty", "zip", "pickle", "long", "list", "none", "cut off", "inf", "half", "true", "flux", "unet", "dora"],
)
def test_a_file_that_is_no_lora_is_refused(house: House, content: bytes, reason: str) -> None:
    (house.loras / "a.safetensors").write_bytes(content)
    assert house.reason(loras="a").startswith(f"a: {reason}")
    assert house.stored() == []


# The store


def test_each_input_is_resolved_once_for_all_rows(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    (house.inputs / "cat.png").write_bytes(picture())
    opened: list[Path] = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (opened.append(path), read_bytes(path))[1])
    rows = house.read(*[{"init_image": "cat.png", "strength": 0.5}, {"init_image": "no.png", "strength": 0.5}] * 50)
    assert len([row for row in rows if isinstance(row, Row)]) == 50
    assert len(opened) == 1


def test_any_fsspec_url_takes_inputs(tmp_path: Path) -> None:
    house = House(tmp_path / "home", "memory://nightshift-inputs/images")
    (house.inputs / "cat.png").write_bytes(picture())
    (house.loras / "a.safetensors").write_bytes(lora_file())
    [row] = house.read({"init_image": "cat.png", "strength": 0.5, "loras": "a"})
    assert isinstance(row, Row)
    stored = fsspec.filesystem("memory").find("/nightshift-inputs/images")
    assert sorted(stored) == sorted(
        f"/nightshift-inputs/images/{name}" for name in (key(picture(), "png"), key(lora_file(), "safetensors"))
    )
    uri = house.store.find_lora(row.spec.loras[0].sha256)
    assert uri is not None
    house.store.download(uri, tmp_path / "a", row.spec.loras[0].sha256)
    assert (tmp_path / "a").read_bytes() == lora_file()


@pytest.mark.parametrize("images_url", ["", "memory://nightshift-inputs/changed"])
def test_a_lora_that_changes_while_it_is_copied_is_not_stored(tmp_path: Path, images_url: str) -> None:
    house = House(tmp_path / "home", images_url)
    (house.loras / "a.safetensors").write_bytes(lora_file())
    with pytest.raises(InputFileError, match="not those of sha256"):
        house.store.put_lora(house.loras / "a.safetensors", "0" * 64)
    assert house.store.find_lora("0" * 64) is None
    assert house.stored() == []


def test_a_store_that_refuses_is_no_fault_of_the_row(tmp_path: Path) -> None:
    house = House(tmp_path / "home", "file:///proc/nightshift")
    (house.inputs / "cat.png").write_bytes(picture())
    with pytest.raises(StorageError, match="/proc/nightshift"):
        house.read({"init_image": "cat.png", "strength": 0.5})
