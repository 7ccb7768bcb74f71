"""Compiled shapes: nobody waits for them, and an image's record says truly whether it was rendered with one."""

import os
import shutil
import subprocess
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from schemas.device_options import DeviceOptions
from schemas.pair import ModelPair
from schemas.records import ClaimedJob
from schemas.spec import JobSpec
from worker.compiled.compilation import MAX_SHAPES, Compilation, compilation
from worker.compiled.compiled_shapes import CompiledShapes, compiled_shapes
from worker.compiled.compiling import compiled_code_folder, keep_compiled_code
from worker.compiled.unet_shapes import UnetShape, unet_shapes
from worker.device_process.budget import StepBudget
from worker.device_process.device_thread import DeviceThread
from worker.device_process.preparing import Pass, PreparedJob
from worker.device_process.watchdog import Watchdog
from worker.loading.pipelines import _require_options, load_pair
from worker.passes.embedding import num_chunks
from worker.passes.inputs import NO_INPUTS
from worker.passes.memory_probe import ProcessMemory
from worker.passes.pass_limits import PassLimits
from worker.passes.pass_measuring import PassMeasurer
from worker.passes.rendering import render

SHAPE = UnetShape("base", 2, 64, 64, 1)
OTHER = UnetShape("refiner", 2, 64, 64, 1)


class Starter:
    """Starts a command in the place of the compile process, and keeps what was asked for."""

    def __init__(self, *command):
        self.command, self.asked, self.processes = command, [], []

    def __call__(self, shapes):
        self.asked.append(list(shapes))
        self.processes.append(subprocess.Popen(self.command))
        return self.processes[-1]


def after_the_process(compilation, starter, shapes):
    starter.processes[-1].wait()
    return compilation.mode(shapes)


def test_a_shape_that_comes_again_is_compiled_beside_its_passes_and_then_used():
    starter = Starter("true")
    compilation = Compilation("regional", starter)
    assert compilation.mode([SHAPE]) == "off"
    assert starter.asked == []
    assert compilation.mode([SHAPE]) == "off"
    assert starter.asked == [[SHAPE]]
    assert after_the_process(compilation, starter, [SHAPE]) == "regional"
    assert compilation.mode([SHAPE]) == "regional"
    assert len(starter.asked) == 1


def test_a_pass_is_compiled_as_a_whole_or_not_at_all():
    starter = Starter("true")
    compilation = Compilation("full", starter)
    for _ in range(2):
        compilation.mode([SHAPE])
    assert after_the_process(compilation, starter, [SHAPE]) == "full"
    assert [compilation.mode([SHAPE, OTHER]) for _ in range(2)] == ["off", "off"]
    assert starter.asked == [[SHAPE], [OTHER]]
    assert after_the_process(compilation, starter, [SHAPE, OTHER]) == "full"


def test_one_process_compiles_at_a_time_and_ends_with_the_worker():
    starter = Starter("sleep", "60")
    compilation = Compilation("regional", starter)
    for shape in (SHAPE, SHAPE, OTHER, OTHER):
        assert compilation.mode([shape]) == "off"
    assert starter.asked == [[SHAPE]]
    compilation.close()
    assert starter.processes[0].returncode == -9


def test_what_does_not_compile_is_rendered_as_it_is_and_not_tried_again(caplog):
    starter = Starter("false")
    compilation = Compilation("regional", starter)
    for _ in range(2):
        compilation.mode([SHAPE])
    assert [after_the_process(compilation, starter, [SHAPE]) for _ in range(2)] == ["off", "off"]
    assert len(starter.asked) == 1
    assert "not compiled, and rendered as it is: base with 2 rows of 64 x 64" in caplog.text


def test_where_the_compile_process_does_not_start_passes_are_rendered_as_they_are(caplog):
    compilation = Compilation("regional", Starter("/nonexistent"))
    assert [compilation.mode([SHAPE]) for _ in range(3)] == ["off"] * 3
    assert caplog.text.count("rendered as it is: base with 2 rows of 64 x 64; the compile process does not start") == 1


def test_what_an_earlier_process_has_compiled_is_used_from_the_first_pass_on(tmp_path):
    kept, starter = CompiledShapes(tmp_path / "shapes" / "key.json"), Starter("true")
    first = Compilation("regional", starter, kept.read(), kept.add)
    for _ in range(2):
        assert first.mode([SHAPE]) == "off"
    assert after_the_process(first, starter, [SHAPE]) == "regional"
    again = Compilation("regional", starter, kept.read(), kept.add)
    assert [again.mode([SHAPE]), again.mode([OTHER]), again.mode([OTHER])] == ["regional", "off", "off"]
    assert starter.asked == [[SHAPE], [OTHER]]
    assert after_the_process(again, starter, [OTHER]) == "regional"
    assert kept.read() == {SHAPE, OTHER}


@pytest.mark.parametrize("content", ["", "[]x", '[["base", 2, 64]]', '[["sides", 2, 64, 64, 1]]', '{"a": 1}'])
def test_a_list_of_shapes_that_cannot_be_read_is_begun_anew(tmp_path, content):
    (tmp_path / "key.json").write_text(content)
    kept = CompiledShapes(tmp_path / "key.json")
    assert kept.read() == set()
    kept.add([SHAPE])
    assert kept.read() == {SHAPE}


def test_what_was_compiled_with_other_options_or_for_another_dtype_is_another_list(smallest, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))

    def path(dtype=torch.float32, **options):
        described = smallest.pair.model_copy(update={"options": DeviceOptions(compile="regional", **options)})
        return compiled_shapes(replace(smallest, pair=described, dtype=dtype))._path

    assert path() == path()
    assert len({path(), path(fused_qkv=True), path(dtype=torch.float16)}) == 3
    assert path().parent == tmp_path / "shapes"


def test_so_many_shapes_are_compiled_and_no_more(caplog):
    starter = Starter("true")
    compilation = Compilation("regional", starter)
    shapes = [SHAPE._replace(height=8 * number) for number in range(8, 8 + MAX_SHAPES + 1)]
    for shape in shapes:
        for _ in range(2):
            compilation.mode([shape])
        if starter.processes:
            starter.processes[-1].wait()
    assert [compilation.mode([shape]) for shape in shapes] == ["regional"] * MAX_SHAPES + ["off"]
    assert caplog.text.count("it renders others as they are until it is started again: base with 2 rows") == 1


def test_shapes_of_earlier_nights_take_no_room_before_they_come_again(smallest, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    described = smallest.pair.model_copy(update={"options": DeviceOptions(compile="regional")})
    pair = replace(smallest, pair=described)
    earlier = [SHAPE._replace(height=8 * number) for number in range(9, 9 + 2 * MAX_SHAPES)] + [OTHER]
    compiled_shapes(pair).add(earlier)
    known = compilation(pair)
    known._start = starter = Starter("true")
    assert [known.mode([SHAPE]) for _ in range(2)] == ["off", "off"]
    assert after_the_process(known, starter, [SHAPE]) == "regional"
    assert known.mode([SHAPE, OTHER]) == "regional"  # whatever its place in the list
    assert [known.mode([shape]) for shape in earlier[:-1]].count("regional") == MAX_SHAPES - 2
    assert [known.mode([SHAPE, OTHER]), caplog.text.count("which is the most")] == ["regional", 1]


def spec(**fields):
    return JobSpec.parse(
        {"prompt": "a red fox", "width": 64, "height": 64, "num_inference_steps": 3, "seed": 7} | fields
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [("base", 6), ("refiner", 6)]),
        ({"refiner": {"mode": "off"}}, [("base", 6)]),
        ({"guidance_scale": 1.0}, [("base", 3), ("refiner", 3)]),
        ({"refiner": {"guidance_scale": 1.0}}, [("base", 6), ("refiner", 3)]),
        ({"prompt": "a red fox in the snow " * 30, "width": 96}, [("base", 6), ("refiner", 6)]),
    ],
)
def test_the_shapes_of_a_pass_are_those_that_its_unets_are_called_with(smallest, fields, expected):
    specs = [spec(seed=seed, **fields) for seed in range(3)]
    called = set()

    def note(part, unet, args, told):
        rows, _, height, width = args[0].shape
        called.add(UnetShape(part, rows, 8 * height, 8 * width, told["encoder_hidden_states"].shape[1] // 77))

    hooks = [
        pipe.unet.register_forward_pre_hook(partial(note, part), with_kwargs=True)
        for part, pipe in (("base", smallest.base), ("refiner", smallest.refiner))
    ]
    render(smallest, specs)
    for hook in hooks:
        hook.remove()
    shapes = unet_shapes(specs, *num_chunks(smallest, specs[0]))
    assert [(shape.part, shape.rows) for shape in shapes] == expected
    assert set(shapes) == called


def prepared(pair, seed):
    one = spec(seed=seed, refiner={"mode": "off"})
    return PreparedJob(ClaimedJob(seed, one.model_dump_json(), {}, 0, False), one, num_chunks(pair, one), NO_INPUTS)


def outcome(device, one):
    (found,) = device.rendered([one], lambda: None, lambda: False)
    return found.result


def test_a_compiled_pass_that_takes_more_memory_than_it_may_is_halved_from_then_on(smallest, tmp_path):
    """The list of processes and shapes is real; what is "compiled" is the network as it is."""
    limits, size = PassLimits(4), (64, 64)
    limits.learn(size, 4)  # by the network as it is
    measurer = PassMeasurer(smallest, ProcessMemory(2**20), tmp_path, 4, 0.9)
    device = DeviceThread(smallest, limits, Watchdog(StepBudget(600.0), pytest.fail), measurer)
    device._compilation = Compilation("regional", starter := Starter("true"))
    one = Pass(tuple(prepared(smallest, seed) for seed in (1, 2)))
    assert [outcome(device, one).compile_mode for _ in range(2)] == ["off", "off"]
    assert limits.most(size) == 4
    starter.processes[-1].wait()
    assert outcome(device, one).compile_mode == "regional"
    assert limits.most(size) == 1
    device.close()


def test_a_compiled_pass_that_memory_does_not_hold_is_halved_and_goes_on_as_it_is(smallest):
    limits, asked = PassLimits(4), []
    device = DeviceThread(smallest, limits, Watchdog(StepBudget(600.0), pytest.fail))
    two = Pass(tuple(prepared(smallest, seed) for seed in (1, 2)))
    device._compilation = Compilation("regional", Starter("true"), unet_shapes(two.specs, *two.chunks))

    def stop():
        asked.append(None)
        if len(asked) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return False

    outcomes = list(device.rendered([two], lambda: None, stop))
    assert [(len(found.one), found.result.compile_mode) for found in outcomes] == [(1, "off")] * 2
    assert limits.most((64, 64)) == 1
    again = list(device.rendered([two], lambda: None, lambda: False))  # as a pack that was prepared before
    assert [len(found.one) for found in again] == [1, 1]
    device.close()


def test_a_padded_pass_of_which_memory_holds_one_image_is_halved_down_to_it(smallest):
    limits = PassLimits(4)
    limits.learn((64, 64), 1)
    device = DeviceThread(smallest, limits, Watchdog(StepBudget(600.0), pytest.fail))
    three = Pass(tuple(prepared(smallest, seed) for seed in (1, 2, 3)), num_padding=1)
    outcomes = list(device.rendered([three], lambda: None, lambda: False))
    device.close()
    assert [found.one.jobs[0].id for found in outcomes] == [1, 2, 3]
    assert [(len(found.one), len(found.result.pictures)) for found in outcomes] == [(1, 1)] * 3


@pytest.fixture(scope="module")
def regional(smallest_folder, model_cache, tmp_path_factory):
    """The smallest base, to be compiled into a cache folder of its own."""
    if shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler here, so nothing can be compiled for this CPU")
    fields = {"name": "p", "base": {"source": str(smallest_folder / "base")}, "options": {"compile": "regional"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        torch.set_num_threads(1)
        yield load_pair(ModelPair.model_validate(fields), "cpu", model_cache)


def test_a_worker_renders_as_it_is_while_a_process_compiles_and_takes_the_code_from_the_cache(
    regional, smallest, tmp_path, monkeypatch, caplog
):
    """The one test that compiles: all that needs compiled code stands in it."""
    device = DeviceThread(regional, PassLimits(4), Watchdog(StepBudget(600.0), pytest.fail))
    three = tuple(prepared(regional, seed) for seed in (1, 2, 3))
    one = Pass(three, num_padding=1)
    before = [outcome(device, one) for _ in range(2)]
    assert [found.compile_mode for found in before] == ["off", "off"]
    exact = render(smallest, [made.spec for made in (*three, three[0])])
    for found, expected in zip(before[1].pictures, exact.pictures, strict=False):
        assert np.array_equal(found.pixels, expected.pixels)

    deadline = time.monotonic() + 500
    while (found := outcome(device, one)).compile_mode == "off":
        assert time.monotonic() < deadline
        time.sleep(1)
    from torch._dynamo.utils import counters

    assert counters["inductor"]["fxgraph_cache_hit"] + counters["aot_autograd"]["autograd_cache_hit"] >= 1
    assert (counters["inductor"]["fxgraph_cache_miss"], dict(counters["graph_break"])) == (0, {})
    assert found.compile_mode == "regional"
    assert len(found.pictures) == 3
    for made, expected in zip(found.pictures, exact.pictures, strict=False):
        assert np.abs(made.pixels.astype(int) - expected.pixels.astype(int)).mean() < 0.5

    others = Pass((three[2], prepared(regional, 8), prepared(regional, 9), prepared(regional, 10)))
    same, other, *_ = outcome(device, others).pictures
    assert np.array_equal(same.pixels, found.pictures[2].pixels)  # whatever its neighbours and its place
    assert not np.array_equal(other.pixels, found.pictures[1].pixels)
    copies = render(regional, [three[2].spec] * 4, compile_mode="regional")  # as `nightshift reproduce` does
    assert np.array_equal(copies.pictures[0].pixels, found.pictures[2].pixels)
    device.close()

    restarted = DeviceThread(regional, PassLimits(4), Watchdog(StepBudget(600.0), pytest.fail))
    assert outcome(restarted, one).compile_mode == "regional"
    restarted.close()

    # where the code cannot be taken in after all, no pack is lost, and it is said once
    (tmp_path / "cache").write_text("no folder")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    torch.compiler.reset()
    broken = DeviceThread(smallest, PassLimits(4), Watchdog(StepBudget(600.0), pytest.fail))
    broken._pair = regional
    broken._compilation = Compilation("regional", starter := Starter("true"), unet_shapes(one.specs, *one.chunks))
    for found in (outcome(broken, one) for _ in range(2)):
        assert found.compile_mode == "off"
        assert np.array_equal(found.pictures[0].pixels, before[0].pictures[0].pixels)
    broken.close()
    assert caplog.text.count("not compiled, and rendered as it is: base with 8 rows of 64 x 64;") == 1
    assert starter.asked == []


def test_a_full_unet_is_one_graph_for_every_scheduler(smallest_folder, model_cache):
    """Traced only: compiling a whole UNet for a CPU takes minutes."""
    from torch._dynamo.utils import counters

    fields = {"name": "p", "base": {"source": str(smallest_folder / "base")}, "options": {"compile": "full"}}
    pair = load_pair(ModelPair.model_validate(fields), "cpu", model_cache)
    from worker.passes.denoising import denoise

    counters.clear()
    with torch.compiler.set_stance("default", force_backend="eager"):
        for scheduler in ("euler", "ddim"):  # timesteps as floats and as integers
            denoise(pair, [spec(scheduler=scheduler, refiner={"mode": "off"})], lambda: False)
    assert counters["stats"]["unique_graphs"] == 1
    assert dict(counters["graph_break"]) == {}


def unset_cache_folder(monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that what the test sets is unset behind it
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")


def test_pairs_with_other_attention_kernels_have_compiled_code_of_their_own(tmp_path, monkeypatch):
    fields, folders = {"name": "p", "base": {"source": "synthetic:tiny"}}, []
    for attention in ("math", "flash", "pytorch"):
        unset_cache_folder(monkeypatch)
        options = {"compile": "regional", "attention": attention}
        _require_options(ModelPair.model_validate(fields | {"options": options}), torch.device("cpu"), tmp_path)
        folders.append(compiled_code_folder())
    assert folders == [tmp_path / "compiled" / attention for attention in ("math", "flash", "pytorch")]


def test_compiled_code_is_kept_in_the_cache_folder_unless_the_environment_names_another(monkeypatch, tmp_path):
    unset_cache_folder(monkeypatch)
    keep_compiled_code(tmp_path / "one")
    keep_compiled_code(tmp_path / "other")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "one")
