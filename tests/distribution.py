"""Which process runs which tests, where pytest-xdist has several: a file's tests run in one, so that what they share is
made once; those of an ``xdist_group`` too, from whatever files."""

import pytest
from xdist.scheduler import LoadGroupScheduling


class ByFile(LoadGroupScheduling):
    """Files and groups are given out in the order of collection, each whole, to whoever has nothing left."""

    def _split_scope(self, nodeid: str) -> str:
        scope: str = super()._split_scope(nodeid)
        return scope.partition("::")[0]


def groups_first(items: list[pytest.Item]) -> None:
    """They take longest, and mostly wait: whatever comes beside them has the processors meanwhile."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)
