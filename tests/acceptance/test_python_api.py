"""The Python that docs/bulk.md shows, run as it stands there, against a farm that renders."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import PIL.Image

from tests.acceptance.conftest import WAIT_SECONDS, Farm

DOCS = (Path(__file__).parents[2] / "docs" / "bulk.md").read_text()


def blocks() -> list[str]:
    section = DOCS.split("## From Python\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.+?)```", section, re.S)


def ran(farm: Farm, code: str, folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env={**farm.environment, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_python_of_the_docs_does_what_it_says(warm_farm: Farm, tmp_path: Path) -> None:
    submitting, looking, refusing = blocks()
    dispatcher = warm_farm.start("dispatcher")
    try:
        [accepted] = ran(warm_farm, submitting, tmp_path)
        batch_id, num_jobs = accepted.split()
        assert (int(batch_id), num_jobs) == (warm_farm.newest_batch(), "2")
        pictures = sorted(tmp_path.glob("*.png"))
        assert [path.name.split("-")[0] for path in pictures] == ["1", "2"]
        assert pictures[0].name == "1-7.png"
        for path in pictures:
            with PIL.Image.open(path) as image:
                assert image.size == (64, 64)
        counts, *jobs = ran(warm_farm, looking, tmp_path)
        assert counts == "2 of 2"
        assert [job.split()[0] for job in jobs] == [f"{batch_id}/1", f"{batch_id}/2"]
        assert "{'category': 'sea'}" in jobs[0]
        assert 'rows:2: column "width": "1001": is not divisible by 8' in "\n".join(ran(warm_farm, refusing, tmp_path))
    finally:
        dispatcher.send_signal(signal.SIGTERM)
        assert dispatcher.wait(60) == 0
