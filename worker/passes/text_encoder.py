"""One text encoder of a pair, and what it makes of one text, whole and alone.

Long texts are cut into chunks of at most 75 tokens where compel cuts them (end of a sentence, else of a phrase, else of
a word), each between BOS and EOS and padded to 77; their hidden states stand one after the other. The pooled vector is
that of the first 75 tokens, as compel and diffusers have it.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

import torch
from compel import Compel, EmbeddingsProvider, ReturnedEmbeddingsType, SplitLongTextMode
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from worker.loading.loras import worn
from worker.loading.textual_inversion import with_all_vectors
from worker.passes.remembered_texts import EncodedText

SdxlPipeline = StableDiffusionXLPipeline | StableDiffusionXLImg2ImgPipeline

#: The layer whose hidden states SDXL reads.
PENULTIMATE: Final = -2
#: The pipelines' name of each encoder → that of its tokenizer.
TOKENIZERS: Final = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}


@dataclass(frozen=True)
class Encoder:
    """Base and refiner have one and the same under the name ``text_encoder_2``."""

    pipe: SdxlPipeline
    name: str
    adapters: Hashable

    @classmethod
    def of(cls, pipe: SdxlPipeline, name: str) -> "Encoder":
        return cls(pipe, name, worn(getattr(pipe, name)))

    @property
    def network(self) -> CLIPTextModel | CLIPTextModelWithProjection:
        return getattr(self.pipe, self.name)

    @property
    def tokenizer(self) -> CLIPTokenizer:
        return getattr(self.pipe, TOKENIZERS[self.name])

    def encode(self, text: str, syntax: str, layer: int) -> EncodedText:
        """``layer``: of the hidden states, from the last one; of a plain text."""
        text = with_all_vectors(text, self.pipe.tokenizer_2)
        return self._by_compel(text) if syntax == "compel" else self._plain(text, layer)

    @property
    def _pools(self) -> bool:
        return isinstance(self.network, CLIPTextModelWithProjection)

    def _plain(self, text: str, layer: int) -> EncodedText:
        """One chunk at a time: encoded together, they would be rounded otherwise."""
        ids = chunks(self.tokenizer, [text])
        outputs = [self._output(one) for one in ids]
        hidden = torch.cat([output.hidden_states[layer] for output in outputs], dim=1)
        if not self._pools:
            return EncodedText(hidden, None)
        if len(ids) == 1:
            return EncodedText(hidden, outputs[0].text_embeds)
        # not the tokenizer's own truncation: that is a switch in the tokenizer, which other threads would see
        first = chunks(self.tokenizer, [text], SplitLongTextMode.BRUTAL)[0]
        output = outputs[0] if torch.equal(first, ids[0]) else self._output(first)
        return EncodedText(hidden, output.text_embeds)

    def _output(self, ids: torch.Tensor):
        return self.network(ids[None].to(self.network.device), output_hidden_states=True)

    def _by_compel(self, text: str) -> EncodedText:
        compel = Compel(
            tokenizer=self.tokenizer,
            text_encoder=self.network,
            returned_embeddings_type=ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED,
            requires_pooled=self._pools,
            truncate_long_prompts=False,
            # named, since an encoder that is offloaded is somewhere else when compel asks it
            device=self.pipe._execution_device,
        )
        found = compel(text)
        return EncodedText(*found) if self._pools else EncodedText(found, None)


def chunks(
    tokenizer: CLIPTokenizer, fragments: list[str], mode: SplitLongTextMode = SplitLongTextMode.SENTENCES
) -> torch.Tensor:
    """Token ids (chunks, 77) of the fragments, which follow one another."""
    provider = EmbeddingsProvider(tokenizer, None, truncate=False, device="cpu", split_long_text_mode=mode)
    ids, _, _ = provider.get_token_ids_and_expand_weights(fragments, [1.0] * len(fragments), device="cpu")
    return ids.reshape(-1, tokenizer.model_max_length)
