"""Settings: where they come from, which wins, and what is refused."""

import os
from pathlib import Path

import pytest

from schemas.errors import PairError, SettingsError
from schemas.pair import queue_name
from schemas.settings import load_settings


@pytest.fixture(autouse=True)
def _nothing_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("NIGHTSHIFT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def refusal() -> str:
    with pytest.raises(SettingsError) as error:
        load_settings()
    return str(error.value)


def test_without_file_and_environment_everything_is_in_the_home_folder(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.home == tmp_path / "home" / ".nightshift"
    assert settings.database_url == f"sqlite:///{settings.home}/ledger.sqlite3"
    assert settings.images_url == (settings.home / "images").as_uri()


def test_a_file_in_the_current_folder_is_read() -> None:
    Path("nightshift.toml").write_text('lease_seconds = 30\npair = "full"\nhome = "farm"\n')
    settings = load_settings()
    assert (settings.lease_seconds, settings.pair) == (30.0, "full")
    assert settings.home == Path.cwd() / "farm"


def test_a_file_in_the_home_folder_is_read_where_the_current_one_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_HOME", "farm")
    Path("farm").mkdir()
    Path("farm/nightshift.toml").write_text("pack_size = 4\n")
    assert load_settings().pack_size == 4


def test_a_named_file_is_read_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("nightshift.toml").write_text("pack_size = 4\n")
    Path("other.toml").write_text("pack_size = 5\n")
    monkeypatch.setenv("NIGHTSHIFT_CONFIG", "other.toml")
    assert load_settings().pack_size == 5


def test_a_variable_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("nightshift.toml").write_text("lease_seconds = 30\npack_size = 4\n")
    monkeypatch.setenv("NIGHTSHIFT_LEASE_SECONDS", "7.5")
    settings = load_settings()
    assert (settings.lease_seconds, settings.pack_size) == (7.5, 4)


def test_the_largest_base_seed_comes_through_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_BASE_SEED", str(2**64 - 1))
    assert load_settings().base_seed == 2**64 - 1


def test_a_file_may_add_a_pair() -> None:
    Path("nightshift.toml").write_text(
        '[pairs.mine]\nwatermark = false\nbase = { source = "someone/base", revision = "abc" }\n'
    )
    settings = load_settings()
    pair = settings.model_pair("mine")
    assert (pair.name, pair.base.source, pair.base.revision, pair.refiner, pair.watermark) == (
        "mine", "someone/base", "abc", None, False
    )  # fmt: skip
    assert queue_name(pair.name) == "nightshift.mine"
    assert settings.model_pair().name == "tiny"


def test_an_unknown_pair_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PairError, match=r"unknown pair 'sdxxl'; known are full, sdxl, tiny"):
        load_settings().model_pair("sdxxl")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("leese_seconds = 30", "unknown setting 'leese_seconds'; known are base_seed, "),
        ("lease_seconds = 0", "setting lease_seconds: 0: "),
        ('pack_size = "many"', "setting pack_size: 'many': "),
        ('log_level = "loud"', "setting log_level: 'loud': "),
        ('broker_prefix = "has space"', "setting broker_prefix: 'has space': "),
        ("lease_seconds = ", "cannot read nightshift.toml: "),
        ('pairs = "mine"', "setting pairs: 'mine': "),
        ("pairs.mine = 3", "setting pairs"),
        ("[pairs.mine]", "setting pairs.mine.base: "),
        ('[pairs.mine]\nbase = { source = "a" }\nrefinr = 3', "pairs.mine.refinr"),
        ('[pairs."My pair"]\nbase = { source = "a" }', "a pair's name has only a-z"),
    ],
)
def test_what_is_wrong_in_the_file_is_refused(content: str, sentence: str) -> None:
    Path("nightshift.toml").write_text(content)
    assert sentence in refusal()


def test_an_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_LEESE_SECONDS", "30")
    said = refusal()
    assert "unknown setting NIGHTSHIFT_LEESE_SECONDS in the environment; known are NIGHTSHIFT_BASE_SEED, " in said
    assert "NIGHTSHIFT_PAIR," in said
    assert "NIGHTSHIFT_PAIRS" not in said  # tables are the file's


def test_a_wrong_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_FORWARD_PASS_SIZE", "0")
    assert "setting forward_pass_size: '0': " in refusal()


def test_a_named_file_that_is_missing_or_not_utf8_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_CONFIG", "other.toml")
    assert "cannot read other.toml: " in refusal()
    Path("other.toml").write_bytes(b'pair = "\xff"')
    assert "cannot read other.toml: " in refusal()


def test_settings_are_frozen() -> None:
    settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.pack_size = 4  # type: ignore[misc]
