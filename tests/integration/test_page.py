"""The web page's HTML over a real ledger and a real image store. What a browser makes of it: tests/acceptance."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sqlalchemy import delete, update
from starlette.testclient import TestClient

from farm import ledger
from farm.batches import cancel_batch, create_batch, open_batch
from farm.workers import note_worker
from producer.manifests.manifest import ReadOptions, Row, read_rows
from producer.questions.job_pages import job_of
from producer.questions.job_results import JobResult
from producer.questions.queries import batch_summaries, batch_summary
from producer.web import shared_answers
from producer.web.page import gallery, templating
from producer.web.page.forms import own_path
from schemas.records import StagedJob
from schemas.states import JobState
from schemas.tables import Image, Job, Worker
from schemas.token import Scope
from schemas.written_spec import WrittenSpec
from tests.integration.asked import asked_of
from tests.integration.ledger_farm import new_worker, staged
from tests.integration.stored_farm import done_batch, job_spec, new_batch
from tests.integration.web_client import HERE
from tests.integration.web_farm import FarmWithPage, farm_with_page
from tests.unit.test_inputs import lora_file

EVIL = "<script>alert(1)</script>\" onload=\"x 'y' \u202egnp"
NUM_DONE = 8


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarmWithPage]:
    """Batch 1 is done, batch 2 waits and has failures, batch 3 is of a pair that nobody serves."""
    with farm_with_page(tmp_path_factory.mktemp("page")) as farm:
        kinds = [
            {
                "prompt": f"fox {n // 4} {EVIL}", "width": 64, "height": 64, "num_inference_steps": 20 + n % 2,
                "seed": n // 4 * 2 + n % 2, "refiner": {"mode": "off"} if n % 4 >= 2 else {},
            }
            for n in range(NUM_DONE)
        ]  # fmt: skip
        done_batch(farm.database, farm.page.settings.images_url, kinds)
        waiting = create_batch(farm.database, EVIL, "tiny", 5)
        specs = [job_spec(n, prompt=f"cat {n} {EVIL}") for n in range(1, 151)]
        specs[9] = job_spec(10, prompt=f"cat 10 {EVIL}", scheduler="ddim", height=128)
        meta = {10: {"Set": "c"}}
        rows = [
            StagedJob.of(n, WrittenSpec.of(spec), 0, meta.get(n, {"Set": "a&b"})) for n, spec in enumerate(specs, 1)
        ]
        ledger.stage_jobs(farm.database, waiting, rows)
        open_batch(farm.database, waiting)
        failed = {"state": JobState.FAILED, "error": f"no such LoRA {EVIL}", "error_code": EVIL, "attempts": 3}
        with farm.database.begin() as tx:
            tx.execute(update(Job).where(Job.batch_id == 1, Job.number == 1).values(meta={EVIL: EVIL}))
            tx.execute(update(Job).where(Job.batch_id == 2, Job.number > 148).values(**failed, traceback=f"at {EVIL}"))
        unserved = create_batch(farm.database, "dogs", "sdxl", 5)
        ledger.stage_jobs(farm.database, unserved, [staged(1)])
        open_batch(farm.database, unserved)
        new_worker(farm.database)
        yield farm


@pytest.fixture
def page(farm: FarmWithPage) -> Iterator[TestClient]:
    with farm.client(peer=HERE) as client:
        client.follow_redirects = False
        yield client


class Found(HTMLParser):
    """Every start tag with its attributes, and whether all tags that were opened are closed."""

    VOID = frozenset({"meta", "link", "img", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open[-1] in ("option", "p", "li") and self.open[-1] != tag:
            self.open.pop()
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


PAGES = (
    *(
        "/",
        "/batches/1",
        "/batches/2",
        "/batches/2/card",
        "/batches/2/failures",
        "/batches/2/failures?whole=true",
        "/batches/1/plot",
        "/batches/1/plot?whole=true",
        "/batches/1/jobs/1",
    ),
    *("/batches/2/jobs/149", "/batches/2/jobs/1", "/compare?left=1/1&right=1/3", "/batches/1/grid?job=1", "/devices"),
    *("/devices/table", "/try", "/try?from=1/1", "/login", "/nothing", "/batches/99", "/compare?left=1&right=2"),
)


@pytest.mark.parametrize("path", PAGES)
def test_a_strangers_words_stay_words(page: TestClient, path: str) -> None:
    """And nothing that the policy of the page forbids: inline scripts, styles and handlers, places elsewhere."""
    answer = page.get(path)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    found = Found(answer.text)
    assert found.open == []
    assert "\u202e" not in answer.text or path == "/try?from=1/1"  # where the prompt is to be edited as it is
    assert all(script["src"].startswith("/static/") for script in found.all("script"))
    for _, attributes in found.tags:
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        for name in ("src", "href", "action"):
            assert (attributes.get(name) or "/").startswith(("/", "#"))


def test_no_template_takes_a_word_for_html() -> None:
    folder = Path(templating.__file__).parents[1] / "templates"
    texts = [path.read_text() for path in folder.iterdir()]
    assert len(texts) > 15
    assert [text for text in texts if re.search(r"\|\s*safe|autoescape|Markup", text)] == []


def test_every_page_has_a_title_a_language_and_one_heading(page: TestClient) -> None:
    for path in ("/", "/batches/1", "/batches/1/jobs/1", "/devices", "/try", "/login", "/nothing"):
        found = Found(page.get(path).text)
        assert found.all("html") == [{"lang": "en"}]
        assert len(found.all("h1")) == len(found.all("title")) == 1


def test_a_queue_that_nobody_serves_is_shown_in_red(page: TestClient) -> None:
    for path in ("/", "/devices", "/batches/3"):
        text = page.get(path).text
        assert 'class="alarm" role="alert">Nobody serves pair <strong>sdxl</strong>' in text
        assert "<strong>tiny</strong>" not in text


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r'<li class="tile".*?/jobs/(\d+)"', text)]


def next_part(text: str) -> str | None:
    found = [link["data-more"] for link in Found(text).all("a") if "data-more" in link]
    return found[0] if found else None


def test_a_gallery_is_read_a_part_at_a_time(page: TestClient) -> None:
    text, seen = page.get("/batches/2").text, []
    assert len(numbers(text)) == 60
    while True:
        seen += numbers(text)
        if (more := next_part(text)) is None:
            break
        text = page.get(more).text
    assert seen == list(range(1, 151))


def test_a_gallery_begins_where_it_is_told_to(page: TestClient) -> None:
    assert numbers(page.get("/batches/2?from=&state=").text)[0] == 1
    assert page.get("/batches/2?from=0").status_code == 422
    assert numbers(page.get("/batches/2?from=140").text) == list(range(140, 151))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("state=failed", [149, 150]),
        ("text=CAT 14", [14, *range(140, 150)]),
        ("column=Set&value=a%26b&text=cat 7", [7, *range(70, 80)]),
        ("size=256x256&scheduler=euler&text=cat 150", [150]),
        ("size=512×512", []),
        ("size=256x128", [10]),
        ("scheduler=ddim", [10]),
        ("column=Set&value=c", [10]),
        ('column=a"b&value=c', []),
        ("state=failed&text=cat", [149, 150]),
        ("state=nonsense&text=cat 3&from=30", [*range(30, 40), *range(130, 140)][:10]),
    ],
)
def test_a_gallery_is_filtered(page: TestClient, query: str, expected: list[int]) -> None:
    assert numbers(page.get(f"/batches/2?{query}").text)[: len(expected) or 60] == expected


def test_a_filter_goes_on_in_the_next_part(page: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "_TILES", 6)
    more = next_part(page.get("/batches/2?text=cat 14").text)
    assert more is not None
    assert numbers(page.get(more).text) == [145, 146, 147, 148, 149]


def test_failures_are_grouped_by_reason_with_the_traceback_folded(page: TestClient) -> None:
    text = page.get("/batches/2/failures").text
    assert "<summary><b>2</b> × no such LoRA &lt;script&gt;" in text
    assert '<details class="failure">' in text
    assert "at &lt;script&gt;" in text


def test_a_job_can_be_copied_as_the_row_that_asks_for_it_again(page: TestClient, farm: FarmWithPage) -> None:
    found = re.search(r'<code id="row">(.*?)</code>', page.get("/batches/1/jobs/3").text)
    assert found is not None
    (read,) = read_rows([json.loads(unescape(found[1]))], ReadOptions())
    assert isinstance(read, Row)
    assert read.written.digest == job_of(farm.database, 1, 3).spec.digest


def test_a_job_leads_to_those_beside_it_and_to_none_that_is_not_there(page: TestClient) -> None:
    def led(path: str) -> list[str | None]:
        return [link["href"] for link in Found(page.get(path).text).all("a") if link.get("rel") in ("prev", "next")]

    assert led("/batches/1/jobs/1") == ["/batches/1/jobs/2"]
    assert led(f"/batches/1/jobs/{NUM_DONE}") == [f"/batches/1/jobs/{NUM_DONE - 1}"]


def test_a_job_that_waits_says_why(page: TestClient) -> None:
    assert "Nobody serves pair <strong>sdxl</strong>" in page.get("/batches/3/jobs/1").text
    assert "Nobody serves" not in page.get("/batches/2/jobs/1").text
    page.post("/batches/2/pause")
    assert "This job is pending: paused" in page.get("/batches/2/jobs/1").text
    page.post("/batches/2/resume")


def test_without_scripts_a_part_of_a_page_is_a_page(page: TestClient) -> None:
    assert 'href="/batches/2/plot?whole=true"' in page.get("/batches/2").text
    for part in ("plot", "failures"):
        path = f"/batches/2/{part}"
        assert len(Found(page.get(f"{path}?whole=true").text).all("h1")) == 1
        assert "<html" not in page.get(path).text


def test_the_page_that_is_open_is_marked(page: TestClient) -> None:
    for path in ("/", "/devices", "/try"):
        (here,) = [link for link in Found(page.get(path).text).all("a") if "aria-current" in link]
        assert here["href"] == path


def test_a_job_shows_its_siblings_and_what_it_is_without_the_refiner(page: TestClient) -> None:
    text = page.get("/batches/1/jobs/1").text
    assert numbers(text) == [2, 3, 4]
    assert "/compare?left=1%2F1&amp;right=1%2F3" in text


def test_two_jobs_are_compared_by_what_differs(page: TestClient) -> None:
    text = page.get("/compare?left=1/1&right=1/3").text
    differences = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td>', text)
    assert differences[0] == ("refiner.mode", "ensemble", "off")
    assert all(name.startswith("refiner.") for name, _, _ in differences)


def test_a_grid_lays_jobs_out_by_the_fields_that_vary(page: TestClient) -> None:
    text = page.get("/batches/1/grid?job=1&x=refiner.mode&y=num_inference_steps").text
    assert re.findall(r'<th scope="col">(.*?)</th>', text) == ["ensemble", "off"]
    assert re.findall(r'<th scope="row">(.*?)</th>', text) == ["20", "21"]
    assert re.findall(r"/jobs/(\d+)/thumbnail", text) == ["1", "3", "2", "4"]


def test_a_thumbnail_is_a_picture(page: TestClient) -> None:
    answer = page.get("/batches/1/jobs/1/thumbnail")
    assert answer.headers["content-type"] == "image/webp"
    assert answer.content.startswith(b"RIFF")
    assert page.get("/batches/2/jobs/1/thumbnail").status_code == 404


def test_a_thumbnail_is_made_of_a_recorded_image_alone(page: TestClient, farm: FarmWithPage, tmp_path: Path) -> None:
    job = job_of(farm.database, 1, 2)
    assert job.uri is not None
    stored = Path(job.uri.removeprefix("file://"))
    longer = tmp_path / "/".join(stored.parts[-3:])
    longer.parent.mkdir(parents=True)
    longer.write_bytes(stored.read_bytes() + b"\0")
    outside = tmp_path / "a picture.png"
    outside.write_bytes(stored.read_bytes())
    shutil.rmtree(Path(farm.page.settings.images_url) / "thumbnails", ignore_errors=True)  # of other tests
    for path, said in ((outside, "no image of an image store"), (longer, "no longer the file that was recorded")):
        name_file(farm, job, path.as_uri())
        answer = page.get("/batches/1/jobs/2/thumbnail")
        assert (answer.status_code, said in answer.text) == (503, True)
    name_file(farm, job, job.uri)
    assert page.get("/batches/1/jobs/2/thumbnail").status_code == 200


def name_file(farm: FarmWithPage, job: JobResult, uri: str) -> None:
    """In the ledger, as the job's image."""
    with farm.database.begin() as tx:
        assert tx.execute(update(Image).where(Image.sha256 == job.sha256).values(uri=uri)).rowcount == 1


def test_every_picture_has_a_version_in_its_url_and_stays_in_the_browser(page: TestClient) -> None:
    for path in ("/batches/1", "/batches/1/jobs/1", "/batches/1/grid?job=1", "/compare?left=1/1&right=1/3"):
        pictures = {image["src"] or "" for image in Found(page.get(path).text).all("img")}
        assert len(pictures) > 1
        assert {page.get(url).headers["cache-control"] for url in pictures} == {"private, max-age=86400, immutable"}


def test_a_small_picture_without_a_version_is_asked_after_each_time(page: TestClient) -> None:
    answer = page.get("/batches/1/jobs/1/thumbnail")
    assert answer.headers["cache-control"] == "private, no-cache"
    again = page.get("/batches/1/jobs/1/thumbnail", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_devices_are_shown_with_what_they_said_last(page: TestClient, farm: FarmWithPage) -> None:
    with farm.database.begin() as tx:
        tx.execute(update(Worker).values(state="failed", error=f"no memory {EVIL}"))
    text = page.get("/devices").text
    assert "no memory &lt;script&gt;" in text
    with farm.database.begin() as tx:
        tx.execute(update(Worker).values(state="ready", error=None))


def test_the_last_error_of_a_device_outlives_the_process_that_had_it(page: TestClient, farm: FarmWithPage) -> None:
    for sentence in ("the first", "the second"):
        note_worker(farm.database, new_worker(farm.database), "failed", sentence)
    text = page.get("/devices").text
    assert "out of service" not in text  # its present process is well
    said = re.findall(r'<p class="notice bad"><time datetime="[^"]+">[^<]+ UTC</time>: (.*?)</p>', text)
    assert said == ["the second"]
    with farm.database.begin() as tx:
        tx.execute(delete(Worker).where(Worker.state == "failed"))


def test_a_gpu_is_shown_as_its_driver_says_it_is(page: TestClient, farm: FarmWithPage) -> None:
    reading = {"memory_used_bytes": 3 * 2**30, "memory_total_bytes": 80 * 2**30, "utilisation": 0.5,
               "temperature_celsius": 61, "power_watts": None, "at": "2026-11-22T00:00:00+00:00"}  # fmt: skip
    with farm.database.begin() as tx:
        tx.execute(update(Worker).values(reading=reading))
    text = page.get("/devices").text
    assert "memory 3.0 of 80 GiB" in text
    assert "busy 50 %" in text
    assert "61 °C" in text
    assert " W<" not in text
    with farm.database.begin() as tx:
        tx.execute(update(Worker).values(state="failed"))
    assert "memory" not in page.get("/devices").text  # nobody has said so lately
    with farm.database.begin() as tx:
        tx.execute(update(Worker).values(state="ready"))


def test_a_device_is_drained_and_taken_back(page: TestClient, farm: FarmWithPage) -> None:
    found = re.search(r'name="worker" value="(\w+)"', page.get("/devices").text)
    assert found is not None
    assert page.post("/devices/drain", data={"worker": found[1]}).headers["location"] == "/devices"
    assert '<span class="state">draining</span>' in page.get("/devices").text
    assert page.post("/devices/undrain", data={"worker": "host/cpu"}).status_code == 303
    assert "draining" not in page.get("/devices/table").text
    assert page.post("/devices/drain", data={"worker": "nobody"}).status_code == 404


def test_fifty_open_pages_of_devices_cost_the_ledger_no_more_than_one(
    page: TestClient, farm: FarmWithPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_answers, "_SECONDS", 3600.0)  # else a slow machine takes longer than that
    farm.page.shared.forget("devices")
    with asked_of(farm.page.database) as asked:
        assert page.get("/devices").status_code == 200
        num_of_one = len(asked)
        assert {page.get("/devices/table").status_code for _ in range(50)} == {200}
    assert 0 < num_of_one < len(asked) <= 2 * num_of_one


def test_ten_batches_on_a_page_cost_the_ledger_no_more_than_two(
    page: TestClient, farm: FarmWithPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_answers, "_SECONDS", 3600.0)

    def num_asked(path: str) -> int:
        with asked_of(farm.page.database) as asked:
            assert page.get(path).status_code == 200
        return len(asked)

    farm.page.shared.forget("rates")
    num_before = num_asked("/")
    for _ in range(8):
        new_batch(farm.database, [job_spec(1)])
    farm.page.shared.forget("rates")
    assert num_asked("/") == num_before
    assert num_asked("/") < num_before  # the rates are known
    for batch in batch_summaries(farm.database, 8):
        cancel_batch(farm.database, batch.id)


# --- what changes something ------------------------------------------------------------------------------------------


def test_a_batch_is_paused_resumed_put_first_and_canceled(page: TestClient, farm: FarmWithPage) -> None:
    def done(action: str, **fields: str) -> str:
        answer = page.post(f"/batches/2/{action}", data=fields)
        assert (answer.status_code, answer.headers["location"]) == (303, "/batches/2")
        batch = batch_summary(farm.database, 2)
        return f"{batch.state} {batch.priority}"

    assert done("pause") == "paused 5"
    assert done("resume") == "open 5"
    assert done("reprioritise", priority="9") == "open 9"
    assert page.post("/batches/2/reprioritise", data={"priority": "10"}).status_code == 422
    assert page.post("/batches/2/pause", headers={"origin": "https://evil.example"}).status_code == 403
    assert done("cancel", now="on") == "canceled 9"


def test_who_may_only_read_is_offered_nothing_else(farm: FarmWithPage) -> None:
    with farm.client(farm.token(Scope.READ)) as client:
        text = client.get("/").text
        assert "popover" not in text
        assert client.post("/batches/3/pause").status_code == 403
        assert "Your token is not for submitting" in client.get("/try").text


def test_who_may_submit_is_offered_to_cancel_what_it_submitted(farm: FarmWithPage) -> None:
    with farm.client(farm.token(Scope.READ, Scope.SUBMIT)) as client:
        client.follow_redirects = False
        led = client.post("/try", data={"prompt": "mine", "pair": "tiny"}).headers["location"]
        batch = led.removesuffix("/jobs/1")
        offered = re.findall(r'popovertarget="(\w+)-(\d+)"', client.get("/").text)
        assert {name for name, number in offered} == {"cancel"}
        assert {f"/batches/{number}" for _, number in offered} == {batch}
        assert client.post(f"{batch}/cancel").headers["location"] == batch
        assert client.post("/batches/3/cancel").status_code == 403
        assert client.post(f"{batch}/pause").status_code == 403


def test_a_stranger_is_asked_for_a_token_and_led_on(farm: FarmWithPage) -> None:
    with farm.client() as client:
        client.follow_redirects = False
        asked = client.get("/batches/1?state=done")
        assert asked.headers["location"] == "/login?next=%2Fbatches%2F1%3Fstate%3Ddone"
        wrong = client.post("/login", data={"token": "nst_wrong", "next": "/batches/1"})
        assert wrong.status_code == 401
        assert "no valid token" in wrong.text
        led = client.post("/login", data={"token": farm.token(), "next": "//evil.example"})
        assert (led.status_code, led.headers["location"]) == (303, "/")
        assert client.get("/batches/1").status_code == 200
        client.post("/logout")
        assert client.get("/batches/1").status_code == 303


@pytest.mark.parametrize(
    "given",
    ["https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil", "javascript:1", "", "/a\nb", "/a\\b"],
)
def test_nobody_is_led_away_from_the_page(given: str) -> None:
    assert own_path(given) == "/"


def test_a_prompt_is_tried_before_everything_else(page: TestClient, farm: FarmWithPage) -> None:
    fields = {"prompt": "a lighthouse", "width": "64", "height": "64", "num_inference_steps": "4", "seed": "7",
              "scheduler": "ddim", "pair": "tiny", "negative_prompt": ""}  # fmt: skip
    led = page.post("/try", data=fields)
    assert led.status_code == 303, led.text
    found = re.fullmatch(r"/batches/(\d+)/jobs/1", led.headers["location"])
    assert found is not None
    batch = batch_summary(farm.database, int(found[1]))
    assert (batch.name, batch.priority, batch.num_jobs) == ("try: a lighthouse", 9, 1)
    text = page.get(led.headers["location"]).text
    assert f'data-awaits="{batch.id}"' in text
    assert "&#34;mode&#34;: &#34;off&#34;" in text  # the box was not ticked


def test_what_a_prompt_may_have_and_a_name_may_not_keeps_it_from_nothing(page: TestClient) -> None:
    answer = page.post("/try", data={"prompt": "a\x07cat\x1b at\tnight"}, follow_redirects=False)
    assert answer.status_code == 303
    assert "try: a cat at night" in page.get(answer.headers["location"].removesuffix("/jobs/1")).text


def test_a_prompt_is_tried_no_higher_than_the_token_may(farm: FarmWithPage) -> None:
    with farm.client(farm.token(Scope.SUBMIT, max_priority=3)) as client:
        client.follow_redirects = False
        found = re.fullmatch(r"/batches/(\d+)/jobs/1", client.post("/try", data={"prompt": "low"}).headers["location"])
    assert found is not None
    assert batch_summary(farm.database, int(found[1])).priority == 3


def test_a_prompt_that_cannot_be_rendered_comes_back_with_the_reason(page: TestClient) -> None:
    answer = page.post("/try", data={"prompt": EVIL, "width": "65", "scheduler": "euler", "refiner": "on"})
    assert answer.status_code == 422
    assert "divisible by 8" in answer.text
    assert 'value="65"' in answer.text
    assert page.post("/try", content=b"\xff\xfe", headers={"content-type": "x"}).status_code == 422


@pytest.mark.parametrize("name", ["text", "column", "value", "size", "state", "scheduler"])
def test_what_no_ledger_can_be_asked_for_is_refused_before_it_is(page: TestClient, name: str) -> None:
    assert page.get("/batches/1", params={"column": "x", name: "a\0b"}).status_code == 422


def test_a_form_with_what_no_browser_sends_is_none(page: TestClient) -> None:
    for path in ("/devices/drain", "/devices/undrain", "/try", "/login"):
        answer = page.post(path, data={"worker": "\0", "prompt": "\0"})
        assert (answer.status_code, "this is no form of this page" in answer.text) == (422, True)


class Form(HTMLParser):
    """What a browser sends of the form for a prompt, where nobody changes it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self._open = self._option = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        name, is_box = given.get("name") or "", given.get("type") == "checkbox"
        if tag == "input" and (not is_box or "checked" in given):
            self.fields[name] = "on" if is_box else given.get("value") or ""
        if tag in ("textarea", "select"):
            self._open = name
        self._option = self._open if tag == "option" and "selected" in given else ""

    def handle_endtag(self, tag: str) -> None:
        self._open = "" if tag in ("textarea", "select") else self._open
        self._option = ""

    def handle_data(self, data: str) -> None:
        if self._option:
            self.fields[self._option] = data
        elif self._open and self.lasttag == "textarea":
            self.fields[self._open] = data.removeprefix("\n").replace("\n", "\r\n")


def tried(page: TestClient, fields: dict[str, str]) -> tuple[int, int]:
    """Batch and number of the job that the form leads to."""
    led = page.post("/try", data=fields)
    assert led.status_code == 303, led.text
    found = re.fullmatch(r"/batches/(\d+)/jobs/(\d+)", led.headers["location"])
    assert found is not None
    return int(found[1]), int(found[2])


CARRIED = {
    "prompt": "\n(two lines)1.2\nof \"it\"", "negative_prompt": "", "prompt_syntax": "compel", "seed": 2**64 - 1,
    "width": 64, "height": 64, "guidance_scale": 7.123456789, "scheduler": "DPM++ 2M Karras", "refiner": {"start": 0.9},
    "output": {"format": "webp", "quality": 80}, "original_size": [512, 512],
}  # fmt: skip


def test_rendering_again_asks_for_the_very_image_and_says_what_is_carried_over(
    page: TestClient, farm: FarmWithPage
) -> None:
    lora = lora_file("unet.x.lora_A.weight")
    lora_path = Path(farm.page.settings.lora_folder) / "pixels.safetensors"
    lora_path.parent.mkdir(parents=True, exist_ok=True)
    lora_path.write_bytes(lora)
    stored = job_of(farm.database, 1, 1).sha256
    inputs = {"loras": [{"name": "pixels", "weight": 0.5, "sha256": hashlib.sha256(lora).hexdigest()}],
              "init_image": stored, "strength": 0.3}  # fmt: skip
    batch_id = done_batch(farm.database, farm.page.settings.images_url, [CARRIED, {**CARRIED, **inputs}])
    text = page.get(f"/try?from={batch_id}/1").text
    for carried in ("prompt_syntax <small>compel", "scheduler_options <small>{&quot;use_karras", "refiner <small>"):
        assert carried in text
    for number in (1, 2):
        again = job_of(farm.database, *tried(page, Form(page.get(f"/try?from={batch_id}/{number}").text).fields))
        assert again.spec.digest == job_of(farm.database, batch_id, number).spec.digest
    plain = {name: value for name, value in Form(text).fields.items() if not name.startswith("keep.")}
    changed = job_of(farm.database, *tried(page, {**plain, "prompt": "a dog"})).spec
    assert (changed.prompt, changed.negative_prompt, changed.prompt_syntax) == ("a dog", None, "plain")


def test_a_form_that_is_refused_comes_back_as_it_was_sent(page: TestClient) -> None:
    fields = Form(page.get("/try?from=1/1").text).fields
    del fields["refiner"]
    back = page.post("/try", data={**fields, "width": "65"})
    assert back.status_code == 422
    assert Form(back.text).fields == {**fields, "width": "65"}


def test_who_may_not_read_carries_nothing_over(farm: FarmWithPage) -> None:
    with farm.client(farm.token(Scope.SUBMIT)) as client:
        client.follow_redirects = False
        assert client.post("/try", data={"prompt": "x"}).status_code == 303
        assert client.post("/try", data={"prompt": "x", "from": "1/1"}).status_code == 403


def test_the_form_has_a_pair_that_is_served_and_of_a_job_its_batchs(page: TestClient, farm: FarmWithPage) -> None:
    def chosen(path: str) -> str:
        return Form(page.get(path).text).fields["pair"]

    assert chosen("/try") == farm.page.settings.pair == "tiny"
    with farm.database.begin() as tx:
        tx.execute(update(Worker).values(pair="sdxl"))
    assert (chosen("/try"), chosen("/try?from=1/1")) == ("sdxl", "tiny")
    with farm.database.begin() as tx:
        tx.execute(update(Worker).values(pair="tiny"))


def test_lines_of_a_prompt_end_as_in_a_manifest(page: TestClient, farm: FarmWithPage) -> None:
    job = job_of(farm.database, *tried(page, {"prompt": "one\r\ntwo", "negative_prompt": "a\r\nb"}))
    assert (job.spec.prompt, job.spec.negative_prompt) == ("one\ntwo", "a\nb")


def test_the_form_takes_as_much_as_its_fields_say(page: TestClient) -> None:
    longest = "字" * 20_000
    assert page.post("/try", data={"prompt": longest, "negative_prompt": longest}).status_code == 303
    assert page.post("/try", data={"prompt": longest * 3}).status_code == 413
    assert page.post("/login", data={"token": longest}).status_code == 413


def test_the_pages_files_are_in_the_package() -> None:
    """An installation that is no clone has them, too."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert 'producer = ["web/templates/*.html", "web/static/*"]' in text
