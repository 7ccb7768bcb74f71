"""What a manifest would come to: packs, pace, hours and disk. Pure: all that it is judged by is given."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from producer.questions.pace import MeasuredPack, Pace, longest_seconds
from producer.submitting.disk_need import DiskNeed, disk_need
from producer.submitting.plan import Known, Plan, hours, pack_groups, plan
from producer.submitting.plan_text import plan_lines, size_text
from producer.submitting.survey import RowKind, Survey
from schemas.timing import Timing
from schemas.windows import Window

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
KEY = "1000x1000/10/EulerDiscreteScheduler"  # ten megapixel-steps a job
SMALL = RowKind(KEY, 1000, 1000, "png", True)
JPEG = SMALL._replace(format="jpeg", lossless=False)
OTHER = RowKind("512x512/10/DDIMScheduler/0123456789abcdef", 512, 512, "png", True)
NIGHTS = Window.parse("22:00-06:00 UTC")
#: one megapixel-step a second
ONE = Pace(num_live=1, num_measured=1, work_per_second=1.0)


def known(*windows: Window, pace: Pace = ONE, **timing: datetime) -> Known:
    return Known(NOON, 8, pace, 0, windows, Timing(**timing))


def survey(**kinds: int) -> Survey:
    named = {"small": SMALL, "jpeg": JPEG, "other": OTHER}
    found = Survey(num_valid=sum(kinds.values()), num_existing=0)
    found.to_render.update({named[name]: num for name, num in kinds.items()})
    return found


def packed(worker: str, seconds: float, work: float = 10.0, batch_id: int = 1) -> MeasuredPack:
    return MeasuredPack(batch_id, worker, work, seconds)


# --- packs -----------------------------------------------------------------------------------------------------------


def test_jobs_of_one_key_share_packs_wherever_they_stand_and_whatever_their_format() -> None:
    groups = pack_groups({OTHER: 1, SMALL: 8, JPEG: 9}, pack_size=8)
    assert [(group.pack_key, group.num_jobs, group.num_packs) for group in groups] == [
        (KEY, 17, 3),
        (OTHER.pack_key, 1, 1),
    ]


# --- pace ------------------------------------------------------------------------------------------------------------


def test_the_pace_is_that_of_all_packs_of_a_worker() -> None:
    assert Pace.of([packed("a", 10), packed("a", 10, work=30.0)], 1).work_per_second == 2.0


def test_a_pack_in_whose_middle_a_device_was_stopped_for_hours_says_nothing_of_its_pace() -> None:
    packs = [packed("a", 10)] * 4
    assert Pace.of([*packs, packed("a", 36_000)], 1).work_per_second == 1.0
    assert longest_seconds([*packs, packed("a", 36_000)], 20.0) == 20.0


def test_a_pack_takes_as_long_as_nearly_all_and_no_less_than_those_of_its_batch() -> None:
    packs = [packed("a", seconds, batch_id=2) for seconds in (10, 11, 12, 13)]
    assert longest_seconds(packs, 10.0) == 12.0
    assert longest_seconds(packs, 5.0) == 6.0
    assert longest_seconds(packs, 5.0, batch_id=2) == 12.0
    assert longest_seconds([], 5.0) == 0.0


def test_a_live_worker_that_was_not_measured_counts_as_the_others() -> None:
    pace = Pace.of([packed("a", 10), packed("b", 5)], 3)
    assert (pace.num_live, pace.num_measured, pace.work_per_second) == (3, 2, 1.5)
    assert pace.seconds(450.0, num_packs=100) == 100.0


def test_no_more_workers_help_than_there_are_packs() -> None:
    assert Pace(4, 4, 1.0).seconds(100.0, num_packs=2) == 50.0


def test_without_a_measured_worker_there_is_no_time() -> None:
    assert Pace.of([], 3) == Pace(3, 0, None)
    assert Pace.of([], 3).seconds(1.0, 1) is None
    assert Pace(0, 0, None).seconds(1.0, 1) is None


# --- hours -----------------------------------------------------------------------------------------------------------


def test_without_a_window_it_begins_now() -> None:
    found = hours(known(), 60.0, 1.0)
    assert (found.begins, found.ends, found.num_spans) == (NOON, NOON + timedelta(minutes=1), None)


def test_it_begins_when_its_window_opens_and_says_how_many_nights_it_needs() -> None:
    one = hours(known(NIGHTS), 8 * 3_600.0, 1.0)
    assert (one.begins, one.ends, one.num_spans) == (NOON + timedelta(hours=10), NOON + timedelta(hours=18), 1)
    three = hours(known(NIGHTS), 17 * 3_600.0, 1.0)
    assert (three.ends, three.num_spans) == (NOON + timedelta(days=2, hours=11), 3)


def test_the_farms_window_counts_as_well() -> None:
    found = hours(known(NIGHTS, Window.parse("mon 00:00-24:00 UTC")), 60.0, 1.0)
    assert found.begins == datetime(2026, 11, 23, tzinfo=UTC)
    never = hours(known(Window.parse("mon 10:00-11:00 UTC"), Window.parse("tue 10:00-11:00 UTC")), 60.0, 1.0)
    assert (never.begins, never.never) == (None, "its window and the farm's are never open together")


def test_a_pack_that_takes_longer_than_its_hours_begins_as_they_do_and_that_is_said() -> None:
    opens = NOON + timedelta(hours=10)
    long = hours(known(NIGHTS), 60.0, 9.5 * 3_600)
    assert (long.begins, long.outlasting_seconds) == (opens, 9.5 * 3_600)
    assert hours(known(NIGHTS), 60.0, 8 * 3_600.0).outlasting_seconds is None
    late = replace(known(NIGHTS), now=opens + timedelta(hours=1))
    assert hours(late, 60.0, 9.5 * 3_600).begins == opens + timedelta(days=1)
    slow = replace(known(NIGHTS), last_packs=[packed("a", 9.5 * 3_600, work=80.0)])
    assert "          a pack takes about 9:30:00, longer than its hours: it ends after" in shown(
        plan("sdxl", survey(small=8), slow, DiskNeed(1, 1, 1, None))
    )


def test_it_begins_in_the_next_hours_where_a_pack_would_not_end_in_these() -> None:
    almost_over = replace(known(NIGHTS), now=NOON + timedelta(hours=17, minutes=59))
    assert hours(almost_over, 60.0, 120.0).begins == NOON + timedelta(hours=34)
    assert hours(almost_over, 60.0, 59.0).begins == almost_over.now


def test_a_deadline_is_kept_or_missed_by_so_much() -> None:
    tight = known(NIGHTS, deadline=NOON + timedelta(hours=11))
    assert hours(tight, 1_800.0, 1.0).spare == timedelta(minutes=30)
    assert hours(tight, 5_400.0, 1.0).spare == timedelta(minutes=-30)
    assert hours(tight, None, 0.0).spare is None


def test_a_deadline_before_anything_begins_is_missed_whatever_the_rate() -> None:
    early = known(NIGHTS, pace=Pace(0, 0, None), deadline=NOON + timedelta(hours=9))
    assert hours(early, None, 0.0).spare == timedelta(hours=-1)
    due = {"deadline": NOON + timedelta(hours=9)}
    lines = shown(plan("sdxl", survey(small=1), early, DiskNeed(1, 1, 1, None)), **due)
    assert "deadline  Sat 2026-11-21 21:00 UTC: missed, for nothing begins before it" in lines


def test_it_begins_no_sooner_than_it_may() -> None:
    assert hours(known(not_before=NOON + timedelta(days=1)), 1.0, 1.0).begins == NOON + timedelta(days=1)
    assert hours(known(not_before=NOON - timedelta(days=1)), 1.0, 1.0).begins == NOON


def test_what_takes_more_than_a_year_has_no_end() -> None:
    found = hours(known(NIGHTS), 400 * 8 * 3_600.0, 1.0)
    assert (found.ends, found.num_spans, found.spare) == (None, None, None)


# --- disk ------------------------------------------------------------------------------------------------------------


def test_files_count_as_recorded_ones_of_their_size_and_format_do_else_by_an_estimate(tmp_path: Path) -> None:
    need = disk_need([(SMALL, 10), (OTHER, 1)], {(1000, 1000, "png"): 1_000.0}, str(tmp_path))
    assert (need.num_files, need.num_estimated) == (11, 1)
    assert need.num_bytes == 10_000 + round(512 * 512 * 1.6)
    assert disk_need([(JPEG, 2)], {(1000, 1000, "png"): 1_000.0}, str(tmp_path)).num_bytes == 1_000_000


def test_the_free_space_is_that_of_the_disk_where_the_store_will_be(tmp_path: Path) -> None:
    need = disk_need([(SMALL, 1)], {}, (tmp_path / "not" / "there" / "yet").as_uri())
    assert need.free_bytes is not None
    assert need.fits
    assert not replace(need, num_bytes=need.free_bytes + 1).fits
    assert disk_need([(SMALL, 1)], {}, "memory://images").fits is None


# --- the screen ------------------------------------------------------------------------------------------------------


def shown(planned: Plan, windows: Sequence[Window] = (NIGHTS,), again: bool = False, **timing: datetime) -> list[str]:
    return list(plan_lines(planned, Timing(**timing), windows, again))


def test_a_plan_is_a_screen_of_80_columns() -> None:
    found = survey(small=1_000_000, other=5)
    kinds = (OTHER._replace(pack_key=f"{1024 + 8 * n}x2048/100/DPMSolverMultistepScheduler/{n}") for n in range(99))
    found.to_render.update(dict.fromkeys(kinds, 1_000_000))
    found.num_bad, found.num_existing = 1_234_567, 123_456_789
    due = {"deadline": NOON + timedelta(days=300)}
    need = DiskNeed(123_456_789_012_345, 12_345_678, 1_234_567, 12_345)
    planned = replace(plan("sdxl", found, known(NIGHTS, pace=Pace(8, 6, 1e6), **due), need), num_before=10_000_000)
    lines = shown(planned, **due)
    assert max(map(len, lines)) <= 80, max(lines, key=len)
    assert len(lines) <= 24


def test_a_plan_says_what_there_is_to_know() -> None:
    due = {"deadline": NOON + timedelta(hours=11)}
    found = replace(survey(small=720), num_bad=3, num_existing=5)
    lines = shown(plan("sdxl", found, known(NIGHTS, **due), DiskNeed(2_000_000, 720, 0, 1_000_000)), **due)
    assert lines == [
        "rows      720 valid, 3 invalid, for pair sdxl",
        "rendered  5 exist already",
        "to render 720 jobs in 90 packs",
        "    1000×1000, 10 steps, euler                      720 jobs      90 packs",
        "time      about 2:00:00, 0.1 images/s (1 live worker)",
        "begins    Sat 2026-11-21 22:00 UTC",
        "ends      about Sun 2026-11-22 00:00 UTC, inside its window",
        "deadline  Sat 2026-11-21 23:00 UTC: missed by 1:00:00",
        "disk      2 MB (as recorded), 1 MB free: too little",
    ]


def test_what_nobody_knows_is_said_to_be_unknown() -> None:
    nobody = known(pace=Pace(0, 0, None), deadline=NOON + timedelta(days=1))
    found = replace(survey(small=1), num_existing=None)
    lines = "\n".join(shown(plan("sdxl", found, nobody, DiskNeed(1_600_000, 1, 1, None)), (), deadline=NOON))
    assert "rendered  unknown for all 1: no worker of the pair has said its weights yet" in lines
    assert "time      unknown: no live worker serves pair sdxl" in lines
    assert "unknown whether it is kept" in lines
    assert "disk      1.6 MB (an estimate), free space unknown" in lines
    idle = shown(plan("sdxl", found, known(pace=Pace(2, 0, None)), DiskNeed(1, 1, 1, None)), ())
    assert "time      unknown: 2 live workers, none of them measured yet" in idle
    assert "rendered  not looked for: all are rendered anew" in shown(
        plan("sdxl", found, nobody, DiskNeed(1, 1, 1, None)), (), again=True
    )


def test_a_batch_that_needs_several_nights_says_in_which_it_ends() -> None:
    lines = shown(plan("sdxl", survey(small=7_200), known(NIGHTS), DiskNeed(1, 1, 1, None)))
    assert "ends      about Tue 2026-11-24 02:00 UTC, in the 3rd opening of its window" in lines


def test_where_all_exists_nothing_is_said_of_time_and_disk() -> None:
    lines = shown(plan("sdxl", survey(), known(NIGHTS), DiskNeed(0, 0, 0, None)))
    assert lines[-1] == "to render 0 jobs in 0 packs"


@pytest.mark.parametrize(
    ("num_bytes", "text"), [(0, "0 bytes"), (999, "999 bytes"), (999_600, "1 MB"), (12_940_000_000, "12.9 GB")]
)
def test_sizes_are_read_at_a_glance(num_bytes: int, text: str) -> None:
    assert size_text(num_bytes) == text
