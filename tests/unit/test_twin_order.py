"""Which of the batches that have images in common goes first."""

import pytest

from producer.dispatching.twin_order import Twin, goes_before


def twin(batch_id: int, priority: int = 5, *, may: bool = True, under_way: bool = False) -> Twin:
    return Twin(batch_id, priority, may, under_way)


@pytest.mark.parametrize(
    ("group", "ahead"),
    [
        ([twin(1, under_way=True), twin(2)], [None, 1]),  # the older
        ([twin(1), twin(2, 9)], [2, None]),  # the more urgent
        ([twin(1, under_way=True), twin(2, 9)], [2, 1]),  # but not beside what the other has begun
        ([twin(1, may=False), twin(2), twin(3)], [2, None, 2]),  # paused, or not in its hours
        ([twin(1, may=False, under_way=True), twin(2)], [2, 1]),  # its last packs
        ([twin(2, may=False)], [None]),
    ],
)
def test_twins_go_one_after_another_by_priority_then_age(group: list[Twin], ahead: list[int | None]) -> None:
    assert [goes_before(one.id, group) for one in group] == ahead
