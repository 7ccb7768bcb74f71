"""What is said of two programs that take turns on a machine whose speed changes."""

import numpy as np
import pytest

from benchmarks.thread_times import Had, stolen_seconds, threads_had
from benchmarks.turns import Progress, Turn, compared, shares

TURN = 1.5
RENDERER, FINISHER = 7, 8


def alternating(num_turns, first=0.0):
    """Turns of 1.5 s, each with as much time between them for the other program."""
    begins = first + 2 * TURN * np.arange(num_turns)
    return [Turn(began, began + TURN, {}, {}, 0.0) for began in begins]


def progress(turns, images_per_s, speed):
    """Packs of 4 images of a program that renders so many a second, times what the machine gives at that instant."""
    at = np.concatenate([np.linspace(turn.began, turn.ended, 200, endpoint=False) for turn in turns])
    done = np.cumsum(images_per_s * speed(at) * TURN / 200)
    num_packs = int(done[-1] / 4)
    return Progress(turns, np.interp(4.0 * np.arange(num_packs), done, at).tolist(), [4] * num_packs)


def swinging(at):
    """A fifth more and less, over a minute, and ever slower."""
    return (1 + 0.2 * np.sin(at / 10)) * (1 - at / 600)


@pytest.mark.parametrize("share", [1.0, 0.97])
def test_a_machine_whose_speed_swings_by_a_fifth_hides_no_three_per_cent(share):
    first, second = alternating(60), alternating(60, TURN)
    found = compared(progress(first, 2.0, swinging), progress(second, 2.0 * share, swinging), 3 * TURN)
    assert found.low < share < found.high
    assert found.high - found.low < 0.02
    assert abs(found.share - share) < 0.005
    assert abs(found.median - share) < 0.01


def test_stretches_that_prove_nothing_are_refused():
    turns = alternating(6), alternating(6, TURN)
    with pytest.raises(ValueError, match="stretches of 30 s are too few to compare"):
        compared(*(progress(one, 2.0, swinging) for one in turns), 30.0)


def test_the_busiest_thread_is_the_one_that_renders_and_what_it_did_not_have_it_waited_for():
    def had(busy, queued):
        return {RENDERER: Had(busy, queued), FINISHER: Had(busy / 10, 5.0)}

    turns = [Turn(0.0, 2.0, had(1.0, 0.5), had(2.8, 0.6), 0.0), Turn(4.0, 6.0, had(3.0, 0.6), had(4.6, 0.6), 0.4)]
    found = shares(turns)
    assert found.busy == pytest.approx(3.4 / 4)
    assert found.queued == pytest.approx(0.1 / 4)
    assert found.waiting == pytest.approx(0.5 / 4)
    assert found.busy_seconds == pytest.approx(3.4)


def test_linux_says_what_threads_had():
    import os
    import threading

    before = threads_had(os.getpid())[threading.get_native_id()]
    sum(range(200_000))
    after = threads_had(os.getpid())[threading.get_native_id()]
    assert after.busy_seconds > before.busy_seconds
    assert after.queued_seconds >= before.queued_seconds
    assert stolen_seconds() >= 0
