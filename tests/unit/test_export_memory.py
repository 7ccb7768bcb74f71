"""An export's memory does not grow with its images."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.finished_farm import finished_farm

ROOT = Path(__file__).parents[2]
NUM_ROWS = 3_000
#: What 2,700 rows more may add: allocators keep some. Rows kept in memory would add 10 kB each.
ALLOWED_BYTES = 8 << 20
CODE = """
import sys
from nightshift import app
from tests.peak_memory import peak_bytes
try:
    app(sys.argv[1:])
finally:
    print(peak_bytes(), file=sys.stderr)
"""


def peak(folder: Path, num_images: int) -> int:
    home = finished_farm(folder, num_images, 1000, "x" * 2000).home
    command = [sys.executable, "-c", CODE, "export", "1", "--format", "webdataset", "--to", str(folder / "set")]
    variables = {**os.environ, "NIGHTSHIFT_HOME": str(home), "PYTHONPATH": str(ROOT)}
    answer = subprocess.run([*command, "--shard-size", "200"], env=variables, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return int(answer.stderr.split()[-1])


def test_ten_times_as_many_images_take_no_more_memory(tmp_path: Path) -> None:
    few, many = (peak(tmp_path / str(num), num) for num in (NUM_ROWS // 10, NUM_ROWS))
    assert many - few < ALLOWED_BYTES
