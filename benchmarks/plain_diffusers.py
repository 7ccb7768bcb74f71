"""SDXL's two pipelines, called as diffusers' documentation shows it ("base + refiner model"), on a loaded pair."""

import copy
import tempfile
from typing import Any, Final

import numpy as np
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

from schemas.spec import JobSpec
from worker.loading.pipelines import LoadedPair

_OF_A_REFINER: Final = ("force_zeros_for_empty_prompt", "requires_aesthetics_score")


class PlainDiffusers:
    """With the pair's networks, and a VAE as ``from_pretrained`` with the pair's dtype makes it: in it, too."""

    def __init__(self, pair: LoadedPair) -> None:
        vae = torch.nn.Module.to(copy.deepcopy(pair.base.vae), pair.dtype)
        vae.disable_slicing()
        found: list[Any] = []
        for kind, pipe, names in (
            (StableDiffusionXLPipeline, pair.base, _OF_A_REFINER[:1]),
            (StableDiffusionXLImg2ImgPipeline, pair.refiner, _OF_A_REFINER),
        ):
            parts = {**pipe.components, "vae": vae, "scheduler": copy.deepcopy(pair.base.scheduler)}
            found.append(kind(**parts, **{name: pipe.config[name] for name in names}, add_watermarker=False))
            found[-1].set_progress_bar_config(disable=True)
        self._base, self._refiner = found

    def picture(self, spec: JobSpec) -> np.ndarray:
        """Rendered, and saved by Pillow. With the refiner, a handoff at 0.8.

        Raises:
            RuntimeError: the picture is black, which is what the pipelines make of NaN.
        """
        told: dict[str, Any] = {"prompt": spec.prompt, "num_inference_steps": spec.num_inference_steps}
        size = {"width": spec.width, "height": spec.height, "generator": torch.Generator().manual_seed(spec.seed)}
        if spec.refiner.mode == "off":
            image = self._base(**told, **size).images[0]
        else:
            latents = self._base(**told, **size, denoising_end=0.8, output_type="latent").images
            image = self._refiner(**told, image=latents, denoising_start=0.8).images[0]
        with tempfile.TemporaryFile(suffix=".png") as file:
            image.save(file, format="PNG")
        pixels = np.asarray(image)
        if not pixels.any():
            raise RuntimeError("the script's picture is black")
        return pixels
