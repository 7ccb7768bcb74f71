"""Embeds one job's prompts: one text at a time, so that no image depends on its neighbours, and a text that was met
before is not encoded again. ``worker.passes.text_encoder`` says what becomes of a text.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Final, NamedTuple

import pyparsing
import torch
from compel import Compel
from compel.prompt_parser import Blend, FlattenedPrompt, PromptParser
from transformers import CLIPTokenizer

from schemas.errors import SpecError
from schemas.spec import JobSpec
from worker.loading.loras import without_loras
from worker.loading.pipelines import LoadedPair
from worker.loading.textual_inversion import with_all_vectors
from worker.passes.prompts import StagePrompts, base_prompts, refiner_prompts
from worker.passes.remembered_texts import EncodedText, RememberedTexts, TextKey
from worker.passes.text_encoder import PENULTIMATE, TOKENIZERS, Encoder, SdxlPipeline, chunks

# compel's parser tries every reading of nested parentheses again at each level: "((((((((" took it 22 seconds.
pyparsing.ParserElement.enable_packrat()

_QUOTED_OR_OPERATOR: Final = re.compile(r'"(?:\\.|[^"\\])*"|(\.(?:blend|and|add)\b)', re.DOTALL)
#: characters of the prompt that a refusal shows before and after the one that it is about
_SHOWN_BEFORE: Final = 25
_SHOWN_AFTER: Final = 35
_OPERATORS: Final = ".blend() and .and()"


class Chunks(NamedTuple):
    """How many chunks of 77 tokens each side reads; 0 where it has no part."""

    base: int
    refiner: int


@dataclass(frozen=True)
class PromptEmbeds:
    """The arguments of a pipeline's call, under its names. Hidden states (1, chunks x 77, width), pooled (1, width)."""

    prompt_embeds: torch.Tensor
    pooled_prompt_embeds: torch.Tensor
    negative_prompt_embeds: torch.Tensor
    negative_pooled_prompt_embeds: torch.Tensor


def num_chunks(pair: LoadedPair, spec: JobSpec) -> Chunks:
    """How many chunks the longest text of each side has.

    Not on the device, and not with the pipelines' tokenizers: another thread may render meanwhile.

    Raises:
        SpecError: the prompt's compel syntax asks for what cannot be rendered.
    """
    mode = spec.refiner.mode
    return Chunks(
        base=0 if mode == "only" else _num_stage_chunks(pair, base_prompts(spec)),
        refiner=0 if mode == "off" else _num_stage_chunks(pair, refiner_prompts(spec)),
    )


def _num_stage_chunks(pair: LoadedPair, prompts: StagePrompts) -> int:
    texts = dict.fromkeys(prompts.read)
    return max(_num_text_chunks(pair.counting_tokenizers, text, prompts.syntax) for text in texts)


def embed(pipe: SdxlPipeline, prompts: StagePrompts, texts: RememberedTexts) -> PromptEmbeds:
    """The embeddings of a stage's prompts: ``worker.passes.prompts`` has those of the base and those of the refiner.

    A prompt of one chunk is embedded as ``pipe.encode_prompt`` does it, bit for bit. Positive and negative are padded
    to equally many chunks with the empty prompt's, as compel does it. LoRAs of the shared text encoder are the base's.
    What ``texts`` remembers is not encoded again.
    """
    if pipe.text_encoder is not None:
        return _embedded(_Readers.of(pipe, texts), pipe, prompts)
    with without_loras(pipe.text_encoder_2):
        return _embedded(_Readers.of(pipe, texts), pipe, prompts)


def _embedded(readers: "_Readers", pipe: SdxlPipeline, prompts: StagePrompts) -> PromptEmbeds:
    hidden, pooled = readers.read(prompts.positive, prompts.syntax, prompts.clip_skip)
    if _has_no_negative(pipe, prompts):
        return PromptEmbeds(hidden, pooled, torch.zeros_like(hidden), torch.zeros_like(pooled))
    negative_hidden, negative_pooled = readers.read(prompts.negative or ("", ""), prompts.syntax, None)
    num_tokens = max(hidden.shape[1], negative_hidden.shape[1])
    return PromptEmbeds(
        _padded(hidden, num_tokens, lambda: readers.read(("", ""), "plain", prompts.clip_skip)[0]),
        pooled,
        _padded(negative_hidden, num_tokens, lambda: readers.read(("", ""), "plain", None)[0]),
        negative_pooled,
    )


def stacked(embeds: Sequence[PromptEmbeds]) -> dict[str, torch.Tensor]:
    """Keyword arguments of a pipeline's call for all these prompts, in their order.

    Raises:
        ValueError: they are not of one length; padding one to another's would change its image.
    """
    lengths = {one.prompt_embeds.shape[1] for one in embeds}
    if len(lengths) != 1:
        raise ValueError(f"a forward pass takes prompts of one kind, not of {len(lengths)} lengths")
    return {name: torch.cat([getattr(one, name) for one in embeds]) for name in PromptEmbeds.__dataclass_fields__}


def _has_no_negative(pipe: SdxlPipeline, prompts: StagePrompts) -> bool:
    if not prompts.is_guided:
        return True  # the pipelines do not look at it
    return prompts.negative is None and pipe.config.force_zeros_for_empty_prompt


@dataclass(frozen=True)
class _Readers:
    """The encoders that a pipeline has: the base two, the refiner only the second."""

    encoders: list[Encoder]
    texts: RememberedTexts

    @classmethod
    def of(cls, pipe: SdxlPipeline, texts: RememberedTexts) -> "_Readers":
        return cls([Encoder.of(pipe, name) for name in TOKENIZERS if getattr(pipe, name) is not None], texts)

    def read(self, texts: tuple[str, str], syntax: str, clip_skip: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states of all encoders side by side, those of fewer chunks padded with the empty text's; pooled."""
        layer = PENULTIMATE - (clip_skip or 0)
        both = list(zip(self.encoders, texts[-len(self.encoders) :], strict=True))
        found = [self._recalled(encoder, text, syntax, layer) for encoder, text in both]
        num_tokens = max(one.hidden.shape[1] for one in found)
        hidden = [
            _padded(one.hidden, num_tokens, lambda encoder=encoder: self._recalled(encoder, "", syntax, layer).hidden)
            for one, encoder in zip(found, self.encoders, strict=True)
        ]
        return torch.cat(hidden, dim=-1), found[-1].pooled

    def _recalled(self, encoder: Encoder, text: str, syntax: str, layer: int) -> EncodedText:
        key = TextKey(encoder.name, text, syntax, layer, encoder.adapters)
        return self.texts.recall(key, partial(encoder.encode, text, syntax, layer))


def _padded(hidden: torch.Tensor, num_tokens: int, empty: Callable[[], torch.Tensor]) -> torch.Tensor:
    """``empty`` embeds the empty text, where chunks of it are missing."""
    if hidden.shape[1] == num_tokens:
        return hidden
    chunk = empty()
    return torch.cat([hidden, chunk.repeat(1, (num_tokens - hidden.shape[1]) // chunk.shape[1], 1)], dim=1)


def _num_text_chunks(tokenizers: Sequence[CLIPTokenizer], text: str, syntax: str) -> int:
    text = with_all_vectors(text, tokenizers[-1])
    if syntax == "plain":
        return max(len(chunks(tokenizer, [text])) for tokenizer in tokenizers)
    prompts = _parsed(text)
    return max(sum(_num_prompt_chunks(tokenizer, prompt) for prompt in prompts) for tokenizer in tokenizers)


def _num_prompt_chunks(tokenizer: CLIPTokenizer, prompt: Blend | FlattenedPrompt) -> int:
    if isinstance(prompt, Blend):
        return max(_num_prompt_chunks(tokenizer, part) for part in prompt.prompts)
    return len(chunks(tokenizer, [fragment.text for fragment in prompt.children]))


def _parsed(text: str) -> list[Blend | FlattenedPrompt]:
    try:
        conjunction = Compel.parse_prompt_string(text)
    except pyparsing.ParseBaseException as error:
        reason = "compel reads no further than this; .blend(...) ends a prompt"
        raise _refusal(text, reason, _same_place(error.pstr, error.loc, text)) from None
    except PromptParser.ParsingException as error:
        counts = "mismatched" in str(error)
        reason = f"{_OPERATORS} have as many weights as parts, or none" if counts else f"compel cannot read it: {error}"
        raise _refusal(text, reason, _operator(text)) from None
    except ValueError as error:
        reason = f"the weights of {_OPERATORS} are numbers; {error}"
        raise _refusal(text, reason, _operator(text)) from None
    except RecursionError:
        raise _refusal(text, "its parentheses are nested deeper than compel can follow") from None
    if not conjunction.prompts:
        raise _refusal(text, "there is no text in it")
    if any(prompt.wants_cross_attention_control for prompt in conjunction.prompts):
        reason = ".swap() is not possible with SDXL's pipelines; write one of the two"
        raise _refusal(text, reason, text.find(".swap"))
    if any(weight != 1 for weight in conjunction.weights):
        reason = "compel cannot weigh the parts of .and() for SDXL; weigh the words in them"
        raise _refusal(text, reason, _operator(text))
    blends = [prompt for prompt in conjunction.prompts if isinstance(prompt, Blend)]
    if not all(isfinite(weight) for blend in blends for weight in blend.weights):
        raise _refusal(text, f"the weights of {_OPERATORS} are finite numbers", _operator(text))
    return conjunction.prompts


def _same_place(parsed: str, place: int, text: str) -> int:
    """The place in the text as it was written: compel has put spaces after its commas and in the place of tabs."""
    num_before = len("".join(parsed[:place].split()))
    written = [n for n, character in enumerate(text) if not character.isspace()]
    return written[num_before]


def _operator(text: str) -> int | None:
    """Where .blend or .and stands, outside of quotes."""
    return next((found.start() for found in _QUOTED_OR_OPERATOR.finditer(text) if found[1]), None)


def _refusal(text: str, reason: str, place: int | None = None) -> SpecError:
    """``place``: the character that the reason is about, from 0; the sentence shows what stands around it."""
    first = max((place or 0) - _SHOWN_BEFORE, 0)
    last = (place or 0) + _SHOWN_AFTER
    shown = f"{'...' if first else ''}{text[first:last]}{'...' if last < len(text) else ''}"
    return SpecError(f"prompt in compel syntax{_said(text, place)}: {shown!r}: {reason}")


def _said(text: str, place: int | None) -> str:
    if place is None:
        return ""
    line, character = text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)
    return f", line {line}, character {character}" if "\n" in text else f", character {character}"
