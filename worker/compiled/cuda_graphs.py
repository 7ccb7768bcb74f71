"""CUDA graphs: a UNet's kernels are recorded once for each shape, then replayed with one call.

Recorded by hand and not by torch.compile's ``reduce-overhead``: that wants compiled code, and would move pixels; a
graph of the exact kernels moves none. It pays where starting 1,865 kernels takes longer than running them: in small
passes. In larger ones the device has always some to go on with, and a graph would only keep memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from diffusers import UNet2DConditionModel

#: of all rows together: two images of 1024 x 1024 with guidance
_MOST_LATENTS: Final = 4 * 128 * 128
#: each keeps its inputs and its output; what is between shares one pool of memory
_MAX_GRAPHS: Final = 8

Inputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class _Graph:
    graph: torch.cuda.CUDAGraph
    inputs: Inputs
    output: torch.Tensor

    def replayed(self, inputs: Inputs) -> torch.Tensor:
        """A copy, for the next replay writes to the same place."""
        for kept, given in zip(self.inputs, inputs, strict=True):
            kept.copy_(given)
        self.graph.replay()
        return self.output.clone()


class Replay:
    """Stands in the place of a UNet's ``forward``. The device thread alone calls it."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward = forward
        self._graphs: dict[Any, _Graph] = {}
        self._pool: Any = None
        #: how the UNet is compiled now: compiled kernels are others. None: it has LoRAs, and is no subject for a graph
        self.variant: str | None = "off"

    def __call__(self, sample: torch.Tensor, timestep: torch.Tensor, **told: Any) -> Any:
        inputs = self._inputs(sample, timestep, told)
        if inputs is None:
            return self._forward(sample, timestep, **told)
        key = self.variant, tuple((tensor.shape, tensor.dtype, tensor.stride()) for tensor in inputs)
        if key not in self._graphs:
            self._graphs[key] = self._recorded(inputs)
            if len(self._graphs) > _MAX_GRAPHS:
                del self._graphs[next(iter(self._graphs))]
        return (self._graphs[key].replayed(inputs),)

    def _inputs(self, sample: torch.Tensor, timestep: torch.Tensor, told: dict[str, Any]) -> Inputs | None:
        """None where the call is not one to be recorded."""
        usual = {"encoder_hidden_states", "added_cond_kwargs", "return_dict"}
        has_others = any(value is not None for name, value in told.items() if name not in usual)
        is_large = sample.shape[0] * sample.shape[2] * sample.shape[3] > _MOST_LATENTS
        if self.variant is None or has_others or is_large or told.get("return_dict", True):
            return None
        added = told["added_cond_kwargs"]
        return (
            sample,
            timestep.to(sample.device),
            told["encoder_hidden_states"],
            added["text_embeds"],
            added["time_ids"],
        )

    def _recorded(self, inputs: Inputs) -> _Graph:
        kept = tuple(tensor.clone() for tensor in inputs)
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):  # libraries make their handles and workspaces in the first call
            for _ in range(2):
                self._run(kept)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads copy finished pictures meanwhile
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            output = self._run(kept)
        self._pool = graph.pool()
        return _Graph(graph, kept, output)

    def _run(self, inputs: Inputs) -> torch.Tensor:
        sample, timestep, hidden_states, text_embeds, time_ids = inputs
        added = {"text_embeds": text_embeds, "time_ids": time_ids}
        return self._forward(
            sample, timestep, encoder_hidden_states=hidden_states, added_cond_kwargs=added, return_dict=False
        )[0]


def replay(unet: UNet2DConditionModel) -> None:
    """In place."""
    unet.forward = Replay(unet.forward)


def note_variant(unet: UNet2DConditionModel, variant: str | None) -> None:
    """Of the calls that follow, where the UNet has graphs."""
    if isinstance(unet.forward, Replay):
        unet.forward.variant = variant
