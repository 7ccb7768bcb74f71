"""Where a pair's networks are while they do not work: on the device, or in main memory.

Diffusers' own offloading belongs to one pipeline, and takes the hooks of the other one off the networks that both
share. So the hooks are set here, with accelerate, over all networks of a pair at once. They change no pixel.
"""

from collections.abc import Iterable
from typing import Any, Final

import torch
from accelerate import cpu_offload
from accelerate.hooks import ModelHook, add_hook_to_module
from accelerate.utils import send_to_device
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

from schemas.pair import Offload
from worker.loading.offload_choice import WeightSizes, choose_offload

Networks = tuple[torch.nn.Module, ...]

_MAIN_MEMORY: Final = torch.device("cpu")


class Device:
    """A device that holds one group of networks at a time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._present: Networks = ()

    @torch.inference_mode(mode=False)  # parameters moved in it could not be used outside
    def bring(self, networks: Networks) -> None:
        """Sends home whoever else is there. After an error, which may be of too little memory, nobody is there."""
        if networks == self._present:
            return
        self._send_home(self._present)
        try:
            for network in networks:
                network.to(self.device)
        except RuntimeError:
            self._send_home(networks)
            raise
        self._present = networks

    def _send_home(self, networks: Networks) -> None:
        for network in networks:
            network.to(_MAIN_MEMORY)
        self._present = ()


class Bringing(ModelHook):
    """Before a network works it is brought onto the device, with the others of its group, and its input too."""

    def __init__(self, device: Device, group: Networks) -> None:
        self.execution_device = device.device  # where diffusers looks to know where a pipeline works
        self._device = device
        self._group = group

    def pre_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        self._device.bring(self._group)
        return send_to_device(args, self.execution_device), send_to_device(kwargs, self.execution_device)


def place(
    base: StableDiffusionXLPipeline,
    refiner: StableDiffusionXLImg2ImgPipeline | None,
    device: torch.device,
    offload: Offload,
) -> Offload:
    """Puts all networks on the device, or hooks on them that bring them there. Returns what "auto" chose."""
    groups = _groups(base, refiner)
    chosen = _chosen(groups, device) if offload == "auto" else offload
    if chosen == "none":
        _place_for_good(groups, device)
    elif chosen == "model":
        _offload_networks(groups, Device(device))
    else:
        _offload_layers(groups, Device(device))
    return chosen


def size_bytes(networks: Iterable[torch.nn.Module]) -> int:
    """Of their parameters; a network named twice counts once."""
    once = {id(network): network for network in networks}.values()
    return sum(tensor.numel() * tensor.element_size() for network in once for tensor in network.parameters())


def _groups(base: StableDiffusionXLPipeline, refiner: StableDiffusionXLImg2ImgPipeline | None) -> list[Networks]:
    """What works together. The encoders take turns for each prompt of a pass, and are smaller than a UNet together."""
    unets = [base.unet] if refiner is None else [base.unet, refiner.unet]
    return [(base.text_encoder, base.text_encoder_2), *((unet,) for unet in unets), (base.vae,)]


def _chosen(groups: list[Networks], device: torch.device) -> Offload:
    if device.type != "cuda":
        return "none"  # the weights are in main memory whatever is done
    free_bytes, _ = torch.cuda.mem_get_info(device)
    sizes = [size_bytes(group) for group in groups]
    return choose_offload(free_bytes, WeightSizes(sum(sizes), max(sizes)))


def _place_for_good(groups: list[Networks], device: torch.device) -> None:
    for network in (network for group in groups for network in group):
        network.to(device)


def _offload_networks(groups: list[Networks], device: Device) -> None:
    for group in groups:
        for network in group:
            add_hook_to_module(network, Bringing(device, group))


def _offload_layers(groups: list[Networks], device: Device) -> None:
    """The encoders stay whole: compel asks them on which device they are, and layers that are away have none."""
    encoders, *others = groups
    _offload_networks([encoders], device)
    for (network,) in others:
        add_hook_to_module(network, Bringing(device, ()))  # the encoders leave
        cpu_offload(network.requires_grad_(False), device.device, offload_buffers=len(network._parameters) > 0)
