"""Makes the tiny pair in the folder that it is given, in a process of the fork server."""

import sys
from pathlib import Path

from worker.synthetic_pairs.synthetic import synthetic_pair_folder


def main() -> int:
    synthetic_pair_folder("tiny", Path(sys.argv[1]))
    return 0
