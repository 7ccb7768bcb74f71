"""What a worker process asks its compile process for."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from schemas.device_options import DeviceOptions
from worker.compiled.unet_shapes import UnetShape


class CompileRequest(BaseModel):
    """Crosses as JSON in the command line. Both processes are of one version: the one starts the other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    dtype: str
    #: a CPU's, for which the code is made
    num_threads: int
    options: DeviceOptions
    #: part → configuration of its UNet
    unets: dict[str, dict[str, Any]]
    #: channels of the pooled prompt
    pooled_width: int
    shapes: tuple[UnetShape, ...]
