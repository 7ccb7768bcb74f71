"""What a batch may be called: the commands that submit refuse the rest."""

from pathlib import Path

import pytest

from producer.submitting.orders import batch_request
from schemas.errors import InputError
from schemas.settings import Settings
from schemas.submit_order import SubmitOrder


def name_of(manifest: str, name: str | None = None) -> str:
    return batch_request(Settings(), SubmitOrder(manifest=manifest, name=name)).name


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a\x1b[31mb", '--name "a\\x1b[31mb": contains a control character'),
        ("a\udcffb", '--name "a\\udcffb": contains half a surrogate pair'),
        ("x" * 201, "has more than 200 characters"),
        (" ", "is empty"),
    ],
)
def test_a_name_that_no_terminal_could_show_is_refused(name: str, sentence: str) -> None:
    with pytest.raises(InputError) as refused:
        name_of("prompts.tsv", name)
    assert sentence in str(refused.value)


def test_a_batch_without_a_name_is_called_as_its_manifest_whatever_that_is_called() -> None:
    assert name_of("folder/cats.tsv") == "cats"
    assert name_of("folder/cats.tsv", "dogs") == "dogs"
    assert name_of("a\x1b[31m\udcff.txt") == "a\\x1b[31m\\udcff"
    assert name_of("x" * 201 + ".txt") == "x" * 200
    assert name_of("folder/cats.jsonl.gz") == "cats"
    assert name_of("folder/cats") == "cats"
    assert name_of("s3://bucket/folder/cats.tsv.zst") == "cats"
    assert name_of("https://me:hunter2@host/of/cats%20and%20dogs.csv?sig=hunter2") == "cats and dogs"
    assert name_of("https://host") == "host"


def test_where_a_batch_came_from_is_recorded_without_a_secret(tmp_path: Path) -> None:
    for manifest, recorded in (
        (f"{tmp_path}/a.tsv", f"{tmp_path}/a.tsv"),
        (f"file://{tmp_path}/a%20b.tsv", f"{tmp_path}/a b.tsv"),
        ("https://me:hunter2@host/a.csv?sig=hunter2", "https://me:***@host/a.csv?sig=***"),
        ("-", "-"),
    ):
        order = SubmitOrder(manifest=manifest, manifest_format="csv")
        origin = batch_request(Settings(), order).origin
        assert origin is not None
        assert origin["order"]["manifest"] == recorded
