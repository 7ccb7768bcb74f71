"""How long the templates of a request may take. A short one may ask for more than a processor does in a day."""

import time
from typing import Final

from schemas.errors import RequestError

_SECONDS: Final = 60.0
#: a text takes a hundredth of that, and one of a thousand options, which has to be read first, half a second
_SECONDS_OF_EACH: Final = 0.01


class DrawingTime:
    """Counts the processor's time of the thread that makes it, and the readings and drawings of templates."""

    def __init__(self) -> None:
        self._begun = time.thread_time()
        self._num = 0

    def check(self) -> None:
        """One more. Raises RequestError for templates that take too long."""
        self._num += 1
        if time.thread_time() - self._begun > _SECONDS + _SECONDS_OF_EACH * self._num:
            sentence = "the templates take too long to be read and drawn from; send fewer rows, or smaller templates"
            raise RequestError(413, "too_long", sentence)
