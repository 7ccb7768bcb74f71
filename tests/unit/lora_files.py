"""LoRAs for the tiny pair, with random weights that are large enough to be seen."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import save_file

from schemas.loras import Lora

RANK = 2
COMPONENTS = ("unet", "text_encoder", "text_encoder_2")
#: some linear layers of UNets and of text encoders; diffusers tells kohya's text encoders by out_proj
ADAPTED = ("attn1.to_q", "attn2.to_v", "attn2.to_out.0", "q_proj", "v_proj", "out_proj", "fc1")
_KOHYA = {"unet": "lora_unet", "text_encoder": "lora_te1_text_model", "text_encoder_2": "lora_te2_text_model"}


def lora_layers(base: StableDiffusionXLPipeline, component: str) -> dict[str, torch.nn.Linear]:
    module = getattr(base, component)
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, torch.nn.Linear) and name.endswith(ADAPTED)
    }


def matrices(base: Any, components: tuple[str, ...], seed: int) -> dict[tuple[str, str], tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(seed)
    return {
        (component, name): (
            torch.randn(RANK, layer.in_features, generator=generator) * 0.2,
            torch.randn(layer.out_features, RANK, generator=generator) * 0.2,
        )
        for component in components
        for name, layer in lora_layers(base, component).items()
    }


def write_peft(path: Path, base: Any, components: tuple[str, ...] = COMPONENTS, seed: int = 0, **metadata: Any) -> Path:
    """As diffusers' trainers write it."""
    tensors = {}
    for (component, name), (down, up) in matrices(base, components, seed).items():
        tensors[f"{component}.{name}.lora_A.weight"] = down
        tensors[f"{component}.{name}.lora_B.weight"] = up
    config = {"lora_adapter_metadata": json.dumps(metadata)} if metadata else {}
    save_file(tensors, path, {"format": "pt", **config})
    return path


def write_kohya(path: Path, base: Any, components: tuple[str, ...] = COMPONENTS, seed: int = 0) -> Path:
    """As kohya's trainers write it, with half the rank as alpha."""
    tensors = {}
    for (component, name), (down, up) in matrices(base, components, seed).items():
        layer = f"{_KOHYA[component]}_{name.removeprefix('text_model.').replace('.', '_')}"
        tensors[f"{layer}.lora_down.weight"] = down
        tensors[f"{layer}.lora_up.weight"] = up
        tensors[f"{layer}.alpha"] = torch.tensor(RANK / 2)
    save_file(tensors, path, {"format": "pt"})
    return path


def lora_of(path: Path, weight: float = 1.0) -> Lora:
    return Lora(name=path.stem, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), weight=weight)
