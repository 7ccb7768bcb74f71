"""Plain code with diffusers' pipelines, written as its documentation shows: what our rendering is held against."""

from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from compel import Compel, CompelForSDXL, ReturnedEmbeddingsType

from tests.unit.schedulers import fresh_scheduler


@dataclass(frozen=True)
class PlainPair:
    """The two pipelines, and the base's scheduler configuration as it came."""

    base: diffusers.StableDiffusionXLPipeline
    refiner: diffusers.StableDiffusionXLImg2ImgPipeline
    scheduler_config: Any
    device: str = "cpu"


@dataclass(frozen=True)
class Reference:
    """Renders one spec, alone. ``padding_chunks``: so many empty chunks stand behind its prompts, as a wrong input."""

    pair: PlainPair
    padding_chunks: int = 0
    output_type: str = "latent"
    refiner_options: dict[str, Any] = field(default_factory=dict)

    def render(self, one):
        """Latents (4, height / 8, width / 8), or the picture where ``output_type`` is "pil"."""
        base, refiner = self.pair.base, self.pair.refiner
        generator = torch.Generator("cpu").manual_seed(one.seed)
        settings = {"num_inference_steps": one.num_inference_steps, "guidance_scale": one.guidance_scale,
                    "generator": generator}  # fmt: skip
        at_base = {**settings, **self._base_prompts(one), "height": one.height, "width": one.width}
        base.scheduler, refiner.scheduler = self._scheduler(one), self._scheduler(one)
        if one.refiner.mode == "off":
            return base(**at_base, output_type=self.output_type).images[0]
        seam = ({"denoising_end": one.refiner.start}, {"denoising_start": one.refiner.start})
        if one.refiner.mode == "img2img":
            seam = ({}, {"strength": one.refiner.strength})
        latents = base(**at_base, **seam[0], output_type="latent").images
        at_refiner = {**settings, **self._refiner_prompts(one), **seam[1], **self.refiner_options}
        return refiner(image=latents, **at_refiner, output_type=self.output_type).images[0]

    def _scheduler(self, one):
        options = dict(one.scheduler_options)
        if one.scheduler == "DPMSolverSDEScheduler":
            options["noise_sampler_seed"] = [one.seed]
        return fresh_scheduler(one.scheduler, self.pair.scheduler_config, **options)

    def _is_for_compel(self, one):
        """diffusers would cut a long prompt."""
        return one.prompt_syntax == "compel" or len(one.prompt) > 200

    def _base_prompts(self, one):
        if not self._is_for_compel(one):
            return {"prompt": one.prompt, "negative_prompt": one.negative_prompt}
        with torch.inference_mode():
            found = CompelForSDXL(self.pair.base, device=self.pair.device)(
                one.prompt, negative_prompt=one.negative_prompt
            )
            empty = CompelForSDXL(self.pair.base, device=self.pair.device)("").embeds
        return {
            "prompt_embeds": self._padded(found.embeds, empty),
            "pooled_prompt_embeds": found.pooled_embeds,
            "negative_prompt_embeds": self._padded(found.negative_embeds, empty),
            "negative_pooled_prompt_embeds": found.negative_pooled_embeds,
        }

    def _refiner_prompts(self, one):
        if not self._is_for_compel(one):
            return {"prompt": one.prompt, "negative_prompt": one.negative_prompt}
        compel = Compel(
            tokenizer=self.pair.refiner.tokenizer_2,
            text_encoder=self.pair.refiner.text_encoder_2,
            returned_embeddings_type=ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED,
            requires_pooled=True,
            truncate_long_prompts=False,
            device=self.pair.device,
        )
        with torch.inference_mode():
            hidden, pooled = compel([one.prompt, one.negative_prompt])
            hidden = self._padded(hidden, compel("")[0].repeat(2, 1, 1))
        return {
            "prompt_embeds": hidden[:1],
            "pooled_prompt_embeds": pooled[:1],
            "negative_prompt_embeds": hidden[1:],
            "negative_pooled_prompt_embeds": pooled[1:],
        }

    def _padded(self, hidden, empty):
        return torch.cat([hidden, *[empty] * self.padding_chunks], dim=1)
