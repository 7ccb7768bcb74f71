"""`nightshift plan` on real ledgers: it says what there is, and leaves everything as it was."""

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner, Result

from farm.database import Database
from farm.image_store import ImageStore
from nightshift import app
from producer import Client, Settings
from producer.submitting.submit import SHOWN_BAD_ROWS
from schemas.errors import ManifestError
from schemas.settings import load_settings
from schemas.tables import Image, Table
from tests.integration.ledger_farm import TestClock, new_ledger
from tests.integration.played_worker import ready_worker, render_pack
from tests.unit.test_inputs import lora_file, picture

SMALL = ("--set", "width=64", "--set", "height=64", "--set", "num_inference_steps=10")


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """SQLite's, but where a test asks for both."""
    url: str = request.getfixturevalue(f"{getattr(request, 'param', 'sqlite')}_url")
    return url


@pytest.fixture
def clock() -> TestClock:
    """Ten minutes before the command's own time."""
    clock = TestClock()
    clock.now = datetime.now(UTC) - timedelta(minutes=10)
    return clock


@pytest.fixture
def database(database_url: str, clock: TestClock) -> Iterator[Database]:
    with closing(new_ledger(database_url, clock)) as database:
        yield database


@pytest.fixture
def settings(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The command's, too. What was seen ten minutes ago lives still."""
    variables = {"home": tmp_path / "home", "database_url": database_url, "images_url": str(tmp_path / "images")}
    for name, value in {**variables, "lease_seconds": "3600", "pack_size": "4"}.items():
        monkeypatch.setenv(f"NIGHTSHIFT_{name.upper()}", str(value))
    return load_settings()


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "cats.tsv"
    path.write_text("Prompt\tseed\n" + "".join(f"cat {n}\t{n}\n" for n in range(10)))
    return path


def command(name: str, *arguments: object) -> Result:
    return CliRunner().invoke(app, [name, *map(str, arguments)])


def planned(*arguments: object) -> dict[str, Any]:
    result = command("plan", *arguments, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def everything(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    with database.begin(read_only=True) as tx:
        return {
            name: sorted(map(repr, tx.execute(select(table)).all())) for name, table in Table.metadata.tables.items()
        }


def submitted(settings: Settings, manifest: Path, limit: int) -> int:
    fields = {"width": 64, "height": 64, "num_inference_steps": 10}
    with Client(settings) as client:
        return client.submit(manifest, defaults=fields, limit=limit).id


@pytest.mark.parametrize("database_url", ["sqlite", "postgres"], indirect=True)
def test_what_exists_what_it_takes_and_what_it_needs_come_from_the_ledger(
    database: Database, settings: Settings, manifest: Path, clock: TestClock
) -> None:
    store, worker_id = ImageStore(settings.images_url), ready_worker(database)
    batch_id = submitted(settings, manifest, 4)
    render_pack(database, store, batch_id, worker_id, 4, clock, seconds=8.0)
    before = everything(database)
    found = planned(manifest, *SMALL)
    assert (found["num_valid"], found["num_existing"], found["num_to_render"], found["num_packs"]) == (10, 4, 6, 2)
    assert found["pace"]["num_live"] == found["pace"]["num_measured"] == 1
    assert found["seconds"] == pytest.approx(12.0)
    with database.begin(read_only=True) as tx:
        sizes = tx.execute(select(Image.size_bytes)).scalars().all()
    assert found["disk"]["num_bytes"] == round(6 * sum(sizes) / len(sizes))
    assert (found["disk"]["num_estimated"], found["disk"]["fits"]) == (0, True)
    assert planned(manifest, *SMALL, "--again")["num_existing"] is None
    assert planned(manifest, *SMALL, "--limit", 3)["num_to_render"] == 0
    assert everything(database) == before


def test_an_image_that_is_gone_is_to_be_rendered(
    database: Database, settings: Settings, manifest: Path, clock: TestClock
) -> None:
    batch_id = submitted(settings, manifest, 2)
    render_pack(database, ImageStore(settings.images_url), batch_id, ready_worker(database), 4, clock, 1.0)
    next(path for path in Path(settings.images_url).rglob("*.png")).unlink()
    assert planned(manifest, *SMALL)["num_existing"] == 1


def test_a_plan_comes_true(database: Database, settings: Settings, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed.tsv"
    sizes = "".join(f"cat\t{64 + 64 * (n % 3)}\t{('euler', 'ddim')[n % 2]}\n" for n in range(40))
    mixed.write_text(f"Prompt\tWidth\tScheduler\n{sizes}")
    found = planned(mixed)
    with Client(settings) as client:
        batch = client.submit(mixed)
    assert batch.num_jobs == found["num_to_render"] == 40
    num_packs, worker_id = 0, ready_worker(database)
    while _renders(database, settings, batch.id, worker_id):
        num_packs += 1
    assert num_packs == found["num_packs"]


def _renders(database: Database, settings: Settings, batch_id: int, worker_id: str) -> bool:
    try:
        render_pack(database, ImageStore(settings.images_url), batch_id, worker_id, settings.pack_size)
    except AssertionError:  # there is no pack to release
        return False
    return True


def test_pictures_and_loras_are_checked_and_not_stored(database: Database, settings: Settings, tmp_path: Path) -> None:
    for folder in (settings.input_folder, settings.lora_folder):
        Path(folder).mkdir(parents=True)
    (Path(settings.input_folder) / "cat.png").write_bytes(picture())
    (Path(settings.lora_folder) / "pixels.safetensors").write_bytes(lora_file("unet.x.lora_A.weight"))
    rows = tmp_path / "rows.jsonl"
    good = {"prompt": "a cat", "init_image": "cat.png", "strength": 0.5, "loras": "pixels:0.8"}
    rows.write_text(json.dumps(good) + "\n")
    assert planned(rows)["num_to_render"] == 1
    assert not Path(settings.images_url).exists()
    rows.write_text(json.dumps({**good, "init_image": "dog.png"}) + "\n")
    assert "there is no such file" in command("plan", rows).exception.args[0]  # type: ignore[union-attr]


def test_bad_rows_are_shown_as_submit_shows_them_after_the_plan(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.tsv"
    rows.write_text("Prompt\tWidth\n" + "a cat\t63\n" * (SHOWN_BAD_ROWS + 3) + "a cat\t64\n")
    before = everything(database)
    plan, submit = command("plan", rows), command("submit", rows)
    assert plan.stdout.startswith("rows      1 valid, 23 invalid, for pair tiny\n")
    for result in (plan, submit):
        assert isinstance(result.exception, ManifestError)
    assert str(plan.exception) == str(submit.exception)
    assert str(plan.exception).endswith("... and 3 more")
    assert planned(rows, "--skip-invalid")["num_invalid"] == 23
    assert everything(database) == before


def test_rows_that_are_all_bad_can_not_be_submitted_in_any_way(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.tsv"
    rows.write_text("Prompt\tWidth\na cat\t63\n")
    plan, submit = command("plan", rows, "--skip-invalid"), command("submit", rows, "--skip-invalid")
    assert str(plan.exception) == str(submit.exception)
    assert isinstance(plan.exception, ManifestError)


def test_other_batches_of_the_pair_are_told_of(database: Database, settings: Settings, manifest: Path) -> None:
    submitted(settings, manifest, 3)
    assert planned(manifest)["num_before"] == 3
    assert "not counted: 3 jobs of other batches of this pair" in command("plan", manifest).stdout


def test_a_window_and_a_deadline_are_judged(
    database: Database, settings: Settings, manifest: Path, clock: TestClock
) -> None:
    batch_id = submitted(settings, manifest, 4)
    render_pack(database, ImageStore(settings.images_url), batch_id, ready_worker(database), 4, clock, 8.0)
    hours = planned(manifest, *SMALL, "--window", "00:00-24:00 UTC", "--deadline", "2200-01-01T00:00Z")["hours"]
    assert hours["num_spans"] == 1
    assert hours["spare_seconds"] > 0
    begins, ends = (datetime.fromisoformat(hours[name]) for name in ("begins", "ends"))
    assert (ends - begins).total_seconds() == pytest.approx(12.0)
    assert planned(manifest, "--not-before", "2199-12-31T22:00Z")["hours"]["begins"] == "2199-12-31T22:00:00+00:00"


def test_submit_says_that_a_deadline_comes_before_the_window_does(
    database: Database, settings: Settings, manifest: Path
) -> None:
    """As `plan` says it."""
    never = ["--window", "mon 00:00-00:01 UTC", "--not-before", "2199-12-31T22:00Z", "--deadline", "2199-12-31T23:00Z"]
    assert "missed, for nothing begins before it" in command("plan", manifest, *never).stdout
    said = command("submit", manifest, *never).stderr
    assert "warning: batch 1 will be late: nothing of it begins before Mon 2200-01-06 00:00 UTC, its deadline" in said
