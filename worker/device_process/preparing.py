"""From the jobs of a pack to its forward passes: reads the specs, counts their tokens, fetches what they start from.

Runs beside the device, while another pack renders.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from schemas.records import ClaimedJob
from schemas.spec import JobSpec
from worker.device_process.budget import PassShape
from worker.loading.pipelines import LoadedPair
from worker.passes.embedding import Chunks, num_chunks
from worker.passes.forward_passes import padded_size, split
from worker.passes.inputs import InputFetcher, PassInputs, joined
from worker.passes.pass_limits import PassLimits, Size
from worker.passes.rendering import check_pair_has


@dataclass(frozen=True)
class PreparedJob:
    """A job with what it takes to render it."""

    job: ClaimedJob
    spec: JobSpec
    chunks: Chunks
    inputs: PassInputs


@dataclass(frozen=True)
class Pass:
    """One forward pass of a pack: jobs of one kind."""

    prepared: tuple[PreparedJob, ...]
    #: so many copies of the first job are rendered with them and thrown away: the pass has a size that is compiled
    num_padding: int = 0

    def __len__(self) -> int:
        """Images that are rendered."""
        return len(self.prepared) + self.num_padding

    @property
    def rendered(self) -> list[PreparedJob]:
        return [*self.prepared, *[self.prepared[0]] * self.num_padding]

    @property
    def jobs(self) -> list[ClaimedJob]:
        return [one.job for one in self.prepared]

    @property
    def specs(self) -> list[JobSpec]:
        return [one.spec for one in self.rendered]

    @property
    def chunks(self) -> Chunks:
        return self.prepared[0].chunks

    @property
    def inputs(self) -> PassInputs:
        return joined(one.inputs for one in self.rendered)

    @property
    def size(self) -> Size:
        return self.prepared[0].spec.height, self.prepared[0].spec.width

    @property
    def shape(self) -> PassShape:
        return PassShape(len(self), *self.size)

    def halves(self) -> tuple["Pass", ...]:
        """A pass has 1, 2, 4, 8, ... images, and so has each half. One of padding alone is left out: there is none at
        first, for padding is a quarter at the most, but a half of a half may be."""
        middle = len(self) // 2
        halves = Pass(self.prepared[:middle]), Pass(self.prepared[middle:], self.num_padding)
        return tuple(half for half in halves if half.prepared)


@dataclass(frozen=True)
class Preparer:
    """Any thread may prepare."""

    pair: LoadedPair
    inputs: InputFetcher
    limits: PassLimits

    def prepared(self, job: ClaimedJob, fetch: Callable[[JobSpec], PassInputs]) -> PreparedJob:
        """``fetch``: this preparer's ``inputs.fetch``, as often as the caller insists.

        Raises:
            InputFileError: a picture or LoRA is missing or broken.
            SpecError: the pair does not have what the spec wants, or compel cannot read its prompt.
        """
        spec = JobSpec.from_json(job.spec)
        check_pair_has(self.pair, spec)
        inputs = fetch(spec)
        return PreparedJob(job, spec, num_chunks(self.pair, spec), inputs)

    def passes(self, prepared: Sequence[PreparedJob]) -> list[Pass]:
        """Forward passes of at most as many images as the setting allows, and the device's memory as far as known."""
        if not prepared:
            return []
        specs, chunks = [one.spec for one in prepared], [one.chunks for one in prepared]
        limit = self.limits.most((specs[0].height, specs[0].width))
        pads = self.pair.pair.options.compile != "off"
        groups = split(specs, chunks, limit, pads=pads)
        padding = [padded_size(len(group), limit) - len(group) if pads else 0 for group in groups]
        return [Pass(tuple(prepared[i] for i in group), num) for group, num in zip(groups, padding, strict=True)]
