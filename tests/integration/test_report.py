"""A batch's report: what it counts, on both ledgers, and that the file is whole, safe and readable."""

import json
import re
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from sqlalchemy import insert, update
from typer.testing import CliRunner

from farm import batches, ledger, packs
from farm.database import Database
from farm.retries import Failure
from nightshift import app
from producer.questions.queries import batch_summary
from producer.reports.report import write_report
from producer.reports.report_figures import MAX_BARS, Figures, Throughput, figures
from producer.reports.report_page import page
from producer.reports.report_plot import plot
from producer.reports.report_samples import samples
from schemas.errors import StorageError
from schemas.spec import JobSpec
from schemas.states import BatchState, JobState, PackState
from schemas.tables import Batch, EnvironmentRow, Image, Job, Pack, Result
from tests.integration.ledger_farm import (
    ENVIRONMENT,
    TestClock,
    claimed_pack,
    images_of,
    new_ledger,
    new_worker,
    open_batch,
    staged,
)
from tests.integration.stored_farm import done_batch, image_path

TRACEBACK = 'Traceback:\n  File "x.py", line 1\nValueError: <script>alert(1)</script>'
BROKEN = Failure(
    "invalid_image", "its picture has NaN values", retryable=False, is_of_the_job=True, traceback=TRACEBACK
)
SCRIPT = "<script>alert('x')</script> \u202eturned\u202c &amp; \"quoted\" <img src=http://evil.example/x>"
VOID = {"meta", "img", "line", "br"}


@pytest.fixture
def lone(sqlite_url: str) -> Iterator[Database]:
    with closing(new_ledger(sqlite_url)) as database:
        yield database


def pack(database: Database, clock: TestClock, batch_id: int, worker_id: str, seconds: float) -> Any:
    claimed = claimed_pack(database, batch_id, worker_id, size=4)
    packs.begin_rendering(database, claimed.id, worker_id)
    clock.advance(seconds)
    return claimed


def render(database: Database, clock: TestClock, batch_id: int, worker_id: str, seconds: float = 10) -> None:
    claimed = pack(database, clock, batch_id, worker_id, seconds)
    ledger.finish_jobs(database, claimed, ENVIRONMENT, images_of(claimed))


def fail(database: Database, clock: TestClock, batch_id: int, worker_id: str, failure: Failure = BROKEN) -> None:
    claimed = pack(database, clock, batch_id, worker_id, 10)
    job_ids = [job.id for job in claimed.jobs]
    ledger.fail_jobs(database, claimed, job_ids, failure, max_attempts=1)


class Page(HTMLParser):
    """Reads a report and complains of what is not closed, has no name, or comes from elsewhere."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags = Counter[str]()
        self.texts: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.headers = Counter[str | None]()
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags[tag] += 1
        assert not {name for name in given if name.startswith("on")}
        for name in ("src", "href"):
            assert given.get(name, "data:").startswith("data:")
        if tag == "img":
            self.images.append(given)
        if tag == "th":
            self.headers[given["scope"]] += 1
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


# --- figures --------------------------------------------------------------------------------------------------------


def test_images_failures_and_busy_hours_are_counted_by_device(database: Database, clock: TestClock) -> None:
    quick, slow = new_worker(database), new_worker(database, "other")
    with database.begin() as tx:
        tx.connection.exec_driver_sql(f"UPDATE workers SET device = 'gpu 1' WHERE id = '{slow}'")
    batch_id = open_batch(database, 16)
    render(database, clock, batch_id, quick)
    clock.advance(20)  # idle for half of the time
    render(database, clock, batch_id, quick)
    render(database, clock, batch_id, slow, 30)
    fail(database, clock, batch_id, slow)
    report = figures(database, batch_id)
    assert (report.num_rendered, report.num_linked, report.batch.num_failed) == (12, 0, 4)
    assert report.size_bytes == 120
    first, second = report.devices
    assert (first.device, first.num_images, first.num_failed) == ("cpu", 8, 0)
    assert (first.seconds, first.images_per_second) == (40, 0.2)
    assert first.busy_share == pytest.approx(0.5, abs=1e-4)
    assert (second.device, second.num_images, second.num_failed) == ("gpu 1", 4, 4)
    assert second.busy_share == pytest.approx(1, abs=1e-4)
    (reason,) = report.reasons
    assert (reason.code, reason.sentence, reason.num_jobs) == ("invalid_image", "its picture has NaN values", 4)
    assert (reason.number, reason.prompt, reason.traceback) == (13, "cat 13", TRACEBACK)
    (environment,) = report.environments
    assert (environment.content["pair"], environment.num) == ("tiny", 12)
    assert [(kind.content, kind.num) for kind in report.shapes] == [("1024x1024/40/EulerDiscreteScheduler", 16)]


def test_jobs_are_counted_by_shape_whatever_their_passes_are_told(database: Database) -> None:
    batch_id = batches.create_batch(database, "swept", "tiny", 5)
    ddim = {"scheduler": "DDIMScheduler", "scheduler_options": {"timestep_spacing": "trailing"}}
    rows = [{}, {"guidance_scale": 4}, {"guidance_scale": 6}, ddim, {**ddim, "guidance_scale": 4}]
    ledger.stage_jobs(database, batch_id, [staged(n, **fields) for n, fields in enumerate(rows, 1)])
    batches.open_batch(database, batch_id)
    shapes = [(kind.content, kind.num) for kind in figures(database, batch_id).shapes]
    told = JobSpec.parse({"prompt": "a", "seed": 1, **ddim})
    assert shapes == [("1024x1024/40/EulerDiscreteScheduler", 3), (told.pack_key, 2)]


def test_a_device_with_two_workers_is_busy_once(database: Database, clock: TestClock) -> None:
    one, other = new_worker(database), new_worker(database)
    batch_id = open_batch(database, 16)
    first, second = pack(database, clock, batch_id, one, 10), pack(database, clock, batch_id, other, 10)
    for claimed in (first, second):
        ledger.finish_jobs(database, claimed, ENVIRONMENT, images_of(claimed))
    clock.advance(20)
    render(database, clock, batch_id, one)
    (device,) = figures(database, batch_id).devices
    assert (device.num_images, device.seconds) == (12, 50)
    assert device.busy_share == pytest.approx(0.6, abs=1e-4)


def test_a_worker_in_the_place_of_a_dead_one_is_the_same_device(database: Database, clock: TestClock) -> None:
    batch_id = open_batch(database, 8)
    render(database, clock, batch_id, new_worker(database))
    render(database, clock, batch_id, new_worker(database))
    (device,) = figures(database, batch_id).devices
    assert (device.num_images, device.seconds) == (8, 20)


def test_throughput_is_counted_in_stretches_and_all_images_are_in_one(database: Database, clock: TestClock) -> None:
    worker_id, batch_id = new_worker(database), open_batch(database, 12)
    render(database, clock, batch_id, worker_id)
    began = clock.now
    clock.advance(600)
    render(database, clock, batch_id, worker_id)
    render(database, clock, batch_id, worker_id)
    throughput = figures(database, batch_id).throughput
    assert throughput is not None
    assert throughput.seconds == 10
    assert throughput.begins == began
    assert (throughput.nums[0], sum(throughput.nums), throughput.nums[-1]) == (4, 12, 4)
    assert len(throughput.nums) <= MAX_BARS
    assert max(throughput.rates) == 0.4


def test_linked_images_are_done_and_no_throughput(database: Database, clock: TestClock) -> None:
    first = open_batch(database, 4)
    render(database, clock, first, new_worker(database))
    second = open_batch(database, 4)
    ledger.link_jobs(database, second, {5: 1, 6: 2})
    report = figures(database, second)
    assert (report.num_linked, report.num_rendered, report.throughput, report.devices) == (2, 0, None, ())


def test_a_batch_of_which_nothing_was_rendered_has_a_report(database: Database, tmp_path: Path) -> None:
    batch_id = open_batch(database)
    write_report(database, batch_summary(database, batch_id), tmp_path / "report.html", 24, "")
    text = Page(tmp_path / "report.html").text
    assert "open, so far" in text
    assert "still to do 4" in text


def many_jobs(database: Database, num_jobs: int) -> int:
    """Rows alone: a third of the jobs failed, each tenth of them for a reason of its own."""
    worker_id, batch_id = new_worker(database), batches.create_batch(database, "many", "tiny", 5)
    row = msgspec.structs.asdict(staged(1))
    began = datetime(2026, 11, 21, 22, tzinfo=UTC)
    with database.begin() as tx:
        digest = ENVIRONMENT.digest
        content = ENVIRONMENT.model_dump(mode="json")
        tx.execute(tx.insert(EnvironmentRow).values(digest=digest, content=content).on_conflict_do_nothing())
        pack_row = {"id": f"p{batch_id}", "batch_id": batch_id, "pair": "tiny", "pack_key": "k", "num_jobs": 1}
        tx.execute(insert(Pack).values(**pack_row, state=PackState.FINISHED, released_at=began, worker_id=worker_id,
                                       rendering_at=began, ended_at=began + timedelta(hours=9)))  # fmt: skip
        first = batch_id * 1_000_000
        error = {"error": None, "error_code": None, "traceback": None}
        same = {**row, **error, "batch_id": batch_id, "pack_id": f"p{batch_id}", "attempts": 1, "state": JobState.DONE}
        jobs = [{**same, "id": first + n, "number": n, "repeat": n} for n in range(1, num_jobs + 1)]
        for n in range(0, num_jobs, 3):
            jobs[n] |= {"state": JobState.FAILED, "error": f"reason {n % 30 and n}", "traceback": TRACEBACK * 50}
        tx.execute(insert(Job), jobs)
        done = [job["id"] for job in jobs if job["state"] == JobState.DONE]
        image = {"sha256": "a", "pixel_sha256": "b", "size_bytes": 1, "width": 8, "height": 8, "format": "png",
                 "spec_digest": "c", "pair_fingerprint": "f", "created_at": began}  # fmt: skip
        tx.execute(insert(Image), [{**image, "id": job_id, "uri": f"file:///none/{job_id}.png"} for job_id in done])
        result = {"environment_digest": digest, "provenance": {}, "worker_id": worker_id, "pack_id": f"p{batch_id}",
                  "attempt": 1, "render_seconds": 1.0, "finish_seconds": 1.0}  # fmt: skip
        tx.execute(insert(Result), [{**result, "job_id": job_id, "image_id": job_id,
                                     "finished_at": began + timedelta(seconds=(job_id - first) * 30_000 / num_jobs)}
                                    for job_id in done])  # fmt: skip
        counters = {"num_done": len(done), "num_failed": num_jobs - len(done)}
        tx.execute(update(Batch).where(Batch.id == batch_id).values(state=BatchState.OPEN, **counters))
    return batch_id


def test_memory_and_file_do_not_grow_with_the_batch(lone: Database, tmp_path: Path) -> None:
    few, many = many_jobs(lone, 1_000), many_jobs(lone, 12_000)
    path = tmp_path / "report.html"
    write_report(lone, batch_summary(lone, few), path, 24, "")  # what is imported and compiled once
    peaks, sizes = [], []
    for batch_id in (few, many):
        tracemalloc.start()
        report = write_report(lone, batch_summary(lone, batch_id), path, 24, "")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        sizes.append(path.stat().st_size)
    assert sum(report.throughput.nums if report.throughput else ()) == report.num_rendered == 8_000
    assert "more failed for rarer reasons" in Page(path).text
    assert peaks[1] < peaks[0] * 1.2
    assert sizes[1] < sizes[0] * 1.2


# --- the file -------------------------------------------------------------------------------------------------------


def strange_batch(database: Database, clock: TestClock) -> int:
    worker_id, batch_id = new_worker(database), open_batch(database, 8, prompt=SCRIPT)
    render(database, clock, batch_id, worker_id)
    fail(database, clock, batch_id, worker_id, replace(BROKEN, sentence=SCRIPT))
    with database.begin() as tx:
        window = {"window": "22:00-06:00 Europe/Berlin", "deadline": datetime(2026, 11, 22, 6, tzinfo=UTC)}
        tx.execute(update(Batch).values(name=SCRIPT, **window))
        tx.connection.exec_driver_sql("UPDATE workers SET device = '<script>gpu</script>', host = '<b>host</b>'")
    return batch_id


def test_nothing_of_a_stranger_is_markup_or_turns_the_page(sqlite_url: str, clock: TestClock, tmp_path: Path) -> None:
    with closing(new_ledger(sqlite_url, clock)) as database:
        batch_id = strange_batch(database, clock)
        write_report(database, batch_summary(database, batch_id), tmp_path / "report.html", 24, "")
    content = (tmp_path / "report.html").read_text()
    read = Page(tmp_path / "report.html")
    assert read.tags["script"] == read.tags["b"] == read.tags["img"] == 0
    assert "\u202e" not in content
    assert read.text.count("<script>alert('x')</script>") >= 4  # name, title, prompts, reason: as text
    assert "ValueError: <script>alert(1)</script>" in read.text
    assert "<script>gpu</script> of <b>host</b>" in read.text
    assert "Deadline Sun 2026-11-22 07:00 Europe/Berlin" in " ".join(read.text.split())
    assert "none/" not in content


def test_every_table_has_headers_and_every_picture_says_what_it_is(lone: Database, tmp_path: Path) -> None:
    batch_id = done_batch(lone, (tmp_path / "images").as_uri(), ({"prompt": SCRIPT}, {}, {"width": 128}, {}))
    write_report(lone, batch_summary(lone, batch_id), tmp_path / "report.html", 24, "")
    read = Page(tmp_path / "report.html")
    assert [image["alt"] for image in read.images][1:] == ["Job 2: cat 2", "Job 3: cat 3", "Job 4: cat 4"]
    assert [(image["width"], image["height"]) for image in read.images][1:3] == [("320", "320"), ("160", "320")]
    assert all(str(image["src"]).startswith("data:image/webp;base64,") for image in read.images)
    assert read.tags["table"] == 4
    assert read.headers["col"] == 3 + 5 + 4
    assert read.headers["row"] >= 3
    assert "prefers-color-scheme: dark" in (tmp_path / "report.html").read_text()


def test_samples_are_spread_over_the_batch_and_stand_in_for_what_is_not_done(
    database: Database, clock: TestClock
) -> None:
    worker_id, batch_id = new_worker(database), open_batch(database, 40)
    for _ in range(5):
        render(database, clock, batch_id, worker_id)
    fail(database, clock, batch_id, worker_id)
    render(database, clock, batch_id, worker_id)
    batch = batch_summary(database, batch_id)
    chosen = [[sample.number for sample in samples(database, batch, num)] for num in (10, 4, 0, 200)]
    assert chosen[0] == [1, 7, 9, 16, 18, 27]  # 21 to 24 failed, 29 to 40 wait
    assert chosen[1] == [1, 17, 25]
    assert chosen[2] == []
    assert chosen[3] == [*range(1, 21), *range(25, 29)]


def test_samples_of_a_sweep_show_all_of_its_values(database: Database, clock: TestClock) -> None:
    worker_id, batch_id = new_worker(database), open_batch(database, 48)
    for _ in range(12):
        render(database, clock, batch_id, worker_id)
    numbers = [sample.number for sample in samples(database, batch_summary(database, batch_id), 12)]
    for num_values in (2, 3, 4):
        assert {number % num_values for number in numbers} == set(range(num_values))


def test_a_picture_that_is_gone_is_said_in_its_place(lone: Database, tmp_path: Path) -> None:
    batch_id = done_batch(lone, (tmp_path / "images").as_uri(), ({}, {}))
    image_path(lone, 1, batch_id).unlink()
    write_report(lone, batch_summary(lone, batch_id), tmp_path / "report.html", 24, "")
    read = Page(tmp_path / "report.html")
    assert len(read.images) == 1
    assert "cannot read" in read.text


def test_an_old_report_stays_until_the_new_one_is_whole(lone: Database, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    batch_id = open_batch(lone)
    lone.engine.dispose()
    summary = batch_summary(lone, batch_id)
    with lone.begin() as tx:
        tx.execute(update(Job).values(pack_key="no such key"))
    with pytest.raises(ValueError, match="unpack"):
        write_report(lone, summary, path, 24, "")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.glob("*report*")] == ["report.html"]


# --- the plot -------------------------------------------------------------------------------------------------------


def drawn(seconds: int, nums: tuple[int, ...]) -> str:
    return "".join(plot(Throughput(datetime(2026, 11, 21, 21, 50, tzinfo=UTC), seconds, nums), UTC))


def test_bars_are_as_high_as_their_rates_and_axes_have_round_figures() -> None:
    svg = drawn(600, (600, 1200, 0, 900))
    heights = [float(height) for height in re.findall(r'<rect [^>]*height="([0-9.]+)"', svg)]
    assert heights == [50, 100, 0, 75]
    assert re.findall(r"bottom:([0-9.]+)%\">([^<]+)<", svg) == [
        ("0.00", "0"), ("25.00", "0.5"), ("50.00", "1"), ("75.00", "1.5"), ("100.00", "2")
    ]  # fmt: skip
    assert re.findall(r"left:([0-9.]+)%\">([^<]+)<", svg) == [
        ("25.00", "22:00"), ("50.00", "22:10"), ("75.00", "22:20")
    ]  # fmt: skip
    assert "<title>22:00: 2 images/s</title>" in svg


@pytest.mark.parametrize(
    ("begins", "num_stretches", "times"),
    [
        (datetime(2026, 10, 24, 20, tzinfo=UTC), 54, [("22.22", "00:00"), ("66.67", "03:00")]),
        (datetime(2027, 3, 27, 21, tzinfo=UTC), 42, [("28.57", "00:00"), ("57.14", "03:00"), ("71.43", "04:00")]),
    ],
    ids=["autumn", "spring"],
)
def test_in_a_night_in_which_the_clock_is_set_times_stand_below_their_bars(
    begins: datetime, num_stretches: int, times: list[tuple[str, str]]
) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    svg = "".join(plot(Throughput(begins, 600, (1,) * num_stretches), berlin))
    assert re.findall(r"left:([0-9.]+)%\">([^<]+)<", svg) == times
    bars = {time: float(x) for x, time in re.findall(r'<rect x="([\d.]+)"[^>]*><title>(\d\d:\d\d): ', svg)}
    for left, time in times:
        assert float(left) == pytest.approx(100 * (bars[time] - 0.08) / num_stretches, abs=0.01)


@pytest.mark.parametrize(("seconds", "num"), [(1, 1), (1, 72), (86_400, 60), (3600, 50), (28 * 86_400, 72)])
def test_no_more_times_than_a_phone_has_room_for(seconds: int, num: int) -> None:
    assert drawn(seconds, (1,) * num).count("left:") <= 4


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_writes_the_file_and_says_where(
    lone: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    batch_id = done_batch(lone, (tmp_path / "images").as_uri(), ({}, {}))
    said = CliRunner().invoke(app, ["report", str(batch_id)])
    assert said.stdout == f"{tmp_path}/reports/report-1.html: 2 of 2 done\n"
    out = tmp_path / "folder" / "r.html"
    answer = json.loads(CliRunner().invoke(app, ["report", "cats", "--out", str(out), "--json"]).stdout)
    assert (answer["report"], answer["num_done"]) == (str(out), 2)
    assert out.read_bytes()[:100] == (tmp_path / "reports" / "report-1.html").read_bytes()[:100]
    assert CliRunner().invoke(app, ["report", "1", "--samples", "201"]).exit_code == 2


@pytest.mark.parametrize("out", ["", ".", "/"])
def test_a_report_that_would_be_a_folder_is_refused_in_a_sentence(lone: Database, tmp_path: Path, out: str) -> None:
    batch = batch_summary(lone, open_batch(lone))
    with pytest.raises(StorageError, match="Is a directory"):
        write_report(lone, batch, Path(out), 1, "")


def test_what_is_written_of_figures_is_the_same_each_time(lone: Database) -> None:
    report: Figures = figures(lone, open_batch(lone))
    assert list(page(report, [], UTC)) == list(page(report, [], UTC))
