"""A package ``worker`` for the processes that a supervisor starts: their program is another one, the rest is real."""

import shutil
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
_BESIDE_THE_REAL_ONE = "import pkgutil\n__path__ = pkgutil.extend_path(__path__, __name__)\n"


def stand_in_package(folder: Path, program: ModuleType) -> str:
    """Puts the program in the place of ``worker.device_process.process``. Returns the PYTHONPATH that finds it."""
    package = folder / "stand-in" / "worker" / "device_process"
    package.mkdir(parents=True)
    for place in (package.parent, package):
        (place / "__init__.py").write_text(_BESIDE_THE_REAL_ONE)
    shutil.copy(str(program.__file__), package / "process.py")
    return f"{package.parent.parent}:{ROOT}"
