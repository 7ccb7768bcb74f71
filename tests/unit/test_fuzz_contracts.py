"""Whatever stands in a spec, a message, a setting: it is what it should be, or refused in a sentence."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import MessageError, PairError, SettingsError, SpecError
from schemas.messages import PackMessage
from schemas.settings import Settings, load_settings
from schemas.spec import JobSpec
from tests.unit.hostile import any_bytes, any_text, assert_is_sentence, field_names, json_values, rows

# Specs


@given(rows() | st.dictionaries(field_names, json_values, max_size=6))
def test_any_fields_are_a_spec_that_comes_back_the_same_or_refused(fields: dict[str, Any]) -> None:
    try:
        spec = JobSpec.parse(fields)
    except SpecError as error:
        assert_is_sentence(error)
        return
    again = JobSpec.from_json(spec.canonical)
    assert (again, again.digest, again.canonical) == (spec, spec.digest, spec.canonical)
    assert len(spec.pack_key) <= 120


def test_a_spec_of_numbers_too_long_to_write_is_refused() -> None:
    for field in ("width", "seed", "guidance_scale", "aspect_ratio", "clip_skip", "original_size"):
        with pytest.raises(SpecError, match="too long to show"):
            JobSpec.parse({"prompt": "a", "seed": 1, field: 10**5_000})


def test_a_spec_of_ten_thousand_wrong_things_is_refused_with_the_first_of_them() -> None:
    lora = {"name": "a", "sha256": "0" * 64, **{f"x{n}": n for n in range(10_000)}}
    with pytest.raises(SpecError, match="and 9950 more") as error:
        JobSpec.parse({"prompt": "a", "seed": 1, "loras": [lora]})
    assert_is_sentence(error.value)
    with pytest.raises(SpecError, match="at most 8 items, not 100000"):
        JobSpec.parse({"prompt": "a", "seed": 1, "loras": [1] * 100_000})


# Messages

PACK_ID = "0123456789abcdef" * 2


@given(
    st.fixed_dictionaries(
        {"version": st.sampled_from([1, 1.0, True, 2]) | json_values, "pack_id": st.just(PACK_ID) | json_values}
    )
    | st.dictionaries(any_text, json_values, max_size=4)
)
def test_any_message_is_one_of_ours_or_refused(content: dict[str, Any]) -> None:
    try:
        message = PackMessage.decode(content)
    except MessageError as error:
        assert_is_sentence(error, 250)
    else:
        assert message.encode() == content
        assert type(content["version"]) is int


def test_a_message_that_cannot_be_written_out_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    for value in (10**5_000, deep):
        for content in ({"version": value, "pack_id": PACK_ID}, {"version": 1, "pack_id": value}):
            with pytest.raises(MessageError, match="too long to show"):
                PackMessage.decode(content)
    with pytest.raises(MessageError) as error:
        PackMessage.decode({"x" * 1_000_000: 1})
    assert len(str(error.value)) < 250


# Settings

_toml_values = st.sampled_from(
    ["1", "-1", "0", "1e400", "inf", "nan", "9" * 50, "9" * 5_000, "0x" + "f" * 5_000, "true", "'x'", '"\\u001b[31m"',
     '"\\u0000"', "''", "[1]", "{}", "{ a = 1 }", "1979-05-27", "[[1]]", "'~nobody-of-this-name/x'", "'cpu'", "'tiny'",
     "{ mine = { base = { source = 'a' } } }", "{ mine = { base = 3 } }", "'debug'", "60.5", "'a\\b'"]
)  # fmt: skip
_toml_names = st.sampled_from(
    [*Settings.model_fields, "_env_file", "_cli_parse_args", "__pydantic_self__", "self", "model_config", '"\\u202e"',
     "pairs.x.base", "home.home", '""', "a" * 300]
)  # fmt: skip
_toml = st.lists(st.tuples(_toml_names, _toml_values), min_size=1, max_size=3).map(
    lambda items: "\n".join(f"{name} = {value}" for name, value in items).encode()
)
_variables = st.dictionaries(
    st.sampled_from([*Settings.model_fields, "config", "x\x1b"]).map(lambda name: f"NIGHTSHIFT_{name.upper()}"),
    st.sampled_from(
        ["", "1", "0", "1e400", "nan", "tiny", "cpu", "9" * 5_000, "{}", "[", "\udcff", "~nobody-of-this/x"]
    )
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    max_size=3,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings")


def check_settings(folder: Path, content: bytes, variables: dict[str, str]) -> Settings | None:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("NIGHTSHIFT_")]:
            patch.delenv(name)
        patch.chdir(folder)
        patch.setenv("HOME", str(folder))
        (folder / "nightshift.toml").write_bytes(content)
        for name, value in variables.items():
            patch.setenv(name, value)
        try:
            settings = load_settings()
            settings.model_pair()
        except (SettingsError, PairError) as error:
            assert_is_sentence(error)
            return None
        return settings


@given(content=any_bytes)
def test_any_bytes_are_settings_or_refused(folder: Path, content: bytes) -> None:
    check_settings(folder, content, {})


@given(content=_toml, variables=st.just({}) | _variables)
def test_any_settings_are_in_bounds_or_refused(folder: Path, content: bytes, variables: dict[str, str]) -> None:
    settings = check_settings(folder, content, variables)
    if settings is not None:
        assert 0 < settings.lease_seconds <= 86_400
        assert settings.home.is_absolute()
        assert 1 <= settings.max_attempts <= 1_000


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a = " + b"[" * 10_000, "its values are nested too deep"),
        (b"a = " + b"{b = " * 10_000, "its values are nested too deep"),
        (b"a." * 50_000 + b"b = 1", "line 1 has more than 1,000 dots"),
        (b"pack_size = " + b"9" * 5_000, "a number has too many digits"),
        (b"#" * 200_001, "it has more than 200,000 bytes"),
        ("pack_size = 4".encode("utf-16"), "it is not UTF-8 (0xff at byte 1)"),
        (b"pack_size = 3\npack_size = 4", "Cannot overwrite a value"),
        (b"lease_seconds = inf", "setting lease_seconds: inf: Input should be less than or equal to 86400"),
        (b"tick_seconds = 1e400", "setting tick_seconds: inf: "),
        (b"home = '~nobody-of-this-name/x'", "nobody has the home folder '~nobody-of-this-name'; write the whole path"),
        (b"lora_folder = '~nobody-of-this-name/x'", "setting lora_folder: "),
        (b'home = "a\\u0000b"', "contains a NUL character"),
        (b"_env_file = '/etc/passwd'", "unknown setting '_env_file'"),
        (b"_cli_parse_args = true", "unknown setting '_cli_parse_args'"),
        (b'[pairs."\\u001b[31m"]\nbase = 3', "setting pairs.\\x1b[31m.name: "),
    ],
)
def test_a_hostile_settings_file_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "nightshift.toml").write_bytes(content)
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert sentence in str(error.value)
    assert_is_sentence(error.value)


def test_a_settings_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    settings = check_settings(tmp_path, "\ufeffpack_size = 4\r\n".encode(), {})
    assert settings is not None
    assert settings.pack_size == 4
