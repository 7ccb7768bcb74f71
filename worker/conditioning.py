"""What base and refiner are told beside the noisy latents: prompts, sizes, aesthetic scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

from schemas.spec import JobSpec
from worker.embedding import embed, is_guided, stacked

_NO_CROP = (0, 0)


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


def base_conditioning(base: StableDiffusionXLPipeline, specs: Sequence[JobSpec]) -> Conditioning:
    """Original size, crop and target size beside the prompts."""
    size = (specs[0].height, specs[0].width)
    width = base.text_encoder_2.config.projection_dim
    ids = base._get_add_time_ids(size, _NO_CROP, size, dtype=torch.float32, text_encoder_projection_dim=width)
    return _conditioning(base, specs, (ids, ids))


def refiner_conditioning(refiner: StableDiffusionXLImg2ImgPipeline, specs: Sequence[JobSpec]) -> Conditioning:
    """Original size, crop and aesthetic score beside the prompts."""
    size, scores = (specs[0].height, specs[0].width), specs[0].refiner
    ids = refiner._get_add_time_ids(
        size, _NO_CROP, size, scores.aesthetic_score, scores.negative_aesthetic_score, size, _NO_CROP, size,
        dtype=torch.float32, text_encoder_projection_dim=refiner.text_encoder_2.config.projection_dim,
    )  # fmt: skip
    return _conditioning(refiner, specs, ids)


def _conditioning(
    pipe: StableDiffusionXLPipeline | StableDiffusionXLImg2ImgPipeline,
    specs: Sequence[JobSpec],
    time_ids: tuple[torch.Tensor, torch.Tensor],
) -> Conditioning:
    """``time_ids``: positive and negative, (1, 5 or 6) each."""
    embeds = stacked([embed(pipe, spec) for spec in specs])
    hidden, pooled = embeds["prompt_embeds"], embeds["pooled_prompt_embeds"]
    positive, negative = (ids.to(hidden.device, hidden.dtype).repeat(len(specs), 1) for ids in time_ids)
    if not is_guided(specs[0]):
        return Conditioning(hidden, pooled, positive, is_guided=False)
    return Conditioning(
        torch.cat([embeds["negative_prompt_embeds"], hidden]),
        torch.cat([embeds["negative_pooled_prompt_embeds"], pooled]),
        torch.cat([negative, positive]),
        is_guided=True,
    )
