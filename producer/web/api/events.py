"""What happens, as server-sent events."""

import json
import time
from collections.abc import AsyncIterator
from typing import Final

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from producer.web.callers import Farm, Reader
from producer.web.farm import WebFarm
from producer.web.happenings import News
from producer.web.problems import problems

router = APIRouter(tags=["events"], responses=problems(401, 403, 421, 422, 429, 503))

#: a comment, so that proxies keep the connection and a page that is gone is noticed
_HEARTBEAT_SECONDS: Final = 15.0
#: then the browser comes again by itself, and shows a token that may be revoked by now
_STREAM_SECONDS: Final = 900.0
_EXAMPLE: Final = 'event: batch\ndata: {"id": 3, "name": "prompts", "state": "open", "num_done": 17}\n\n'


@router.get("/events", response_class=StreamingResponse,
            responses={200: {"content": {"text/event-stream": {"example": _EXAMPLE}}}})  # fmt: skip
def events(farm: Farm, _caller: Reader) -> Response:
    """What happens: `batch`, `removed`, `worker`, `left`, `ledger` and `redis`, first as it is now, then what changes.
    Ends after a quarter of an hour; browsers come again by themselves."""
    farm.pulse.check_room()  # an answer that has begun cannot say so any more
    return StreamingResponse(_stream(farm), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _stream(farm: WebFarm) -> AsyncIterator[str]:
    ends_at = time.monotonic() + _STREAM_SECONDS
    with farm.metrics.event_stream(), farm.pulse.listener() as listener:
        yield "retry: 3000\n\n"
        while not listener.closed and time.monotonic() < ends_at:
            yield written(await listener.news(_HEARTBEAT_SECONDS))


def written(news: News) -> str:
    """As server-sent events. JSON in ASCII has no line ends of its own, so nothing in it can forge an event."""
    told = "".join(f"event: {event}\ndata: {json.dumps(content)}\n\n" for (event, _), content in news.items())
    return told or ": still here\n\n"
