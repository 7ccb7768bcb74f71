"""The bound of a batch: more jobs than ``max_jobs`` are refused with the number that there would be.

What lies beyond the bound is counted and not made, so that the sentence can say the number.
"""

from dataclasses import dataclass
from typing import Final

from producer.expanding.choices import MOST
from schemas.errors import TooManyJobsError

#: beyond the bound: counting ends here, and the sentence says "more than"
_MAX_COUNTED_ROWS: Final = 1_000_000


@dataclass
class JobBound:
    """Counts the jobs of a manifest. ``max_jobs`` None: any number."""

    max_jobs: int | None
    num_jobs: int = 0
    _num_beyond: int = 0
    _most_of_a_row: tuple[int, int] = (0, 0)

    def takes(self, line: int, num: int) -> bool:
        """Whether the jobs of this row may be made. From the first that may not, all are only counted.

        Raises:
            TooManyJobsError: counting went on for long enough.
        """
        if num > self._most_of_a_row[0]:
            self._most_of_a_row = num, line
        if self.has_room(num):
            return True
        self.num_jobs += num
        self._num_beyond += 1
        if self._num_beyond > _MAX_COUNTED_ROWS:
            self._refuse("more than ")
        return False

    def has_room(self, num: int) -> bool:
        """Whether so many more may be made."""
        return self.max_jobs is None or (not self._num_beyond and self.num_jobs + num <= self.max_jobs)

    def made(self) -> None:
        """One job of a row that was taken."""
        self.num_jobs += 1

    def check(self) -> None:
        """After the last row. Raises TooManyJobsError where there were too many jobs."""
        if self._num_beyond:
            self._refuse("")

    def _refuse(self, more: str) -> None:
        most, line = self._most_of_a_row
        one = f" (line {line} alone {_number(most)})" if most > (self.max_jobs or 0) else ""
        would_be = f"the manifest would be {more}{_number(self.num_jobs)} jobs{one}"
        hint = "take fewer rows with --limit, ask for fewer images of each, or raise --max-jobs"
        message = f"{would_be}, and --max-jobs is {self.max_jobs:,}: {hint}"
        raise TooManyJobsError(message, f"{would_be}, and {self.max_jobs:,} may be")


def _number(num: int) -> str:
    return f"{num:,}" if num < MOST else f"{MOST:,} or more"
