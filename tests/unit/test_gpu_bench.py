"""The GPU's benchmark: a row counts only where its pictures are what it states, and what was not measured is said."""

import argparse
import copy
import multiprocessing
import sys
import time
from dataclasses import replace
from importlib.abc import MetaPathFinder

import pytest

from benchmarks import device_bench
from benchmarks.device_bench import Bench, Sizes, _require_files
from benchmarks.figures import Figures
from benchmarks.option_rows import NOT_ON_A_CPU, ROWS, SCRIPT, Row, rows_for, rows_named
from benchmarks.tried_rows import TriedRows

FIGURES = Figures(2.0, 1.0, difference=0.0)


class PlayedBench:
    """Rows by name: figures, an error, or a text that refuses."""

    def __init__(self, **answers):
        self.answers = answers

    def refusal(self, row):
        return self.answers[row.name] if isinstance(self.answers[row.name], str) else ""

    def measured(self, row):
        if isinstance(self.answers[row.name], Exception):
            raise self.answers[row.name]
        return self.answers[row.name]


def tried(seconds=60.0, **answers):
    rows = TriedRows(PlayedBench(**answers), time.monotonic() + seconds, 1.0, lambda _, figures: vars(figures))
    rows.run([Row(name) for name in answers])
    return rows


def test_what_a_device_cannot_do_is_no_failure_and_an_error_is_one_whatever_its_class():
    assert tried(one=FIGURES, other="no such kernel here").exit_code() == 0
    failed = tried(one=FIGURES, other=ValueError("images of no size"))
    assert failed.found["other"] == {"failure": "ValueError: images of no size"}
    assert failed.exit_code() == "failed, or other pictures than stated: other"
    apart = tried(one=replace(FIGURES, difference=2.0), other=replace(FIGURES, difference=float("nan")))
    assert apart.exit_code() == "failed, or other pictures than stated: one, other"


def test_rows_that_were_left_out_are_named_and_a_run_that_measured_nothing_fails(capsys):
    rows = tried(seconds=10.0, one=FIGURES, other=FIGURES)
    assert rows.left_out == ["one", "other"]
    assert rows.exit_code() == "nothing was measured"
    assert 'left out for lack of time: one,other; measured by a run of their own, --rows "one,other"' in (
        capsys.readouterr().out
    )
    assert tried(one="not on this device").exit_code() == "nothing was measured"


def test_rows_are_chosen_by_name_and_a_name_that_there_is_not_is_refused():
    assert rows_named("compile full, exact") == [row for row in ROWS if row.name in ("exact", "compile full")]
    with pytest.raises(argparse.ArgumentTypeError, match="there is no 'exactly'; the rows are diffusers as"):
        rows_named("exact,exactly")
    assert rows_for("cuda") == list(ROWS)
    assert {row.name for row in rows_for("cuda")} - {row.name for row in rows_for("cpu")} == NOT_ON_A_CPU


def test_the_goals_rows_come_first_and_within_the_time_that_a_run_has():
    goals = ["diffusers as documented", "exact", "exact end to end", "fp8 dynamic all"]
    assert [row.name for row in ROWS[:4]] == goals
    assert sum(row.seconds for row in ROWS[:4]) < 520 / 2  # the pair is made and loaded before them


@pytest.fixture
def bench(smallest, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(device_bench, "_ALONE", (1, 0))  # whole runs, at once over
    monkeypatch.setattr(device_bench, "_REFINED", (4, 1))
    return Bench(smallest, Sizes(64, 1))


def test_the_script_of_the_documentation_makes_our_pictures(bench):
    found = bench.measured(SCRIPT)
    assert found.difference < 0.01  # without the refiner's negative prompt it is 0.3
    assert min(found.images_per_s_20, found.images_per_s_40) > 0


def test_whole_runs_store_a_file_for_each_picture_and_change_no_pixel(bench, tmp_path):
    found = bench.measured(Row("exact end to end", tolerance=0.0, end_to_end=True))
    assert found.difference == 0
    (tmp_path / "one.png").touch()
    with pytest.raises(RuntimeError, match="1 files of 2 images were stored"):
        _require_files(tmp_path, 2)


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
def test_broken_pictures_are_no_pictures(bench, smallest):
    base = copy.copy(smallest.base)
    base.vae = copy.deepcopy(smallest.base.vae)
    base.vae.post_quant_conv.weight.data.fill_(float("nan"))
    broken = Bench(replace(smallest, base=base), Sizes(64, 1))
    for row in (Row("exact"), SCRIPT):
        with pytest.raises(RuntimeError, match=r"1 of 1 pictures are broken: the picture is black|picture is black"):
            broken.measured(row)


def test_a_device_that_lacks_what_a_row_asks_for_is_told_from_a_row_that_fails(bench):
    assert "only GPUs have them" in bench.refusal(Row("graphs", {"cuda_graphs": True}))
    assert 'this device has no "cudnn"' in bench.refusal(Row("cudnn", {"attention": "cudnn"}))
    assert bench.refusal(Row("exact")) == ""
    with pytest.raises(ValueError, match="turbo"):
        bench.refusal(Row("turbo", {"turbo": True}))


class _NoDisplayLibrary(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file")


def _import_anew():
    for name in [
        name for name in sys.modules if name.startswith(("benchmarks", "cv2", "farm.water", "worker.image_f"))
    ]:
        del sys.modules[name]
    sys.meta_path.insert(0, _NoDisplayLibrary())
    import benchmarks.gpu

    assert benchmarks.gpu
    assert not hasattr(sys.modules["worker.image_files.png"].cv2, "imdecode")


def test_an_opencv_that_does_not_load_is_not_asked():
    forked = multiprocessing.get_context("fork").Process(target=_import_anew)
    forked.start()
    forked.join()
    assert forked.exitcode == 0
