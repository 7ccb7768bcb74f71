"""What a worker decides without a device: step budgets, sizes of passes, deafness, whose fault a death was."""

import logging
import time

import pytest

from worker.device_process.budget import FIRST_SECONDS, PassShape, StepBudget
from worker.device_process.deafness import Deafness, Look
from worker.device_process.stopping import Stopping
from worker.host.device_health import Death, is_unfit
from worker.host.devices import Device
from worker.host.exit_codes import EXIT_DEAF, EXIT_DEVICE_LOST
from worker.host.seat import Seat
from worker.passes.pass_limits import PassLimits

SHAPE = PassShape(8, 1024, 1024)


def test_before_anything_was_measured_a_step_may_take_half_an_hour() -> None:
    assert StepBudget().seconds(SHAPE) == FIRST_SECONDS == 1800


def test_the_budget_of_a_step_is_ten_times_the_slowest_of_its_kind() -> None:
    budget = StepBudget()
    for seconds in (50.0, 70.0, 60.0):
        budget.took(SHAPE, seconds)
    assert budget.seconds(SHAPE) == 700
    assert budget.seconds(SHAPE._replace(num_images=4)) == FIRST_SECONDS


def test_a_quick_device_has_five_minutes_all_the_same() -> None:
    budget = StepBudget()
    budget.took(SHAPE, 0.2)
    assert budget.seconds(SHAPE) == 300


def test_a_budget_that_was_set_is_not_measured() -> None:
    budget = StepBudget(fixed_seconds=20)
    budget.took(SHAPE, 70)
    assert budget.seconds(SHAPE) == 20


def test_what_did_not_fit_is_halved_for_its_size_alone_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    limits = PassLimits(8)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            limits.halve((1024, 768), 8)
    assert (limits.most((1024, 768)), limits.most((768, 1024))) == (4, 8)
    assert [record.message for record in caplog.records] == [
        "the device's memory does not hold a pass of 8 images of 768 x 1024; from now on 4 of them share one"
    ]


def test_a_limit_never_grows_again() -> None:
    limits = PassLimits(8)
    limits.halve((64, 64), 4)
    limits.halve((64, 64), 8)
    assert limits.most((64, 64)) == 2


def test_what_was_measured_is_a_limit_that_a_pass_which_does_not_fit_still_halves() -> None:
    limits = PassLimits(8)
    limits.learn((64, 64), 4)
    assert (limits.knows((64, 64)), limits.knows((64, 72)), limits.most((64, 64))) == (True, False, 4)
    limits.halve((64, 64), 4)
    assert limits.most((64, 64)) == 2


def deaf_at(looks: list[tuple[float, Look]]) -> float | None:
    """When the consumer was found deaf."""
    deafness = Deafness(60)
    return next((now for now, look in looks if deafness.is_deaf(now, look)), None)


def test_a_consumer_that_takes_nothing_for_a_minute_is_deaf() -> None:
    assert deaf_at([(now, Look(100.0 + now, 3, True)) for now in range(0, 200, 10)]) == 60


@pytest.mark.parametrize("look", [Look(0.0, 3, True), Look(500.0, 0, True), Look(500.0, 3, False)])
def test_a_consumer_that_works_or_has_nothing_to_take_is_not_deaf(look: Look) -> None:
    assert deaf_at([(now, look) for now in range(0, 600, 10)]) is None


def test_a_consumer_that_takes_a_message_now_and_then_is_not_deaf() -> None:
    """Idle in every look, but not the whole time between."""
    assert deaf_at([(now, Look(now % 50 + 1.0, 3, True)) for now in range(0, 600, 10)]) is None


def test_a_minute_without_answers_is_no_minute_of_deafness() -> None:
    deafness, look = Deafness(60), Look(1000.0, 3, True)
    assert not deafness.is_deaf(0, look)
    deafness.forget()
    assert not deafness.is_deaf(60, look)
    assert deafness.is_deaf(120, look)


def death(*job_ids: int, again: bool = False, had_rendered: bool = False) -> Death:
    return Death(frozenset(job_ids), suspects_job=again, had_rendered=had_rendered)


def test_a_device_that_failed_three_packs_in_a_row_is_unfit() -> None:
    deaths = [death(1, 2), death(3, 4), death(5)]
    assert is_unfit(deaths)
    assert not is_unfit(deaths[:2])


def test_an_image_in_between_clears_a_device() -> None:
    assert not is_unfit([death(1, 2), death(3, 4), death(5, had_rendered=True)])
    assert is_unfit([death(0), death(1, 2, had_rendered=True), death(3, 4), death(5)])


def test_a_job_that_kills_every_worker_takes_no_device_out_of_service() -> None:
    assert not is_unfit([death(1, 2, 3), death(2), death(2, again=True), death(2, again=True)])


def test_jobs_that_kill_every_worker_and_come_back_in_turn_take_no_device_out_of_service() -> None:
    assert not is_unfit([death(*range(8)), death(2), death(5), *[death(n, again=True) for n in (2, 5, 7, 2, 5, 7)]])


def test_a_device_that_kills_the_jobs_of_one_pack_one_by_one_is_unfit() -> None:
    assert is_unfit([death(1, 2, 3, 4), death(1), death(2), death(3)])


def test_a_device_that_dies_with_nothing_in_hand_is_not_out_of_service() -> None:
    assert not is_unfit([death(), death(), death(), death()])


def test_only_deaths_by_the_device_count_against_it() -> None:
    seat = Seat(Device("cpu"), "tiny")
    assert not any(seat.note_death(-9, death(n)) for n in range(5))
    assert [seat.note_death(EXIT_DEVICE_LOST, death(n)) for n in range(3)] == [False, False, True]


def test_a_seat_forgets_its_deaths_when_an_image_was_recorded() -> None:
    seat = Seat(Device("cpu"), "tiny")
    for n in range(2):
        seat.note_death(EXIT_DEVICE_LOST, death(n))
    seat.note_death(-9, death(3, had_rendered=True))
    assert seat.deaths == []


def test_a_deaf_consumer_is_replaced_at_once_and_other_deaths_after_a_while() -> None:
    seat = Seat(Device("cpu"), "tiny", started_at=time.monotonic())
    seat.empty(EXIT_DEAF)
    at_once = seat.restart_at
    seat.empty(EXIT_DEVICE_LOST)
    assert seat.restart_at >= at_once + 2


def test_each_death_in_a_row_waits_twice_as_long_up_to_a_minute_and_one_after_a_good_minute_begins_anew() -> None:
    seat = Seat(Device("cpu"), "tiny")

    def wait_after(lived_seconds: float) -> int:
        seat.started_at = time.monotonic() - lived_seconds
        seat.empty(-9)
        return round(seat.restart_at - time.monotonic())

    assert [wait_after(59.0) for _ in range(7)] == [2, 4, 8, 16, 32, 60, 60]
    assert [wait_after(60.0), wait_after(0.0)] == [1, 2]
    assert seat.num_deaths == 9


def starts(*ends: tuple[int, bool]) -> list[bool]:
    """Whether each of these ends (code, whether it was ready) takes the device out of service."""
    seat = Seat(Device("cpu"), "tiny")
    return [seat.note_start(code, was_ready=was_ready) for code, was_ready in ends]


def test_three_processes_in_a_row_that_never_got_ready_take_a_device_out_of_service() -> None:
    assert starts((-9, False), (3, False), (1, False)) == [False, False, True]
    assert not any(starts((-9, False), (1, False), (-9, True), (1, False), (1, False)))


def test_a_pair_that_does_not_load_is_tried_again_only_where_it_has_been_loaded() -> None:
    assert starts((2, False)) == [True]
    assert starts((70, True), (2, False), (2, False), (2, False)) == [False, False, False, True]


def test_a_store_or_ledger_that_was_there_once_is_waited_for() -> None:
    assert not any(starts((70, True), *[(3, False)] * 9))


def test_who_is_asked_patiently_has_no_limit_until_somebody_else_asks() -> None:
    stopping = Stopping(0.0)
    stopping.ask(patiently=True)
    assert stopping.gently.is_set()
    assert not stopping.at_once.wait(0.1)
    stopping.ask(patiently=True)
    assert stopping.at_once.wait(10)
