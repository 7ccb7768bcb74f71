"""Pictures on their way to the host. On a CPU they are there; on a GPU they come while the device goes on."""

import time

import numpy as np
import pytest
import torch

from schemas.errors import DeviceLostError
from worker.passes.host_copy import HostCopy, _copying_stream

LARGE = (8, 1024, 1024, 3)


def pixels(*shape: int, device: str = "cpu") -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1)).to(device)


def test_on_a_cpu_the_pictures_are_where_they_were_decoded() -> None:
    decoded = pixels(2, 8, 4, 3)
    copy = HostCopy(decoded)
    assert np.array_equal(copy.picture(1), decoded[1].numpy())
    assert np.shares_memory(copy.picture(1), decoded.numpy())


class BrokenDevice:
    """An event of a device that is lost."""

    def synchronize(self) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore lines")


def test_pictures_that_never_arrive_are_those_of_a_lost_device() -> None:
    """Their jobs are not to blame, and nothing more comes from it."""
    copy = HostCopy(pixels(1, 4, 4, 3))
    copy._arrived = BrokenDevice()
    with pytest.raises(DeviceLostError, match=r"illegal memory access was encountered$"):
        copy.picture(0)


@pytest.fixture
def cuda() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device("cuda", torch.cuda.current_device())


def keep_busy() -> None:
    """The current stream has about a second's work."""
    torch.cuda._sleep(2_000_000_000)


@pytest.mark.gpu
def test_the_device_thread_waits_for_no_copy_and_goes_on_beside_it(cuda: torch.device) -> None:
    decoded, stream = pixels(*LARGE).to(cuda), torch.cuda.current_stream(cuda)
    HostCopy(decoded).picture(0)  # which makes the stream of the copies, and their memory
    keep_busy()
    started = time.monotonic()
    copy = HostCopy(decoded)
    assert time.monotonic() - started < 0.3
    assert copy._pixels.is_pinned()
    keep_busy()
    assert np.array_equal(copy.picture(7), pixels(*LARGE)[7].numpy())
    assert not stream.query()  # what was asked for after the copy was not waited for


@pytest.mark.gpu
def test_the_memory_of_pictures_under_way_is_not_given_to_others(cuda: torch.device) -> None:
    with torch.cuda.stream(_copying_stream(cuda)):
        keep_busy()
    copies = []
    for number in range(4):
        decoded = torch.full(LARGE, number, dtype=torch.uint8, device=cuda)
        copies.append(HostCopy(decoded))
        del decoded
        torch.full(LARGE, 99, dtype=torch.uint8, device=cuda)
    for number, copy in enumerate(copies):
        assert (copy.picture(7) == number).all()
