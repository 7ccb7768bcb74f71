"""What a template offers: texts, sequences of them, and choices among them. Counted, drawn from, or enumerated.

A count is computed, never enumerated, and exact below ``MOST``. ``bulk`` bounds how many characters and pieces a text
can have, so that wildcards that double each other are refused before they fill the memory.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import nlargest
from itertools import accumulate, permutations
from math import factorial, prod
from random import Random
from typing import Final

#: From here on a count says "so many or more".
MOST: Final = 10**30


@dataclass(frozen=True, eq=False)
class Literal:
    """One text, as it is."""

    text: str

    @property
    def num_texts(self) -> int:
        return 1

    @property
    def bulk(self) -> int:
        return 1 + len(self.text)

    def texts(self) -> Iterator[str]:
        yield self.text

    def drawn(self, rand: Random) -> str:
        return self.text


@dataclass(frozen=True, eq=False)
class Chain:
    """Its parts, one after the other."""

    parts: tuple["Offer", ...]

    @cached_property
    def num_texts(self) -> int:
        return _at_most(prod(part.num_texts for part in self.parts))

    @cached_property
    def bulk(self) -> int:
        return _at_most(1 + sum(part.bulk for part in self.parts))

    def texts(self) -> Iterator[str]:
        """All of them; the last part changes first."""
        return map("".join, _products(self.parts))

    def drawn(self, rand: Random) -> str:
        return "".join([part.drawn(rand) for part in self.parts])


@dataclass(frozen=True, eq=False)
class Choice:
    """So many of the options, each at most once, in any order, with the separator between them.

    ``options`` are distinct, and at least ``most``. ``weights``: one for each, above 0; they matter to draws alone.
    """

    options: tuple["Offer", ...]
    weights: tuple[float, ...]
    fewest: int = 1
    most: int = 1
    separator: str = ","

    @cached_property
    def num_texts(self) -> int:
        return _num_selections([option.num_texts for option in self.options], self.fewest, self.most)

    @cached_property
    def bulk(self) -> int:
        largest = nlargest(self.most, (option.bulk for option in self.options))
        return _at_most(1 + sum(largest) + self.most * len(self.separator))

    def texts(self) -> Iterator[str]:
        """All of them: fewer options before more, and earlier options before later ones."""
        for num in range(self.fewest, self.most + 1):
            for chosen in permutations(self.options, num):
                yield from map(self._joined, _products(chosen))

    def drawn(self, rand: Random) -> str:
        num = self.fewest + int(rand.random() * (self.most - self.fewest + 1))
        if num == 1:
            return self.options[_picked(self._cumulative_weights, rand)].drawn(rand)
        chosen = self._chosen_alike(num, rand) if self._is_even else self._chosen(num, rand)
        return self._joined([option.drawn(rand) for option in chosen])

    def _chosen(self, num: int, rand: Random) -> list["Offer"]:
        left, weights = list(self.options), list(self.weights)
        chosen = []
        for _ in range(num):
            place = _picked(list(accumulate(weights)), rand)
            chosen.append(left.pop(place))
            del weights[place]
        return chosen

    def _chosen_alike(self, num: int, rand: Random) -> list["Offer"]:
        """The same options where each weight is 1, as a wildcard's are: thousands of them are not added up."""
        left = list(self.options)
        return [left.pop(min(int(rand.random() * len(left)), len(left) - 1)) for _ in range(num)]

    @cached_property
    def _is_even(self) -> bool:
        return set(self.weights) == {1.0}

    @cached_property
    def _cumulative_weights(self) -> list[float]:
        return list(accumulate(self.weights))

    def _joined(self, texts: Sequence[str]) -> str:
        """As dynamicprompts does it: an empty text at an end leaves no separator behind."""
        joined = self.separator.join(texts)
        return joined.removeprefix(self.separator).removesuffix(self.separator) if len(texts) > 1 else joined


Offer = Literal | Chain | Choice


def _at_most(num: int) -> int:
    return min(MOST, num)


def _picked(cumulative_weights: Sequence[float], rand: Random) -> int:
    """A place. Of the generator only ``random`` is used: alone it gives the same numbers in every version of Python."""
    point = rand.random() * cumulative_weights[-1]
    return min(bisect_right(cumulative_weights, point), len(cumulative_weights) - 1)


def _num_selections(nums: Sequence[int], fewest: int, most: int) -> int:
    """How many ordered selections of ``fewest`` to ``most`` options there are, where option n has nums[n] texts.

    For k options: k! times the elementary symmetric polynomial of degree k.
    """
    if most == 1:
        return _at_most(sum(nums) + (fewest == 0))
    num = 1
    for taken in range(most):  # each option has a text, so there are this many at the least
        num *= len(nums) - taken
        if num >= MOST:
            return MOST
    polynomials = [1] + [0] * most
    for own in nums:
        for degree in range(most, 0, -1):
            polynomials[degree] = _at_most(polynomials[degree] + polynomials[degree - 1] * own)
    return _at_most(sum(factorial(degree) * polynomials[degree] for degree in range(fewest, most + 1)))


def _products(offers: Sequence[Offer]) -> Iterator[tuple[str, ...]]:
    """A text of each, in all combinations; the last changes first. Nothing is kept but the place in each."""
    if not offers:
        yield ()
        return
    chosen: list[str] = []
    opened = [offers[0].texts()]
    while opened:
        text = next(opened[-1], None)
        if text is None:
            opened.pop()
            del chosen[-1:]
        elif len(opened) == len(offers):
            yield (*chosen, text)
        else:
            chosen.append(text)
            opened.append(offers[len(opened)].texts())
