"""Pictures on their way from the device to the host, while the device renders what comes next.

On a GPU they are copied into pinned memory on a stream of their own, from which PyTorch takes it back when nobody looks
at the pictures any longer. On a CPU they are where they should be already.
"""

from functools import lru_cache

import numpy as np
import torch

from schemas.errors import DeviceLostError


class HostCopy:
    """Begins to copy. ``pixels``: uint8 of shape (images, height, width, 3), on the device, nothing waited for.

    Made on the device thread; any thread may ask for what has arrived.
    """

    def __init__(self, pixels: torch.Tensor) -> None:
        self._pixels = pixels
        self._arrived: torch.cuda.Event | None = None
        if pixels.device.type == "cuda":
            self._pixels = torch.empty(pixels.shape, dtype=pixels.dtype, pin_memory=True)
            self._arrived = _copy_beside(pixels, self._pixels)

    def picture(self, index: int) -> np.ndarray:
        """(height, width, 3). Waits until it is there, and leaves the GIL to others meanwhile.

        Raises:
            DeviceLostError: it does not come any more.
        """
        if self._arrived is not None:
            _wait_for(self._arrived)
        return self._pixels[index].numpy()


def _copy_beside(pixels: torch.Tensor, pinned: torch.Tensor) -> torch.cuda.Event:
    """The copy waits for what the device thread has asked for so far, and that thread for nothing."""
    stream = _copying_stream(pixels.device)
    stream.wait_stream(torch.cuda.current_stream(pixels.device))
    with torch.cuda.stream(stream):
        pinned.copy_(pixels, non_blocking=True)
    pixels.record_stream(stream)  # its memory is for others only after the copy
    return stream.record_event(torch.cuda.Event(blocking=True))  # a thread that waits for it sleeps


@lru_cache
def _copying_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _wait_for(arrived: torch.cuda.Event) -> None:
    try:
        arrived.synchronize()
    except torch.AcceleratorError as error:
        raise DeviceLostError(f"the device failed: {str(error).splitlines()[0]}") from error
