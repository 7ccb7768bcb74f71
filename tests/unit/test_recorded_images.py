"""What `nightshift reproduce` starts from: records of files that anybody may have written, and of the ledger."""

from contextlib import closing
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from farm import ledger
from farm.recorded_images import recorded_in_file, recorded_job
from schemas.errors import InputError
from schemas.provenance import image_record
from schemas.spec import JobSpec
from tests.integration.ledger_farm import claimed_pack, images_of, new_ledger, new_worker, open_batch
from tests.unit.test_finishing import ENVIRONMENT, PROVENANCE

RECORD = image_record(JobSpec.parse({"prompt": "a cat", "seed": 7}), PROVENANCE, ENVIRONMENT, {"row": "x"})


def changed(part: str, **values: Any) -> dict[str, Any]:
    record = deepcopy(RECORD)
    record[part] |= values
    return record


def test_a_whole_record_is_read() -> None:
    recorded = recorded_in_file("x.png", RECORD)
    assert (recorded.provenance, recorded.environment, recorded.meta) == (PROVENANCE, ENVIRONMENT, {"row": "x"})


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (changed("provenance", forward_pass_size=0), "forward_pass_size: "),
        (changed("provenance", forward_pass_size=10**10), "forward_pass_size: "),
        (changed("provenance", base_steps=-1), "base_steps: "),
        (changed("provenance", refiner_steps=-1), "refiner_steps: "),
        (changed("provenance", handoff_sigma=float("inf")), "handoff_sigma: "),
        (changed("provenance", prompt_chunks=-1), "prompt_chunks: "),
        (changed("provenance", watermark_bits=49), "watermark_bits: "),
        (changed("meta", row=[[]]), "row: "),
        (changed("spec", width=63), "width: 63: "),
        ({**RECORD, "provenance": []}, "Input should be"),
        ({name: part for name, part in RECORD.items() if name != "meta"}, "it has no meta"),
    ],
)
def test_a_record_that_says_the_impossible_is_refused_with_one_sentence(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError) as refused:
        recorded_in_file("x.png", record)
    sentence = str(refused.value)
    assert sentence.startswith(f"x.png: its record is not one that this version can read: {reason}")
    assert "\n" not in sentence


def test_of_a_job_the_ledger_has_the_hashes_as_well(sqlite_url: str) -> None:
    with closing(new_ledger(sqlite_url)) as database:
        batch_id = open_batch(database, num_jobs=1)
        pack = claimed_pack(database, batch_id, new_worker(database))
        (image,) = images_of(pack)
        image = replace(image, provenance=PROVENANCE.model_dump(mode="json"))
        ledger.finish_jobs(database, pack, ENVIRONMENT, [image])
        recorded = recorded_job(database, batch_id, 1)
    assert (recorded.name, recorded.uri) == (f"job {batch_id}/1", image.image.uri)
    assert (recorded.sha256, recorded.pixel_sha256) == ("a" * 64, "b" * 64)
    assert (recorded.provenance, recorded.meta) == (PROVENANCE, {"row": "x"})
