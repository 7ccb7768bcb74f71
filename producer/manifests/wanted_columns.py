"""What a manifest's reader should make of its columns."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from producer.manifests.columns import normal_name

_PROMPT: Final = "prompt"
_CAPTION: Final = "text"


@dataclass(frozen=True)
class WantedColumns:
    """``given``: normal column name → field, by ``--map``. ``needs_prompt``: nothing else gives the prompt.
    ``is_dataset``: the column of captions, as Hugging Face calls it, is the prompt where no other is."""

    given: Mapping[str, str]
    needs_prompt: bool
    is_dataset: bool = False

    def mapping(self, names: Iterable[str]) -> Mapping[str, str]:
        """Normal column name → field, for a file that has these columns."""
        known = {normal_name(name) for name in names}
        has_prompt = _PROMPT in self.given.values() or _PROMPT in known - self.given.keys()
        if not self.is_dataset or not self.needs_prompt or has_prompt or _CAPTION not in known - self.given.keys():
            return self.given
        return {**self.given, _CAPTION: _PROMPT}
