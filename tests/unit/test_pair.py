"""What a pair may say of itself, and the sentences for what it may not."""

import pytest
from pydantic import ValidationError

from schemas.pair import ModelPair, ModelSource, TextualInversion

BASE = {"source": "someone/base"}


@pytest.mark.parametrize(
    "source",
    [
        {"source": "someone/base", "revision": "abc", "variant": "fp16"},
        {"source": "/models/base", "variant": "fp16"},
        {"source": "/models/base.safetensors"},
        {"source": "/models/base.safetensors", "config": "/models/configs"},
        {"source": "/models/base.safetensors", "config": "someone/base", "revision": "abc"},
        {"source": "synthetic:tiny"},
    ],
)
def test_a_model_may_come_from_the_hub_a_folder_or_a_file(source: dict[str, str]) -> None:
    pair = ModelPair.model_validate({"name": "mine", "base": source, "refiner": source, "vae": source})
    assert pair.vae == pair.base == ModelSource.model_validate(source)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ({"source": ""}, "at least 1 character"),
        ({"source": "/models/base.ckpt"}, "a pickle can run code, so only .safetensors files are read: convert it"),
        ({"source": "/models/base.pt"}, "a pickle can run code"),
        ({"source": "base.safetensors"}, "a file is named by its absolute path"),
        ({"source": "/base.safetensors", "variant": "fp16"}, "a file has no variants: name the file of the variant"),
        ({"source": "/base", "config": "/configs"}, "config goes with a .safetensors file"),
        ({"source": "/base", "revision": "abc"}, "revision goes with a hub id"),
        ({"source": "synthetic:tiny", "revision": "abc"}, "revision goes with a hub id"),
        ({"source": "/base.safetensors", "revision": "abc"}, "revision goes with a hub id"),
        ({"source": "/base.safetensors", "config": "/configs", "revision": "abc"}, "revision goes with a hub id"),
        ({"source": "a/b", "sorce": "a"}, "Extra inputs are not permitted"),
    ],
)
def test_a_source_that_contradicts_itself_is_refused(source: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence.replace(".", r"\.")):
        ModelSource.model_validate(source)


@pytest.mark.parametrize(
    ("inversion", "sentence"),
    [
        ({"source": "/x.safetensors", "token": "two words"}, "should match pattern"),
        ({"source": "/x.safetensors", "token": ""}, "should match pattern"),
        ({"source": "/x", "token": "<x>"}, "a local textual inversion is a .safetensors file"),
        ({"source": "/x.pt", "token": "<x>"}, "a pickle can run code"),
        ({"source": "a/b", "token": "<x>"}, "weight_name is missing"),
        ({"source": "a/b", "token": "<x>", "weight_name": "x.pt"}, "should match pattern"),
        ({"source": "/x.safetensors", "token": "<x>", "revision": "abc"}, "go with a hub id; a file has none"),
    ],
)
def test_a_textual_inversion_that_contradicts_itself_is_refused(inversion: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence.replace(".", r"\.")):
        TextualInversion.model_validate(inversion)


@pytest.mark.parametrize(("one", "other"), [("<x>", "<x>"), ("style", "style2"), ("mystyle", "style")])
def test_tokens_that_cannot_be_told_apart_are_refused(one: str, other: str) -> None:
    inversions = [{"source": "/x.safetensors", "token": token} for token in (one, other)]
    with pytest.raises(ValidationError, match="rename one of them"):
        ModelPair.model_validate({"name": "mine", "base": BASE, "textual_inversions": inversions})


@pytest.mark.parametrize("fields", [{"offload": "disk"}, {"dtype": "int8"}, {"vae_tiling": "some"}, {"vae": "a/b"}])
def test_an_option_of_another_kind_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        ModelPair.model_validate({"name": "mine", "base": BASE, **fields})


def test_a_definition_changes_with_what_is_said_of_the_pair_and_with_nothing_else() -> None:
    plain = ModelPair.model_validate({"name": "mine", "base": BASE})
    same = ModelPair.model_validate({"name": "mine", "base": BASE, "vae_tiling": False, "options": {"fp8": "off"}})
    assert plain.definition == same.definition
    changes = ({"base": {**BASE, "revision": "abc"}}, {"vae": {"source": "/vae"}}, {"options": {"fp8": "weights"}})
    changed = {ModelPair.model_validate({"name": "mine", "base": BASE, **change}).definition for change in changes}
    assert len(changed - {plain.definition}) == 3
