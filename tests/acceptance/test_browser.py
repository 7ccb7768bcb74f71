"""The web page in a real browser, over a real farm."""

import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect

from farm import batches, ledger
from farm.database import Database
from farm.retries import Failure
from farm.workers import note_worker
from tests.acceptance.browser import chromium, watched_page
from tests.acceptance.conftest import SMALL, Farm, wait_until
from tests.integration.ledger_farm import claimed_pack, new_worker, open_batch

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def url(shared_farm: Farm, browser: Browser) -> str:
    """Of a real `nightshift web`."""
    server = shared_farm.start("web", "--port", "0")
    said = r"the web page is at (http://\S+);"
    wait_until(lambda: server.poll() is not None or re.search(said, shared_farm.log("web")) is not None)
    found = re.search(said, shared_farm.log("web"))
    assert found is not None, shared_farm.log("web")
    return found[1]


@pytest.fixture
def page(browser: Browser, url: str, warm_farm: Farm) -> Iterator[Page]:
    with watched_page(browser, url) as page:
        yield page


def try_prompt(page: Page, **fields: str) -> str:
    """Fills the form that is open, sends it, and waits for the image. Returns the job's name."""
    for label, value in fields.items():
        page.get_by_label(label.capitalize()).first.fill(value)
    page.get_by_role("button", name="Render").click()
    page.wait_for_url("**/batches/*/jobs/1")
    expect(page.locator(".picture img")).to_be_visible()
    assert page.locator(".picture img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
    return page.locator("h1").inner_text().removeprefix("Job ")


SEEN = {"prompt": "a lighthouse <b>", "width": "64", "height": "64", "steps": "4", "seed": "7"}


def test_a_prompt_is_tried_seen_and_compared_with_and_without_the_refiner(page: Page) -> None:
    page.goto("/")
    page.get_by_label("Pages").get_by_role("link", name="Try a prompt").click()
    with_refiner = try_prompt(page, **SEEN)
    expect(page.locator(".prompt")).to_have_text("a lighthouse <b>")
    page.get_by_role("link", name="Render again with …").click()
    page.get_by_label("Refiner").uncheck()
    without_refiner = try_prompt(page)
    page.get_by_label("Compare with job").fill(with_refiner)
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("table")).to_contain_text("refiner.mode")
    assert page.title().startswith(f"{without_refiner} and {with_refiner}")
    over = page.locator(".slider .over")
    shown = "image => getComputedStyle(image).clipPath"
    assert over.evaluate(shown) == "inset(0px 0px 0px 50%)"
    split = page.get_by_label("Where the left image ends")
    split.focus()
    page.keyboard.press("End")
    assert over.evaluate(shown) == "inset(0px 0px 0px 100%)"


def test_a_batch_is_followed_and_canceled_while_the_page_is_open(page: Page, warm_farm: Farm, manifest: Path) -> None:
    page.goto("/")
    expect(page.locator("h1")).to_have_text("Batches")
    batch_id = warm_farm.answer("submit", "--again", manifest, *SMALL)["batch_id"]
    card = page.locator(f'[data-batch="{batch_id}"]')
    expect(card).to_contain_text("12")  # it came by itself
    assert warm_farm.run("pause", str(batch_id)).returncode == 0
    expect(card.locator(".state")).to_have_text(re.compile("paused|ended"))
    card.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_label("Stop what renders now, too").locator("visible=true").check()
    page.get_by_role("button", name="Cancel it").locator("visible=true").click()
    page.wait_for_url(f"**/batches/{batch_id}")
    expect(page.locator(".state").first).to_have_text(re.compile("canceled|ended"))


def fail_one(database: Database, batch_id: int) -> None:
    pack = claimed_pack(database, batch_id, new_worker(database), 1)
    ledger.fail_jobs(database, pack, [job.id for job in pack.jobs], Failure("render", "is black", retryable=False), 3)


def test_who_waits_for_a_job_sees_its_end_before_that_of_its_batch(page: Page, warm_farm: Farm, manifest: Path) -> None:
    later = ("--not-before", "2099-01-01T00:00Z")
    batch_id = warm_farm.answer("submit", "--again", *later, manifest, *SMALL)["batch_id"]
    batch = page.context.new_page()
    batch.goto(f"/batches/{batch_id}")
    page.goto(f"/batches/{batch_id}/jobs/1")
    expect(page.locator("[data-awaits]")).to_contain_text("This job is pending: begins")
    with closing(Database(warm_farm.environment["NIGHTSHIFT_DATABASE_URL"])) as database:
        fail_one(database, batch_id)
    expect(page.locator(".notice.bad")).to_contain_text("is black")
    expect(batch.locator("[data-news]")).to_contain_text("1 more job has ended.")


def test_what_ended_before_a_page_began_to_listen_is_shown(page: Page, warm_farm: Farm, manifest: Path) -> None:
    """After it was written, while a phone was locked, between two streams."""
    later = ("--not-before", "2099-01-01T00:00Z")
    batch_id = warm_farm.answer("submit", "--again", *later, manifest, *SMALL)["batch_id"]
    streams: list[Route] = []
    page.context.route("**/api/v1/events", lambda stream: streams.append(stream))  # noqa: PLW0108  no method of a list
    overview = page.context.new_page()
    overview.goto("/")
    page.goto(f"/batches/{batch_id}/jobs/1")
    expect(page.locator("[data-awaits]")).to_be_visible()
    with closing(Database(warm_farm.environment["NIGHTSHIFT_DATABASE_URL"])) as database:
        fail_one(database, batch_id)
        missed = batches.create_batch(database, "missed", "tiny", 5)
        batches.open_batch(database, missed)
        batches.cancel_batch(database, batch_id)
        ledger.sweep_canceled(database, batch_id)
    for stream in streams:
        stream.continue_()
    expect(page.locator(".notice.bad")).to_contain_text("is black")
    expect(overview.locator(f'[data-batch="{batch_id}"]')).to_contain_text("1 failed")
    expect(overview.locator(f'[data-batch="{batch_id}"] .state')).to_have_text("ended")
    expect(overview.locator(f'[data-batch="{missed}"] .state')).to_have_text("ended")


def see(tab: Page, *, hidden: bool) -> None:
    """As a browser says it: without a screen none of its tabs is hidden."""
    tab.evaluate(
        """hidden => {
            Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def test_eight_tabs_of_one_browser_all_open_for_those_that_nobody_sees_do_not_listen(page: Page) -> None:
    """It opens six connections to one server, and each stream keeps one."""
    for tab in (page, *(page.context.new_page() for _ in range(7))):
        tab.goto("/devices")
        see(tab, hidden=True)
    with page.expect_request("**/api/v1/events"):
        see(page, hidden=False)


def test_a_picture_that_did_not_come_is_asked_for_again(page: Page) -> None:
    answers = iter([{"content_type": "image/png", "body": ""}])

    def answer(route: Route) -> None:
        route.fulfill(**torn) if (torn := next(answers, None)) else route.continue_()  # type: ignore[arg-type]

    page.route("**/icon.svg?picture", answer)
    page.goto("/login")
    page.evaluate("""() => {
        const picture = new Image();
        picture.id = "picture";
        picture.src = "/static/icon.svg?picture";
        document.body.append(picture);
    }""")
    page.wait_for_function("() => document.getElementById('picture').naturalWidth > 0")


def test_a_gallery_goes_on_as_it_is_scrolled(page: Page, warm_farm: Farm, tmp_path: Path) -> None:
    manifest = tmp_path / "many.txt"
    manifest.write_text("\n".join(f"cat {number}" for number in range(150)))
    batch_id = warm_farm.answer("submit", "--not-before", "2099-01-01T00:00Z", manifest)["batch_id"]
    refused = iter([{"status": 429, "headers": {"Retry-After": "1"}}])

    def answer(route: Route) -> None:
        route.fulfill(**refusal) if (refusal := next(refused, None)) else route.continue_()  # type: ignore[arg-type]

    page = page.context.new_page()  # it may have errors: what was refused is told as one
    page.route("**/tiles?*", answer)
    page.goto(f"/batches/{batch_id}")
    tiles = page.locator(".tile")
    assert tiles.count() >= 60
    deadline = time.monotonic() + 60
    while tiles.count() < 150 and time.monotonic() < deadline:
        page.mouse.wheel(0, 4_000)
        page.wait_for_timeout(50)
    assert tiles.count() == 150
    page.get_by_text("Look for some of them").click()
    page.get_by_label("Prompt has").fill("cat 14")
    page.get_by_role("button", name="Filter").click()
    expect(tiles).to_have_count(11)


def test_a_gallery_in_which_nothing_is_found_goes_on_when_it_is_told_to(
    page: Page, warm_farm: Farm, tmp_path: Path
) -> None:
    """Each part may be one of hundreds."""
    manifest = tmp_path / "some.txt"
    manifest.write_text("\n".join(f"dog {number}" for number in range(61)))
    batch_id = warm_farm.answer("submit", "--not-before", "2099-01-01T00:00Z", manifest)["batch_id"]
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        path = f"/batches/{batch_id}/tiles?from={20_000 * len(asked)}"
        route.fulfill(body=f'<p><a data-more="{path}" href="/nowhere">Look further {len(asked)}</a></p>')

    page.route("**/tiles?*", answer)
    page.goto(f"/batches/{batch_id}")
    page.get_by_role("link", name="More").scroll_into_view_if_needed()
    further = page.get_by_role("link", name="Look further 1")
    expect(further).to_be_visible()
    page.wait_for_timeout(300)
    assert len(asked) == 1
    further.click()
    expect(page.get_by_role("link", name="Look further 2")).to_be_focused()
    assert len(asked) == 2


def test_a_page_that_was_sent_away_listens_again_and_says_that_redis_is_silent(browser: Browser, url: str) -> None:
    silent = 'event: redis\ndata: {"answers": false}\n\n'
    answers = iter([{"status": 204}])  # at which a browser asks no more

    def answer(route: Route) -> None:
        route.fulfill(**next(answers, {"content_type": "text/event-stream", "body": silent}))  # type: ignore[arg-type]

    with watched_page(browser, url) as page:
        page.clock.install()
        page.route("**/api/v1/events", answer)
        with page.expect_response("**/api/v1/events"):
            page.goto("/")
        expect(page.get_by_text("Redis does not answer")).to_be_hidden()
        page.clock.run_for(10_000)
        expect(page.get_by_text("Redis does not answer")).to_be_visible()


def test_at_night_the_page_is_dark(browser: Browser, url: str) -> None:
    brightness = "() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]"
    with watched_page(browser, url, color_scheme="dark") as dark, watched_page(browser, url) as light:
        for page in (dark, light):
            page.goto("/")
        assert dark.evaluate(brightness) < 50
        assert light.evaluate(brightness) > 200


def test_a_phone_shows_every_page_without_scrolling_sideways(browser: Browser, url: str) -> None:
    with watched_page(browser, url, viewport={"width": 360, "height": 740}) as page:
        for path in ("/", "/batches/1", "/batches/1/jobs/1", "/devices", "/try"):
            page.goto(path)
            width = page.evaluate("() => document.documentElement.scrollWidth")
            assert width <= 360, path


@pytest.fixture(scope="module")
def failed_batch(shared_farm: Farm) -> int:
    """Of a pair that nobody serves, so nobody comes first."""
    with closing(Database(shared_farm.environment["NIGHTSHIFT_DATABASE_URL"])) as database:
        batch_id = open_batch(database, 1, pair="sdxl")
        pack = claimed_pack(database, batch_id, new_worker(database, "sdxl"), 1)
        failure = Failure("render", "is black", retryable=False, traceback="at night")
        ledger.fail_jobs(database, pack, [pack.jobs[0].id], failure, 1)
        note_worker(database, pack.worker_id, "stopped")
    return batch_id


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Browser, url: str, warm_farm: Farm, failed_batch: int, scheme: str) -> None:
    """Labels, roles, contrast, headings: what axe-core can see."""

    def found_nothing(page: Page) -> None:
        found = Axe().run(page)
        assert found.violations_count == 0, f"{page.url}: {found.generate_report()}"

    with watched_page(browser, url, color_scheme=scheme) as page:
        page.goto("/try")
        job = try_prompt(page, **SEEN)
        batch = f"/batches/{job.partition('/')[0]}"
        of_job = (f"{batch}/jobs/1", f"{batch}/grid?job=1", f"/compare?left={job}&right={job}", f"/try?from={job}")
        for path in ("/", batch, *of_job, "/devices", "/login"):
            page.goto(path)
            found_nothing(page)
        page.goto(f"/batches/{failed_batch}")
        page.locator(".failure summary").click()
        expect(page.get_by_text("at night")).to_be_visible()
        found_nothing(page)
        page.get_by_role("button", name="Retry failed").click()
        expect(page.get_by_role("button", name="Retry them")).to_be_visible()
        found_nothing(page)


def test_everything_is_reached_by_the_keyboard(browser: Browser, url: str) -> None:
    with watched_page(browser, url) as page:
        page.goto("/try")
        page.keyboard.press("Tab")
        expect(page.locator(":focus")).to_have_text("Skip to the content")
        reached = set()
        for _ in range(25):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("() => document.activeElement.name || document.activeElement.textContent"))
        assert {"prompt", "negative_prompt", "width", "seed", "scheduler", "refiner", "Render"} <= reached
