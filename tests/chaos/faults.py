"""The faults, by number, and how each is done to a farm that works. Each returns when it is over and healed.

``short`` faults last seconds instead of half a minute: for `make test`.
"""

from dataclasses import dataclass

from tests.chaos import faults_of_devices as devices
from tests.chaos import faults_of_messages as messages
from tests.chaos import faults_of_servers as servers
from tests.chaos import faults_of_submits as submits
from tests.chaos import faults_of_surroundings as surroundings
from tests.chaos import faults_of_weights as weights
from tests.chaos import faults_of_workers as workers
from tests.chaos.farm import HAS_WATCHDOG, Ledger
from tests.chaos.firing import Injection


@dataclass(frozen=True)
class Fault:
    """``number``: as docs/reliability.md counts. ``ledger``: the only one that it can happen to, if there is one."""

    number: int
    name: str
    inject: Injection
    ledger: Ledger | None = None

    def suits(self, ledger: Ledger) -> bool:
        return self.ledger in (None, ledger)


FAULTS: tuple[Fault, ...] = (
    Fault(1, "producer killed before the submit's commit", submits.killed_before_the_commit),
    Fault(2, "producer killed after the commit, before publishing", submits.killed_after_the_commit),
    Fault(3, "producer killed after publishing, before noting it", submits.killed_after_publishing),
    Fault(4, "worker stopped and killed with the message popped", workers.killed_with_a_message),
    Fault(5, "worker killed after the claim", workers.worker_killed("claimed")),
    Fault(6, "worker killed while embedding", workers.worker_killed("embedding")),
    Fault(7, "worker killed in the base", workers.worker_killed("in_the_base")),
    Fault(8, "worker killed at the handoff", workers.worker_killed("handoff")),
    Fault(9, "worker killed in the refiner", workers.worker_killed("in_the_refiner")),
    Fault(10, "worker killed in the middle of the file", workers.worker_killed("in_the_file")),
    Fault(11, "worker killed after the rename, before the row", workers.worker_killed("before_the_row")),
    Fault(12, "worker killed after the row", workers.worker_killed("after_the_row")),
    Fault(13, "worker stopped past its lease, then continued", workers.stopped_past_its_lease),
    Fault(13, "worker stopped in mid-transaction", workers.stopped_in_a_transaction, "postgresql"),
    Fault(14, "Redis killed, restarted empty", servers.redis_killed),
    Fault(15, "FLUSHALL", servers.redis_flushed),
    Fault(16, "Redis stopped", servers.redis_stopped),
    Fault(17, "Redis full", servers.redis_full),
    Fault(18, "PostgreSQL shut down immediately, restarted", servers.postgres_shut_down, "postgresql"),
    Fault(19, "connection cut during COMMIT", servers.commit_cut, "postgresql"),
    Fault(19, "backends terminated", servers.backends_terminated, "postgresql"),
    Fault(20, "network 500 ms slower", surroundings.slow_network),
    Fault(20, "connections reset", surroundings.resets),
    Fault(20, "connections half open", surroundings.half_open),
    Fault(21, "image store refuses", surroundings.store_refuses),
    Fault(21, "disk full", surroundings.disk_full),
    Fault(22, "clock 10 minutes off on one worker", surroundings.wrong_clock, "postgresql"),
    Fault(23, "a message a hundred times, late, out of order", messages.told_a_hundred_times),
    Fault(24, "poison by SIGKILL and SIGSEGV", workers.poison),
    Fault(25, "out of memory", devices.little_memory),
    Fault(25, "sticky device error", devices.device("device", "STICKY")),
    Fault(25, "NaN", devices.device("decoding", "NAN")),
    *([Fault(25, "hung step", devices.hung)] if HAS_WATCHDOG else []),
    Fault(26, "dispatcher killed in mid-tick", messages.dispatcher_killed),
    Fault(27, "workers and messages of other contract versions", messages.other_contracts),
    Fault(27, "migration while the farm runs", messages.migrated_while_it_runs),
    Fault(28, "truncated weights", weights.truncated),
    Fault(28, "weights changed under the same name", weights.changed),
)
#: Happens at any moment, to any worker; not in the table.
RANDOM_KILL = Fault(0, "worker killed at a random moment", workers.killed_at_random)
