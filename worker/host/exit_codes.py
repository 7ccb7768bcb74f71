"""How a worker process tells its supervisor why it ended. Beside these: 0, and the ``exit_code`` of its last error."""

from typing import Final

from schemas.errors import OutOfServiceError

#: a sticky device error: only a fresh process can use the device again
EXIT_DEVICE_LOST: Final = 70
#: no step of a forward pass ended in its time
EXIT_HUNG: Final = 71
#: packs waited in Redis and the consumer took none
EXIT_DEAF: Final = 72

#: the supervisor's own, when its devices are out of service because they failed: starting it again mends no device
EXIT_OUT_OF_SERVICE: Final = OutOfServiceError.exit_code
