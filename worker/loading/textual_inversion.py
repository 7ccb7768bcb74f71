"""Learned tokens: their vectors go into both text encoders, and prompts name them.

The refiner knows them too, since it shares the second encoder and its tokenizer.
"""

from pathlib import Path
from typing import Final

import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.loaders import TextualInversionLoaderMixin
from safetensors.torch import load_file
from transformers import CLIPTokenizer, PreTrainedModel

from worker.loading.weight_files import require_honest_file

#: The keys of SDXL's files → the parts of the pipeline that they are for.
_PARTS: Final = {"clip_l": ("tokenizer", "text_encoder"), "clip_g": ("tokenizer_2", "text_encoder_2")}


def load_textual_inversion(base: StableDiffusionXLPipeline, token: str, file: Path) -> None:
    """Teaches both text encoders the token. Before the refiner is loaded: it is given the second one as it is.

    Raises:
        ValueError: the file is not one for this base, or its tokenizers have the token already.
    """
    require_honest_file(file)
    found = load_file(file)
    for key in _PARTS:
        if key not in found:
            raise ValueError(f"it has no {key}, as SDXL's textual inversions have beside {', '.join(sorted(found))}")
    vectors = {key: torch.atleast_2d(found[key]) for key in _PARTS}
    if len(vectors["clip_l"]) != len(vectors["clip_g"]):
        raise ValueError(f"it has {len(vectors['clip_l'])} vectors in clip_l and {len(vectors['clip_g'])} in clip_g")
    parts = {key: (getattr(base, tokenizer), getattr(base, encoder)) for key, (tokenizer, encoder) in _PARTS.items()}
    for key, (tokenizer, encoder) in parts.items():  # all checks first: half of a token is worse than none
        _check_width(key, vectors[key], encoder)
        _check_new(token, len(vectors[key]), tokenizer)
    for key, (tokenizer, encoder) in parts.items():
        base.load_textual_inversion(vectors[key], token=token, tokenizer=tokenizer, text_encoder=encoder)


def with_all_vectors(text: str, tokenizer: CLIPTokenizer) -> str:
    """The text in which a token of several vectors stands with all of them, ``<x> <x>_1 <x>_2``, as diffusers writes
    it; every other text as it is."""
    return TextualInversionLoaderMixin().maybe_convert_prompt(text, tokenizer)


def _check_width(key: str, vectors: torch.Tensor, encoder: PreTrainedModel) -> None:
    width = encoder.config.hidden_size
    if vectors.ndim != 2 or vectors.shape[1] != width:
        raise ValueError(f"its {key} has the shape {tuple(vectors.shape)}, and the text encoder is {width} wide")


def _check_new(token: str, num_vectors: int, tokenizer: CLIPTokenizer) -> None:
    vocabulary = tokenizer.get_vocab()
    taken = next((name for name in _names(token, num_vectors) if name in vocabulary), None)
    if taken is not None:
        raise ValueError(f"the tokenizer has the token {taken!r} already: choose another, such as '<{token}>'")


def _names(token: str, num_vectors: int) -> list[str]:
    """As diffusers calls them."""
    return [token, *(f"{token}_{index}" for index in range(1, num_vectors))]
