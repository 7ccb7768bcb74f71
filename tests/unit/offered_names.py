"""Resolves names as manifests give them, in a process that notes each file it opens and each address it asks for.

python -m tests.unit.offered_names HOME < {"init_image": [...], "loras": [...]} > {"init_image": [{...}], ...}
"""

import json
import sys
from pathlib import Path
from typing import Any

from producer.manifests.inputs import Inputs
from schemas.settings import Settings

#: files that are opened, read or listed; programs that are started; and everything of networks
WATCHED = ("open", "os.listdir", "os.scandir", "os.open", "socket.", "subprocess.", "os.system", "os.exec", "urllib.")


def main() -> None:
    events: list[str] = []
    watching = False

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event.startswith(WATCHED):
            events.append(f"{event} {arguments[0] if arguments else ''}")

    inputs = Inputs(Settings(home=Path(sys.argv[1])))
    names = json.load(sys.stdin)
    sys.addaudithook(note)
    found: dict[str, list[dict[str, Any]]] = {field: [] for field in names}
    for field, value in [(field, value) for field, values in names.items() for value in values]:
        events.clear()
        watching = True
        resolved = inputs.resolve({field: value if field == "init_image" else [{"name": value}]})
        watching = False
        found[field].append({"reasons": [problem.reason for problem in resolved.problems], "events": list(events)})
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
