"""What the text encoders made of texts, kept for the next time: a dataset with eight seeds a prompt encodes an eighth.

Base and refiner share the second encoder, so what it said to one of them is kept for the other.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch

#: Where nothing else is said: about 800 prompts of one chunk in 16 bits, for both encoders.
DEFAULT_BYTES: Final = 256_000_000


class TextKey(NamedTuple):
    """All that decides what an encoder makes of a text."""

    #: the pipelines' name for it
    encoder: str
    text: str
    syntax: str
    #: of the hidden states, from the last one: -2 is the penultimate
    layer: int
    #: ``worker.loading.loras.worn``
    adapters: Hashable


@dataclass(frozen=True)
class EncodedText:
    """Hidden states (1, chunks x 77, width); pooled (1, width), which only the second encoder gives."""

    hidden: torch.Tensor
    pooled: torch.Tensor | None

    @property
    def size_bytes(self) -> int:
        """Of the memory behind the tensors, of which a tensor may show only a part."""
        tensors = [self.hidden] if self.pooled is None else [self.hidden, self.pooled]
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


class RememberedTexts:
    """Of at most so many bytes; what nobody asked for longest is forgotten first. The device thread alone asks."""

    def __init__(self, most_bytes: int = DEFAULT_BYTES) -> None:
        self._most_bytes = most_bytes
        self._texts: OrderedDict[TextKey, EncodedText] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._texts)

    def recall(self, key: TextKey, encode: Callable[[], EncodedText]) -> EncodedText:
        """What ``encode`` gives, or gave when it was asked for the same key."""
        if key in self._texts:
            self._texts.move_to_end(key)
            return self._texts[key]
        encoded = self._texts[key] = encode()
        self.size_bytes += encoded.size_bytes
        while self.size_bytes > self._most_bytes:
            _, forgotten = self._texts.popitem(last=False)
            self.size_bytes -= forgotten.size_bytes
        return encoded
