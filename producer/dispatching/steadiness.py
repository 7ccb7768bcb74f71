"""Whether workers could renew their leases lately: pure policy, by the ledger's clock."""

from datetime import datetime, timedelta


class Steadiness:
    """Watches the ledger through a dispatcher's ticks. While it did not answer (or this machine slept, or the clock was
    set), nobody could renew a lease; those that ran out meanwhile are nobody's fault, and workers get one lease's time
    to come back."""

    def __init__(self, lease_seconds: float, tick_seconds: float) -> None:
        self._lease = timedelta(seconds=lease_seconds)
        self._gap = timedelta(seconds=max(lease_seconds / 3, 3 * tick_seconds))
        self._since: datetime | None = None
        self._last: datetime | None = None

    def answered(self, now: datetime) -> bool:
        """Notes that the ledger answers. True once it has for a whole lease without a break."""
        if self._since is None or self._last is None or not timedelta(0) <= now - self._last <= self._gap:
            self._since = now
        self._last = now
        return now - self._since >= self._lease
