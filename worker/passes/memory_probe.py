"""How much memory of a device has been in use at the most: of a GPU, or, for renders on a CPU, of this process."""

from pathlib import Path
from typing import Final, Protocol

import torch

_STATUS: Final = Path("/proc/self/status")
#: writing 5 to it sets the peak that ``_STATUS`` tells back to what is in use now (Linux, proc_pid_clear_refs(5))
_CLEAR_REFS: Final = Path("/proc/self/clear_refs")
_CLEAR_PEAK: Final = "5"


class MemoryProbe(Protocol):
    """Used from the device thread."""

    @property
    def total_bytes(self) -> int:
        """What the device has."""

    def others_bytes(self) -> int:
        """What is in use by others than this process's tensors."""

    def begin(self) -> None:
        """From here on the peak is counted."""

    def peak_bytes(self) -> int:
        """The most that this process's tensors took since, weights included."""


class GpuMemory:
    """A CUDA device, by PyTorch's allocator. Peaks are as the host sees them, without waiting for the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    @property
    def total_bytes(self) -> int:
        return torch.cuda.mem_get_info(self._device)[1]

    def others_bytes(self) -> int:
        free_bytes, total_bytes = torch.cuda.mem_get_info(self._device)
        return total_bytes - free_bytes - torch.cuda.memory_reserved(self._device)

    def begin(self) -> None:
        torch.cuda.reset_peak_memory_stats(self._device)

    def peak_bytes(self) -> int:
        return torch.cuda.max_memory_allocated(self._device)


class ProcessMemory:
    """Main memory, on Linux. What the C library keeps for later counts as in use, so small pictures hide in it.

    ``total_bytes``: what the process may take.
    """

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes

    def others_bytes(self) -> int:
        return 0

    def begin(self) -> None:
        _CLEAR_REFS.write_text(_CLEAR_PEAK, encoding="ascii")

    def peak_bytes(self) -> int:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
        (kilobytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
        return int(kilobytes) * 1024
