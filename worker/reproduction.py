"""Renders recorded images again and compares: ``python -m worker.reproduction``, started by `nightshift reproduce`.

A process of its own, as a worker is: ``CUDA_VISIBLE_DEVICES`` is in its environment before torch is imported.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import chain, count
from pathlib import Path
from typing import Final

from farm.image_store import write_atomically
from farm.inputs import InputStore
from farm.recorded_images import Recorded, recorded_image
from farm.watermark import Pixels
from schemas.device_options import CompileMode
from schemas.errors import DeviceLostError, InvalidImageError, NightshiftError, StorageError
from schemas.printable import printable
from schemas.settings import Settings, load_settings
from worker.comparison import Comparison, changes_since, compared, differences, run_differences
from worker.environment import environment
from worker.image_files.encoding import decoded, decoded_file
from worker.image_files.finishing import FileMaker
from worker.loading.pipelines import LoadedPair, load_pair
from worker.passes.inputs import InputFetcher, joined
from worker.passes.rendering import render

EXIT_DIFFERENT: Final = 1


@dataclass(frozen=True)
class Reproduction:
    """The file that was made again, and how it compares."""

    name: str
    content: bytes
    comparison: Comparison

    @property
    def sentence(self) -> str:
        """What a user reads: identical, or how far off."""
        found = self.comparison
        match found.verdict:
            case "identical file":
                return f"{self.name}: identical file"
            case "identical pixels":
                return f"{self.name}: identical pixels; the file differs in its metadata or compression"
            case "different size":
                return f"{self.name}: of another size than the recorded file, which was changed since"
            case "different pixels":
                values = f"{found.share:.2%} of the values differ, by {found.largest} of 255 at the most"
                alike = "" if found.otherwise else "; nothing recorded is otherwise: look at the machine or the file"
                return f"{self.name}: different pixels: {values} and {found.mean:.3f} on average{alike}"


@dataclass(frozen=True)
class Reproducer:
    """What it takes to render a pair's images again."""

    pair: LoadedPair
    inputs: InputFetcher
    maker: FileMaker

    def reproduce(self, recorded: Recorded, content: bytes, picture: Pixels) -> Reproduction:
        """Renders as many copies of the spec as shared the recorded forward pass.

        ``content``: the recorded file. ``picture``: uint8 RGB of shape (height, width, 3), as a reader sees it.

        Raises:
            NightshiftError: whatever rendering raises.
        """
        specs = [recorded.spec] * recorded.provenance.forward_pass_size
        rendered = render(
            self.pair, specs, inputs=joined(map(self.inputs.fetch, specs)), compile_mode=self._compile_mode(recorded)
        )
        again = rendered.pictures[0]
        if again.pixels is None:
            raise InvalidImageError(f"{recorded.name} cannot be made again here: {again.fault}")
        ran = {
            name: getattr(rendered, name) for name in ("base_steps", "refiner_steps", "handoff_sigma", "compile_mode")
        }
        ran["vae_float32_retry"] = again.vae_float32_retry
        made = self.maker.made(recorded.spec, again.pixels, recorded.provenance.model_copy(update=ran), recorded.meta)
        otherwise = (
            *changes_since(recorded, content, made.pixels),
            *differences(recorded.environment, self.maker.environment),
            *run_differences(recorded.provenance, made.provenance),
        )
        pictures = (picture, decoded(made.content))
        return Reproduction(recorded.name, made.content, compared((content, made.content), pictures, otherwise))

    def _compile_mode(self, recorded: Recorded) -> CompileMode:
        """As it was recorded, as far as the pair is still compiled so: compiled here and now."""
        was, now = recorded.provenance.compile_mode, self.pair.pair.options.compile
        return now if was == now else "off"


def main() -> int:
    """Returns the process's exit code: the worst of all images."""
    arguments = _arguments()
    try:
        settings = load_settings()
    except NightshiftError as error:
        return _failed(error)
    reproducer_of = lru_cache(1)(lambda pair: _reproducer(settings, pair, arguments.device))
    exit_code = 0
    for target, name in zip(arguments.targets, new_names(arguments.targets), strict=True):
        out = None if arguments.out is None else arguments.out / name
        try:
            made = _reproduced(settings, target, reproducer_of, out)
        except DeviceLostError as error:  # nothing can be rendered here any more
            return max(exit_code, _failed(error))
        except NightshiftError as error:
            exit_code = max(exit_code, _failed(error))
            continue
        _print(made, as_json=arguments.json)
        exit_code = max(exit_code, 0 if made.comparison.is_reproduced else EXIT_DIFFERENT)
    return exit_code


def _failed(error: NightshiftError) -> int:
    print(f"nightshift: {printable(str(error))}", file=sys.stderr, flush=True)
    return error.exit_code


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="worker.reproduction")
    parser.add_argument("targets", nargs="+", help="BATCH/NUMBER, or an image file")
    parser.add_argument("--device", required=True, help="cpu or cuda, as torch names it")
    parser.add_argument("--out", type=Path, help="a folder")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _reproducer(settings: Settings, pair_name: str, device: str) -> Reproducer:
    cache = settings.home / "cache"
    pair = load_pair(settings.model_pair(pair_name), device, cache)
    maker = FileMaker(environment(pair), pair.pair.watermark, settings.png_compress_level)
    return Reproducer(pair, InputFetcher(InputStore(settings.images_url), cache), maker)


def _reproduced(
    settings: Settings, target: str, reproducer_of: Callable[[str], Reproducer], out: Path | None
) -> Reproduction:
    """``out``: where to keep the new file, without its suffix."""
    recorded, content = recorded_image(settings.database_url, target)
    picture = decoded_file(content, recorded.name)  # before minutes go into loading the pair and rendering
    made = reproducer_of(recorded.environment.pair).reproduce(recorded, content, picture)
    if out is not None:
        _write(out.with_name(f"{out.name}.{recorded.spec.output.suffix}"), made.content)
    return made


def _print(made: Reproduction, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"name": made.name, **asdict(made.comparison)}), flush=True)
    else:
        print("\n  ".join(map(printable, [made.sentence, *made.comparison.otherwise])), flush=True)


def new_names(targets: Sequence[str]) -> list[str]:
    """A name without suffix for each image made again: ``fox-again``, and ``fox-again-2`` for a fox of another folder.

    Never a recorded file's own: the folder may be its folder.
    """
    stems = [Path(target).stem if Path(target).exists() else target.replace("/", "-") for target in targets]
    taken, names = set(stems), []
    for stem in stems:
        numbered = (f"{stem}-again-{number}" for number in count(2))
        names.append(next(name for name in chain([f"{stem}-again"], numbered) if name not in taken))
        taken.add(names[-1])
    return names


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomically(path.absolute(), content)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


if __name__ == "__main__":
    sys.exit(main())
