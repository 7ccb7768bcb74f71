"""A spec in one line, for the foot of a picture: ``1024×1024 · euler · 40 steps · refiner 0.8 · seed 7``."""

from collections.abc import Collection, Iterator

from schemas.refiner import STARTS, Refiner
from schemas.schedulers import short_scheduler_name
from schemas.spec import JobSpec

_REFINER = frozenset({"refiner.mode", "refiner.strength", *(f"refiner.{name}" for name in STARTS)})


def detail(spec: JobSpec, without: Collection[str] = ("guidance_scale",)) -> str:
    """What decides most. ``without``: fields that are not named."""
    return " · ".join(text for fields, text in _parts(spec) if text and fields.isdisjoint(without))


def _parts(spec: JobSpec) -> Iterator[tuple[frozenset[str], str]]:
    """The fields, and what they say."""
    yield frozenset({"width", "height"}), f"{spec.width}×{spec.height}"
    yield frozenset({"scheduler"}), short_scheduler_name(spec.scheduler)
    yield frozenset({"num_inference_steps"}), f"{spec.num_inference_steps} steps"
    yield frozenset({"guidance_scale"}), f"guidance {spec.guidance_scale:g}"
    yield _REFINER, _refiner(spec.refiner)
    yield frozenset({"seed"}), f"seed {spec.seed}"


def _refiner(refiner: Refiner) -> str:
    """Where it came in, as short as a caption needs it."""
    match refiner.mode:
        case "off":
            return ""
        case "ensemble" if refiner.start is not None:
            return f"refiner {refiner.start:g}"
        case "ensemble" if refiner.start_percent is not None:
            return f"refiner after {refiner.start_percent:g} % of the steps"
        case "ensemble":
            return f"refiner after {refiner.start_step} steps"
    return f"refiner {'alone ' if refiner.mode == 'only' else ''}at strength {refiner.strength:g}"
