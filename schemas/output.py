"""Output: the file that an image becomes. The pixels that are encoded do not depend on it."""

from typing import Annotated, Final, Literal

from pydantic import Field, ValidationInfo, field_validator

from schemas.errors import FieldProblem
from schemas.fields import Int, RefusedFieldError, SpecPart

JPEG_QUALITY: Final = 95


class Output(SpecPart):
    """Format and quality of one image's file.

    PNG is lossless and has no ``quality``. WebP without one is lossless, with one lossy. JPEG without one has 95,
    written out, so that an explicit 95 and none are the same spec. JPEG keeps the colours in full resolution (4:4:4).
    """

    format: Literal["png", "webp", "jpeg"] = "png"
    quality: Annotated[Int, Field(ge=1, le=100)] | None = Field(default=None, validate_default=True)

    @field_validator("quality")
    @classmethod
    def _quality_of_the_format(cls, quality: int | None, info: ValidationInfo) -> int | None:
        image_format = info.data.get("format")
        if image_format == "png" and quality is not None:
            reason = "is nothing that png has: it is lossless; webp and jpeg have one"
            raise RefusedFieldError(FieldProblem("output.quality", quality, reason, ("output.format",)))
        return JPEG_QUALITY if image_format == "jpeg" and quality is None else quality

    @property
    def lossless(self) -> bool:
        """Whether the file gives back the very pixels that were encoded."""
        return self.quality is None

    @property
    def suffix(self) -> str:
        """Of the file's name, without the dot."""
        return "jpg" if self.format == "jpeg" else self.format
