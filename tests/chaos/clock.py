"""A wrong clock for one process: ``time.time`` and every ``datetime.now`` of the product are so many seconds off."""

import datetime
import sys
import time
from typing import Any

_OURS = ("worker", "farm", "schemas", "producer")


def shift(seconds: float) -> None:
    if not seconds:
        return
    right_time = time.time

    class ShiftedDatetime(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime.datetime:
            return datetime.datetime.now(tz) + datetime.timedelta(seconds=seconds)

    time.time = lambda: right_time() + seconds
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in _OURS and getattr(module, "datetime", None) is datetime.datetime:
            module.datetime = ShiftedDatetime
