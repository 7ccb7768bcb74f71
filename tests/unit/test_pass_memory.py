"""How many images a forward pass may have: the line through one and two, the run that confirms it, and what is kept."""

import json
from dataclasses import replace

import pytest

from schemas.errors import LeaseLostError
from worker.passes.memory_probe import ProcessMemory
from worker.passes.pass_measuring import PassMeasurer
from worker.passes.pass_memory import MemoryUse, PassMemory

SIZE = (64, 64)
PLENTY = 2**50


def tried(one, two, eight=None):
    uses = {1: one, 2: two} | ({} if eight is None else {8: eight})
    return PassMemory({num_images: MemoryUse(*use) for num_images, use in uses.items()})


def test_the_line_through_one_image_and_two_says_what_more_will_take():
    memory = tried((100, 0), (110, 0))
    assert [memory.bytes_of(num) for num in (1, 2, 4, 8)] == [100, 110, 130, 170]
    assert [memory.limit(8, budget) for budget in (99, 109, 110, 169, 170)] == [1, 1, 2, 4, 8]
    assert memory.limit(7, 10_000) == 4  # passes have 1, 2, 4, 8, ... images


def test_decoding_one_image_at_a_time_does_not_hide_that_denoising_grows():
    memory = tried((100, 200), (150, 201))
    assert memory.bytes_of(2) == 201
    assert memory.bytes_of(8) == 450
    assert memory.limit(8, 400) == 4


def test_one_is_tried_then_two_then_what_the_line_says():
    memory, asked = PassMemory(), []
    while (num := memory.untried(8, 1000)) is not None:
        asked.append(num)
        memory = memory.with_use(num, MemoryUse(100 + 50 * num, 0))
    assert (asked, memory.limit(8, 1000)) == ([1, 2, 8], 8)


def test_a_pass_that_took_more_than_the_line_said_is_halved_until_one_was_tried():
    memory, asked = tried((100, 0), (110, 0)), []
    while (num := memory.untried(16, 300)) is not None:
        asked.append(num)
        memory = memory.with_use(num, MemoryUse(100 * num, 0))
    assert (asked, memory.limit(16, 300)) == ([16, 8, 4], 2)


def test_where_one_image_does_not_fit_no_more_are_tried():
    memory = PassMemory().with_use(1, MemoryUse(100, 0))
    assert (memory.untried(8, 99), memory.untried(1, PLENTY)) == (None, None)
    assert memory.untried(8, 100) == 2


def test_other_budgets_and_settings_need_only_what_was_not_tried_yet():
    memory = tried((100, 0), (110, 0), (175, 0))
    assert memory.untried(8, 175) is None
    assert memory.untried(8, 160) == 4
    assert memory.untried(16, 1000) == 16


def test_what_was_measured_comes_back_from_json():
    memory = tried((100, 3), (110, 4), (175, 5))
    assert PassMemory.from_json(json.loads(json.dumps(memory.to_json()))) == memory
    for broken in ([], {"a": [1, 2]}, {"1": 3}, {"1": [1]}, {"1": [1, 2, 3]}, {"1": ["x", 2]}):
        with pytest.raises(ValueError, match=r".+"):
            PassMemory.from_json(broken)


@pytest.fixture
def rendered(monkeypatch):
    """The sizes of the passes that are rendered to measure them."""
    import worker.passes.pass_measuring

    sizes, render = [], worker.passes.pass_measuring.render

    def noted(pair, specs, stop):
        sizes.append(len(specs))
        return render(pair, specs, stop)

    monkeypatch.setattr(worker.passes.pass_measuring, "render", noted)
    return sizes


def measurer(pair, folder, total_bytes=PLENTY, **fields):
    return PassMeasurer(pair, ProcessMemory(total_bytes), folder, **{"most": 4, "memory_share": 0.9} | fields)


def never():
    return False


def test_a_size_is_measured_once_and_by_the_next_process_not_again(smallest, tmp_path, rendered):
    assert measurer(smallest, tmp_path).limit(SIZE, never) == 4
    assert rendered == [1, 2, 4]
    assert measurer(smallest, tmp_path).limit(SIZE, never) == 4
    assert rendered == [1, 2, 4]
    assert measurer(smallest, tmp_path).limit((64, 72), never) == 4
    assert rendered == [1, 2, 4] * 2


def test_other_weights_or_more_memory_are_measured_anew(smallest, tmp_path, rendered):
    measurer(smallest, tmp_path, most=2).limit(SIZE, never)
    other = replace(smallest, fingerprint=replace(smallest.fingerprint, sha256="0" * 64))
    measurer(other, tmp_path, most=2).limit(SIZE, never)
    measurer(smallest, tmp_path, total_bytes=PLENTY + 1, most=2).limit(SIZE, never)
    assert rendered == [1, 2] * 3


def test_a_broken_file_is_measured_over(smallest, tmp_path, rendered):
    measurer(smallest, tmp_path, most=2).limit(SIZE, never)
    (file,) = tmp_path.iterdir()
    for content in (b"\xff", b'{"uses": {"1": 7}}'):
        file.write_bytes(content)
        assert measurer(smallest, tmp_path, most=2).limit(SIZE, never) == 2
    assert rendered == [1, 2] * 3


def test_a_process_that_has_all_its_memory_in_use_renders_one_image_at_a_time(smallest, tmp_path, rendered):
    assert measurer(smallest, tmp_path, total_bytes=2**20).limit(SIZE, never) == 1
    assert rendered == [1]


def test_measuring_stops_where_rendering_would_and_keeps_what_was_measured(smallest, tmp_path, rendered):
    asked = []

    def at_the_second_pass():
        asked.append(None)
        return len(asked) > 2

    with pytest.raises(LeaseLostError):
        measurer(smallest, tmp_path).limit(SIZE, at_the_second_pass)
    assert measurer(smallest, tmp_path).limit(SIZE, never) == 4
    assert rendered == [1, 2, 2, 4]


def test_larger_pictures_take_more_of_main_memory(smallest, tmp_path):
    def bytes_of(size):
        measurer(smallest, tmp_path, most=1).limit(size, never)
        return max(PassMemory.from_json(json.loads(newest(tmp_path).read_text())["uses"]).uses[1])

    assert bytes_of((256, 256)) > bytes_of((64, 64)) + 10_000_000


def newest(folder):
    return max(folder.iterdir(), key=lambda file: file.stat().st_mtime_ns)


@pytest.mark.gpu
def test_a_gpu_holds_what_was_measured_and_the_line_foretells_it(model_cache, tmp_path):
    import torch

    from schemas.pair import BUILT_IN_PAIRS
    from worker.loading.pipelines import load_pair
    from worker.passes.memory_probe import GpuMemory

    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here; `make test-gpu` is for machines with one")
    pair = load_pair(BUILT_IN_PAIRS["tiny"], "cuda", model_cache)
    probe = GpuMemory(pair.device)
    assert PassMeasurer(pair, probe, tmp_path, 8, 0.9).limit((256, 256), never) == 8
    found = PassMemory.from_json(json.loads(newest(tmp_path).read_text())["uses"])
    foretold = PassMemory({num: found.uses[num] for num in (1, 2)}).bytes_of(8)
    assert abs(foretold - found.bytes_of(8)) < 0.2 * found.bytes_of(8)
    enough_for_four = (found.bytes_of(8) - 1 + probe.others_bytes()) / probe.total_bytes
    assert PassMeasurer(pair, probe, tmp_path, 8, enough_for_four).limit((256, 256), never) == 4
