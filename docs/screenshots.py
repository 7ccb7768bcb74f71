"""Makes the pictures of docs/page.md: `make screenshots`. A farm renders with the tiny pair, and Chromium looks at it.

Takes two or three minutes. The farm lies in a temporary folder and is gone at the end.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from PIL import Image
from playwright.sync_api import Browser, Page

from producer import Client
from schemas.settings import Settings
from tests.acceptance.browser import chromium, watched_page

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / "docs"
MAX_BYTES: Final = 200_000
WAIT_SECONDS: Final = 600
DESK: Final = {"viewport": {"width": 1040, "height": 780}, "timezone_id": "Europe/Berlin", "locale": "en-GB"}
PHONE: Final = {**DESK, "viewport": {"width": 390, "height": 800}}
DARK: Final = {"color_scheme": "dark"}
#: two prompts, with and without the refiner, at three guidance scales
FOXES: Final = ({"prompt": "a red fox asleep in the snow", "seed": 7}, {"prompt": "a lighthouse in a storm", "seed": 7})
SWEEP: Final = ("refiner.mode=ensemble,off", "guidance_scale=3:7:2")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        settings = Settings(home=Path(folder), pair="tiny")
        with running_farm(settings) as url:
            render(settings)
            for name, (path, options) in pictures().items():
                take(browser, url + path, FOLDER / f"page-{name}.png", options)


@contextmanager
def running_farm(settings: Settings) -> Iterator[str]:
    """`nightshift up`; gives the page's address."""
    own = {"NIGHTSHIFT_HOME": str(settings.home), "NIGHTSHIFT_PAIR": "tiny", "NIGHTSHIFT_WEB_PORT": "0",
           "NIGHTSHIFT_DEVICES": "cpu", "OMP_NUM_THREADS": "1"}  # fmt: skip
    others = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")}
    farm = subprocess.Popen([sys.executable, "-m", "nightshift", "up"], env={**others, **own}, cwd=ROOT)
    try:
        yield page_address(settings.log_folder / "web.log")
    finally:
        farm.send_signal(signal.SIGINT)
        farm.wait(60)


def page_address(log: Path) -> str:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        found = re.search(r"the web page is at (http://\S+);", log.read_text()) if log.exists() else None
        if found is not None:
            return found[1]
        time.sleep(0.2)
    raise TimeoutError("the web page did not begin")


def render(settings: Settings) -> None:
    """A day of a farm: two batches that are done, one that renders, one for the night, and one that nobody serves."""
    size = {"width": 256, "height": 256, "num_inference_steps": 12}
    with Client(settings) as client:
        demo = client.submit(ROOT / "examples" / "demo.tsv", name="postcards")
        foxes = client.submit(FOXES, name="foxes, with and without the refiner", sweep=SWEEP, defaults=size)
        client.wait(demo, WAIT_SECONDS)
        client.wait(foxes, WAIT_SECONDS)
        row = {"prompt": "a {red|blue|green} {fox|owl|cat} __place__"}
        client.submit([row], name="book covers", templates="sample", count=3_000, window=later_tonight(),
                      wildcards={"place": ["by the sea", "in the snow"]})  # fmt: skip
        client.submit([{"prompt": "a poster of a jazz night"}], name="posters", pair="sdxl", count=40, priority=8)
        running = client.submit([row], name="thumbnails for the shop", templates="sample", count=2_000, priority=6,
                                wildcards={"place": ["at noon", "at night"]},
                                defaults={"width": 64, "height": 64, "num_inference_steps": 4})  # fmt: skip
        while client.status(running).num_done < 100:
            time.sleep(0.5)


def later_tonight() -> str:
    """A window that is closed just now."""
    opens, closes = (datetime.now(UTC) + timedelta(hours=hours) for hours in (3, 11))
    return f"{opens:%H}:00-{closes:%H}:00 UTC"


def pictures() -> Mapping[str, tuple[str, dict[str, Any]]]:
    """name → the page, and the browser that looks at it."""
    return {
        "batches": ("/", DESK),
        "batch": ("/batches/1", DESK | DARK),
        "job": ("/batches/2/jobs/1", {**DESK, "viewport": {"width": 1040, "height": 1000}}),
        "compare": ("/compare?left=2/1&right=2/4", {**DESK, "viewport": {"width": 1040, "height": 600}}),
        "grid": ("/batches/2/grid?job=1", DESK | DARK),
        "devices": ("/devices", {**DESK, "viewport": {"width": 1040, "height": 420}}),
        "try": ("/try?from=2/1", {**DESK, "viewport": {"width": 1040, "height": 600}}),
        "phone": ("/batches/1", PHONE),
    }


def take(browser: Browser, url: str, path: Path, options: dict[str, Any]) -> None:
    with watched_page(browser, url, **options) as page:
        page.goto(url)
        if path.stem == "page-batches":
            page.locator("[data-field=rate]:visible").first.wait_for()
        wait_for_images(page)
        page.wait_for_timeout(500)  # for the fonts, and the parts that come later
        page.screenshot(path=path)
    shrink(path)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB", file=sys.stderr)


def wait_for_images(page: Page) -> None:
    page.wait_for_function("() => [...document.images].every(i => i.complete || i.getBoundingClientRect().top > 900)")


def shrink(path: Path) -> None:
    """Fewer colours: the tiny pair's pictures are noise, which no PNG makes small."""
    with Image.open(path) as image:
        whole = image.convert("RGB")
    for num_colors in (256, 128, 96, 64, 48, 32):
        whole.quantize(num_colors, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size < MAX_BYTES:
            return
    raise ValueError(f"{path} has {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
