"""Refuses networks whose files lack weights. Diffusers leaves them without a value, and says so in a log at best."""

from collections.abc import Sequence

import torch


def require_complete(part: str, network: torch.nn.Module) -> None:
    """Raises ValueError where a parameter has no value."""
    require_none_missing(part, [name for name, tensor in network.named_parameters() if tensor.is_meta])


def require_none_missing(part: str, missing: Sequence[str]) -> None:
    """Raises ValueError with the first names of what is missing."""
    if missing:
        raise ValueError(f"the weights of its {part} lack {', '.join(sorted(missing)[:3])}")
