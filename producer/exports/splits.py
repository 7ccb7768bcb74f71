"""``--split train=0.9,test=0.1``: shares of the prompts, by the prompt's hash.

By the prompt, and not by the image: the eight seeds of one prompt stay together, or a model would be tested on what it
was trained with. By its hash, and not by its place: a dataset that grows leaves every prompt where it was.
"""

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

from schemas.errors import InputError
from schemas.printable import shown

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_EXAMPLE: Final = "train=0.9,test=0.1 would be right"


@dataclass(frozen=True)
class Splits:
    """Names and their shares, which together are 1."""

    shares: tuple[tuple[str, float], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises InputError for names that are none, and shares that are not 1 together."""
        shares = tuple(_share(part, text) for part in text.split(","))
        names = [name for name, _ in shares]
        if len(set(names)) < len(names):
            raise InputError(f"--split {shown(text)} names a split twice; {_EXAMPLE}")
        total = math.fsum(share for _, share in shares)
        if not math.isclose(total, 1, abs_tol=1e-9):
            raise InputError(f"--split {shown(text)}: the shares are {total:g} together and should be 1; {_EXAMPLE}")
        return cls(shares)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.shares)

    def of(self, prompt: str) -> str:
        """The split of every image of this prompt."""
        if len(self.shares) == 1:
            return self.shares[0][0]
        place = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8]) / 2**64
        return next((name for name, end in self._ends() if place < end), self.names[-1])

    def _ends(self) -> Iterator[tuple[str, float]]:
        end = 0.0
        for name, share in self.shares:
            end += share
            yield name, end


#: one split, by the name that Hugging Face gives it
WHOLE: Final = Splits((("train", 1.0),))


def _share(part: str, text: str) -> tuple[str, float]:
    name, sign, share = (piece.strip() for piece in part.partition("="))
    if not sign or not _NAME.fullmatch(name):
        raise InputError(f"--split {shown(text)}: {shown(part)} is no name=share; {_EXAMPLE}")
    try:
        number = float(share)
    except ValueError:
        number = math.nan
    if not 0 < number <= 1:
        raise InputError(f"--split {shown(text)}: {shown(share)} is no share between 0 and 1; {_EXAMPLE}")
    return name, number
