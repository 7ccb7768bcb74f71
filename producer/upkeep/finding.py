"""What `nightshift verify` has to say about one thing."""

from dataclasses import asdict, dataclass
from typing import Any, Final

from schemas.printable import printable

#: for what no transaction of ours leaves behind
RESTORE_LEDGER: Final = "no Nightshift writes that: restore the ledger from a backup"
RESTORE_FILE: Final = "put it back from a backup, or submit its row again"


@dataclass(frozen=True)
class Finding:
    """``subject``: such as ``job 3/17``. ``code``: what is wrong, for programs. ``sentence``: for people, with what to
    do. A note tells of what may well be right, and fails nothing."""

    subject: str
    code: str
    sentence: str
    is_note: bool = False

    @property
    def line(self) -> str:
        return printable(f"{'note: ' if self.is_note else ''}{self.subject}: {self.sentence}")

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "subject": printable(self.subject), "sentence": printable(self.sentence)}
