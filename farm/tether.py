"""Ties a program to the process that starts it: ``python -m farm.tether [--parent PID] [--signal N] -- CMD ARGS...``.

Asks the kernel for a signal when the starter dies, even by SIGKILL, checks that the starter still lives, and becomes
CMD (same process id). Linux only; elsewhere it just becomes CMD. Standard library only, so that it starts in no time.

The signal comes when the *thread* that forked ends, not its process: start tethered programs from a thread that stays,
best the main one. A program that changes its user loses the tether, so drop privileges first.
"""

import argparse
import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def tethered(command: Sequence[str], death_signal: int = signal.SIGTERM) -> list[str]:
    """The argv that starts ``command`` tethered to the calling process, to be used by that process only."""
    # By path and isolated: works from every folder, needs no installed package, reads no site-packages.
    tether = [sys.executable, "-I", "-S", os.path.abspath(__file__)]
    return [*tether, "--parent", str(os.getpid()), "--signal", str(int(death_signal)), "--", *command]


def main(arguments: Sequence[str]) -> None:
    """Becomes the command, or exits: with 127 when it cannot be run, with 1 when the starter is dead already."""
    options, command = _parse(arguments)
    if sys.platform == "linux":
        _die_with(options.parent, options.signal)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="farm.tether", usage="%(prog)s [--parent PID] [--signal N] -- CMD ARGS...")
    parser.add_argument("--parent", type=int, default=os.getppid())
    parser.add_argument("--signal", type=int, default=int(signal.SIGTERM))
    # Split by hand: what argparse does with a second "--", which is the command's, changed between Python versions.
    dashes = arguments.index("--") if "--" in arguments else len(arguments)
    options, command = parser.parse_args(arguments[:dashes]), list(arguments[dashes + 1 :])
    if not command:
        parser.error("no command after --")
    return options, command


def _die_with(parent: int, death_signal: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    if os.getppid() != parent:  # it died before the kernel knew of our wish
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
