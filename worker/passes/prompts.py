"""Which texts each stage of a job reads. Pure: knows specs, no torch."""

from dataclasses import dataclass

from schemas.combinations import base_is_guided, refiner_guidance
from schemas.spec import JobSpec


@dataclass(frozen=True)
class StagePrompts:
    """The texts of one stage, each for ``text_encoder`` and for ``text_encoder_2``. The refiner has only the latter."""

    positive: tuple[str, str]
    #: None where there is none: zeros for the base (``force_zeros_for_empty_prompt``), the empty text for the refiner
    negative: tuple[str, str] | None
    syntax: str
    #: of the positive texts alone, as in diffusers
    clip_skip: int | None
    #: Without guidance nobody looks at the negative texts.
    is_guided: bool

    @property
    def read(self) -> tuple[str, ...]:
        """Every text that is looked at."""
        return (*self.positive, *(self.negative or ())) if self.is_guided else self.positive


def base_prompts(spec: JobSpec) -> StagePrompts:
    """As the arguments of ``StableDiffusionXLPipeline``: ``prompt_2`` stands for ``prompt`` where it is given."""
    negative = None
    if spec.negative_prompt is not None:
        negative = (spec.negative_prompt, spec.negative_prompt_2 or spec.negative_prompt)
    positive = (spec.prompt, spec.prompt_2 or spec.prompt)
    return StagePrompts(positive, negative, spec.prompt_syntax, spec.clip_skip, base_is_guided(spec))


def refiner_prompts(spec: JobSpec) -> StagePrompts:
    """The refiner's own texts, else the base's; ``prompt_2`` is not for it, as in diffusers."""
    prompt = spec.prompt if spec.refiner.prompt is None else spec.refiner.prompt
    negative = spec.negative_prompt if spec.refiner.negative_prompt is None else spec.refiner.negative_prompt
    both = None if negative is None else (negative, negative)
    return StagePrompts((prompt, prompt), both, spec.prompt_syntax, None, refiner_guidance(spec) > 1)
