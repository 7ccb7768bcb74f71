"""What base and refiner are told beside the noisy latents: prompts, sizes, crops, aesthetic scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from schemas.spec import JobSpec
from worker.loading.pipelines import LoadedPair
from worker.passes.embedding import PromptEmbeds, embed, stacked
from worker.passes.prompts import base_prompts, refiner_prompts

_NO_CROP = (0, 0)
#: numbers of one image's time ids: six of the base (height, width, top, left, height, width), five of the refiner
TimeIds = tuple[float, ...]


@dataclass(frozen=True)
class Conditioning:
    """For ``n`` images; with guidance the rows of the ``n`` negatives stand before those of the positives."""

    #: (n or 2n, chunks x 77, width)
    hidden_states: torch.Tensor
    #: (n or 2n, width)
    pooled: torch.Tensor
    #: (n or 2n, 6 for the base, 5 for the refiner)
    time_ids: torch.Tensor
    is_guided: bool


def base_conditioning(pair: LoadedPair, specs: Sequence[JobSpec]) -> Conditioning:
    """Original size, crop and target size beside the prompts. The negative ones are the positive ones by default."""
    prompts = [base_prompts(spec) for spec in specs]
    embeds = [embed(pair.base, one, pair.texts) for one in prompts]
    return _conditioning(embeds, prompts[0].is_guided, [_base_time_ids(spec) for spec in specs])


def refiner_conditioning(pair: LoadedPair, specs: Sequence[JobSpec]) -> Conditioning:
    """Original size, crop and aesthetic score beside the prompts."""
    scored = pair.refiner.config.requires_aesthetics_score
    time_ids = [_refiner_time_ids(spec) if scored else _unscored_time_ids(spec) for spec in specs]
    prompts = [refiner_prompts(spec) for spec in specs]
    return _conditioning([embed(pair.refiner, one, pair.texts) for one in prompts], prompts[0].is_guided, time_ids)


def _base_time_ids(spec: JobSpec) -> tuple[TimeIds, TimeIds]:
    """Positive and negative, as ``StableDiffusionXLPipeline`` makes them."""
    size = (spec.height, spec.width)
    positive = (*(spec.original_size or size), *(spec.crops_coords_top_left or _NO_CROP), *(spec.target_size or size))
    if spec.negative_original_size is None or spec.negative_target_size is None:
        return positive, positive
    crop = spec.negative_crops_coords_top_left or _NO_CROP
    return positive, (*spec.negative_original_size, *crop, *spec.negative_target_size)


def _refiner_time_ids(spec: JobSpec) -> tuple[TimeIds, TimeIds]:
    """As ``StableDiffusionXLImg2ImgPipeline`` makes them: a negative crop is none unless it is given."""
    original = spec.original_size or (spec.height, spec.width)
    negative = (*(spec.negative_original_size or original), *(spec.negative_crops_coords_top_left or _NO_CROP))
    positive = (*original, *(spec.crops_coords_top_left or _NO_CROP), spec.refiner.aesthetic_score)
    return positive, (*negative, spec.refiner.negative_aesthetic_score)


def _unscored_time_ids(spec: JobSpec) -> tuple[TimeIds, TimeIds]:
    """Of a refiner that takes no score: as those of a base, but for the negative crop, which is the positive one."""
    positive, _ = _base_time_ids(spec)
    original, target = spec.negative_original_size or positive[:2], spec.negative_target_size or positive[4:]
    return positive, (*original, *positive[2:4], *target)


def _conditioning(
    embeds: Sequence[PromptEmbeds], is_guided: bool, time_ids: Sequence[tuple[TimeIds, TimeIds]]
) -> Conditioning:
    told = stacked(embeds)
    hidden, pooled = told["prompt_embeds"], told["pooled_prompt_embeds"]
    positive, negative = (
        torch.tensor(ids, dtype=hidden.dtype, device=hidden.device) for ids in zip(*time_ids, strict=True)
    )
    if not is_guided:
        return Conditioning(hidden, pooled, positive, is_guided=False)
    return Conditioning(
        torch.cat([told["negative_prompt_embeds"], hidden]),
        torch.cat([told["negative_pooled_prompt_embeds"], pooled]),
        torch.cat([negative, positive]),
        is_guided=True,
    )
