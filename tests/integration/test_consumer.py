"""Celery's consumer as a worker runs it, on a real Redis, without a device."""

import time
import uuid
from pathlib import Path

from tests.integration.consumers import QUEUE, running_consumer


def test_a_pack_is_taken_as_soon_as_another_has_ended(redis_url: str, tmp_path: Path) -> None:
    """And not when Celery looks again, once a second at the most: that would be 20 s for 40 packs in two slots."""
    pack_ids = [uuid.uuid4().hex for _ in range(40)]
    with running_consumer(tmp_path, redis_url, prefix="soon:", pack_seconds=0.05) as consumer:
        started = time.monotonic()
        consumer.broker.publish(QUEUE, pack_ids)
        assert {consumer.next_line() for _ in pack_ids} == set(pack_ids)
        assert time.monotonic() - started < 10
