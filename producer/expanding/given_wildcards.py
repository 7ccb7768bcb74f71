"""Wildcards that come with the rows, name → values: whoever hands in a batch from afar has no folder here."""

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final

from producer.manifests.rows import shown_value
from schemas.errors import InputError, TemplateError

#: they are held in memory, and parsed where they are templates
MAX_NAMES: Final = 1_000
MAX_VALUES: Final = 100_000

_NAME: Final = re.compile(r"(?!_)(?!.*__)\w(?:[\w ./-]{0,198}[\w./-])?(?<!_)")
_SHOWN_NAMES: Final = 5


class GivenWildcards:
    """Named in full: what a name with ``*`` would fit is asked of folders alone."""

    def __init__(self, given: Mapping[str, Sequence[str]]) -> None:
        """Raises InputError for names that no template could have, empty values, and too much of either."""
        if len(given) > MAX_NAMES or sum(map(len, given.values())) > MAX_VALUES:
            raise InputError(f"wildcards: {MAX_NAMES:,} of them with {MAX_VALUES:,} values in all are the most")
        for name, values in given.items():
            _check(name, values)
        self._given = {name: tuple(dict.fromkeys(values)) for name, values in given.items()}

    def values(self, name: str) -> tuple[str, ...]:
        """Each value once. Raises TemplateError for a name that was not given."""
        if name not in self._given:
            known = ", ".join(map(shown_value, islice(self._given, _SHOWN_NAMES)))
            raise TemplateError(f"names the wildcard {shown_value(name)}, which was not given; there are {known}")
        return self._given[name]


def _check(name: str, values: Sequence[str]) -> None:
    if _NAME.fullmatch(name) is None:
        raise InputError(f'wildcard "{shown_value(name)}": a name is letters, digits, spaces, and . / - _ between them')
    if isinstance(values, str) or not values:
        raise InputError(f'wildcard "{shown_value(name)}": its values are a list of texts, one at the least')
    if not all(isinstance(value, str) and value.strip() for value in values):
        raise InputError(f'wildcard "{shown_value(name)}": a value is empty, or no text')
