"""A CLIP tokenizer for synthetic pairs, learned from the word counts in ``synthetic_words.txt`` beside this module."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import CLIPTokenizer

#: CLIP's context: start, 75 tokens of text, end.
CONTEXT_LENGTH: Final = 77

_WORDS_FILE: Final = Path(__file__).with_name("synthetic_words.txt")
_WORD_END: Final = "</w>"
_START: Final = "<|startoftext|>"
_END: Final = "<|endoftext|>"


def synthetic_tokenizers(vocabulary_size: int | None) -> tuple[CLIPTokenizer, CLIPTokenizer]:
    """``tokenizer`` and ``tokenizer_2``: the same ids, padded with the end token and with "!" as SDXL's are.

    ``vocabulary_size`` None: as many tokens as were learned.
    """
    merges = _learned_merges()
    vocabulary = _vocabulary(merges, vocabulary_size)
    return _tokenizer(vocabulary, merges, pad_token=_END), _tokenizer(vocabulary, merges, pad_token="!")  # noqa: S106


def _tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]], pad_token: str) -> CLIPTokenizer:
    return CLIPTokenizer(vocabulary, merges, pad_token=pad_token, model_max_length=CONTEXT_LENGTH)


def _learned_merges() -> list[tuple[str, str]]:
    """The pairs that byte pair encoding joins, the most frequent first."""
    tokenizer = Tokenizer(BPE(end_of_word_suffix=_WORD_END))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    # Pairs of equal count go by their ids: given beforehand, these do not depend on the order of a hash map.
    trainer = trainers.BpeTrainer(show_progress=False, special_tokens=_bytes(), end_of_word_suffix=_WORD_END)
    tokenizer.train_from_iterator(_words(), trainer)
    return [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]


def _words() -> Iterator[str]:
    """Each word as often as it was counted."""
    for line in _WORDS_FILE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            word, count = line.split()
            yield from [word] * int(count)


def _bytes() -> list[str]:
    """One printable character for each byte, "!" first as in CLIP; then the same as the end of a word."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return [*alphabet, *(byte + _WORD_END for byte in alphabet)]


def _vocabulary(merges: list[tuple[str, str]], size: int | None) -> dict[str, int]:
    """Ids in CLIP's order: bytes, merges, what fills up to ``size``, start, end."""
    learned = list(dict.fromkeys([*_bytes(), *(left + right for left, right in merges)]))
    num_unused = 0 if size is None else size - len(learned) - 2
    tokens = [*learned, *(f"<|unused{index}|>" for index in range(num_unused)), _START, _END]
    return {token: index for index, token in enumerate(tokens)}
