"""How a device computes a pair: layouts, kernels, compilation, precision. By default exactly as diffusers does."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

Attention = Literal["pytorch", "auto", "cudnn", "flash", "efficient", "math"]
CompileMode = Literal["off", "regional", "full"]
Fp8 = Literal["off", "weights", "dynamic"]

#: The same kernels in the same order, started otherwise.
_CHANGES_NO_PIXEL: Final = frozenset({"cuda_graphs"})


class DeviceOptions(BaseModel):
    """What a pair's ``options`` table says. All but ``cuda_graphs`` move pixels, most of them by the last bits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: convolutions in the layout that tensor cores want, without turning pictures around and back
    channels_last: bool = False
    #: one product for query, key and value in place of three; not with LoRAs
    fused_qkv: bool = False
    #: "pytorch": its own choice; "auto": the first of cudnn, flash, efficient and math that the device has for SDXL;
    #: or one of them
    attention: Attention = "pytorch"
    #: None: the pair's dtype, float32 where the VAE would overflow float16
    vae_dtype: Literal["float32", "bfloat16"] | None = None
    #: torch.compile for the UNets: their transformer blocks ("regional"), or each as a whole ("full")
    compile: CompileMode = "off"
    #: records a UNet's kernels once for each shape of a small pass and replays them; GPUs only
    cuda_graphs: bool = False
    #: the UNets' linear layers in 8 bits: "weights", or what goes into them as well ("dynamic"); not with LoRAs
    fp8: Fp8 = "off"

    def chosen(self) -> dict[str, Any]:
        """Those that are not as by default."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def moving_pixels(self) -> dict[str, Any]:
        """Those of them that are part of the pair's fingerprint."""
        return {name: value for name, value in self.chosen().items() if name not in _CHANGES_NO_PIXEL}

    def need_whole_networks(self) -> str | None:
        """The option that works with networks only that stay on the device; None where there is none."""
        needing = (name for name in ("compile", "cuda_graphs", "fp8") if name in self.chosen())
        return next(needing, None)

    def refusing_loras(self) -> str | None:
        """The option that LoRAs cannot go with: they are put beside layers that it has replaced."""
        return next((name for name in ("fused_qkv", "fp8") if name in self.chosen()), None)
