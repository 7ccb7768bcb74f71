"""What a LoRA's file may ask of peft. The ``lora_adapter_metadata`` of diffusers' trainers becomes peft's LoraConfig,
which could do far more than scale two matrices: change the base's own weights, add layers, import modules.
"""

import json
import re
from pathlib import Path
from typing import Any, Final

from peft import LoraConfig
from safetensors import safe_open

#: they say how the matrices are scaled, or nothing that the pixels depend on
_HARMLESS: Final = frozenset({
    "r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "exclude_modules", "use_rslora", "lora_bias",
    "inference_mode", "task_type", "peft_type", "peft_version", "base_model_name_or_path", "revision", "auto_mapping",
    "lora_dropout",
})  # fmt: skip
#: how the matrices begin, before those of the file take their place; other ways change the base too
_INITIALISATIONS: Final = (True, False, "gaussian")
#: as diffusers' names of tensors begin
_COMPONENTS: Final = frozenset({"unet", "text_encoder", "text_encoder_2"})
_LAYER: Final = re.compile(r"\^?[A-Za-z0-9_.]+")


def refuse_unsafe_adapter(file: Path) -> None:
    """Raises ValueError where the file's own configuration asks for more than a LoRA is, or does not say where its
    matrices belong; SafetensorError, OSError.
    """
    with safe_open(file, "pt") as tensors:
        metadata, names = tensors.metadata() or {}, list(tensors.keys())
    config = json.loads(metadata.get("lora_adapter_metadata") or "{}")
    if not isinstance(config, dict):
        raise ValueError("its lora_adapter_metadata is no object")
    defaults = LoraConfig().to_dict()
    for key, value in config.items():
        component, _, name = key.partition(".")
        if not _is_harmless(name or component, value, defaults):
            raise ValueError(f"its lora_adapter_metadata has {key} {json.dumps(value)[:100]}, which is not taken")
    if metadata.get("lora_adapter_metadata"):
        _require_target_modules(config, names)


def _require_target_modules(config: dict[str, Any], names: list[str]) -> None:
    """diffusers takes a configuration instead of looking at the tensors, for each component that has tensors."""
    for component in sorted(_COMPONENTS & {name.partition(".")[0] for name in names}):
        if config.get(f"{component}.target_modules") is None:
            raise ValueError(f"its lora_adapter_metadata has no {component}.target_modules")


def _is_harmless(name: str, value: Any, defaults: dict[str, Any]) -> bool:
    if name in ("rank_pattern", "alpha_pattern", "target_modules", "exclude_modules"):
        return _names_layers(value)
    if name == "init_lora_weights":
        return value in _INITIALISATIONS
    return name in _HARMLESS or (name in defaults and value == defaults[name])


def _names_layers(value: Any) -> bool:
    """Names, and no regular expressions."""
    return value is None or (
        isinstance(value, list | dict) and all(isinstance(name, str) and _LAYER.fullmatch(name) for name in value)
    )
