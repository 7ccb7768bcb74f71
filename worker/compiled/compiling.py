"""torch.compile for a UNet: what of it is compiled, and when the compiled code is used.

Compiled code is kept in ``<cache>/compiled`` (``TORCHINDUCTOR_CACHE_DIR``), so a restart does not compile again. Each
choice of an attention kernel has a folder of its own there: PyTorch looks code up without regard to it, and would take
in another pair's kernel (https://github.com/pytorch/pytorch/issues/185449).
"""

import os
import shutil
import sys
import sysconfig
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import UNet2DConditionModel

from schemas.device_options import CompileMode

_CACHE: Final = "TORCHINDUCTOR_CACHE_DIR"
#: of one piece of code: PyTorch's own 8 are too few for the blocks of two UNets in several shapes
_RECOMPILE_LIMIT: Final = 128


class CompiledCodeError(RuntimeError):
    """Code for a UNet could not be made or taken in: no file of it is whole, or a tool that makes it is missing. The
    networks as they are can be rendered with all the same."""


def is_of_compiling(error: RuntimeError) -> bool:
    """Whether it was raised while code was made or taken in. Where nothing is compiled, nobody has imported what knows
    of such errors, which takes seconds."""
    known = sys.modules.get("torch._dynamo.exc")
    return known is not None and isinstance(error, known.TorchDynamoException)


def require_compiler(device: torch.device) -> None:
    """Raises ValueError where there is nothing to compile with: PyTorch would say so in the middle of a pass."""
    wanted = [os.environ.get("CXX", "g++")] if device.type == "cpu" else [os.environ.get("CC", "gcc"), "clang", "cc"]
    if not any(map(shutil.which, wanted)):
        raise ValueError(
            f"options.compile needs a compiler, and this machine has no {' or '.join(wanted)}: install one"
            ' (Debian, Ubuntu: apt install g++), or say compile = "off"'
        )
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        raise ValueError(
            "options.compile needs Python's headers, and this machine has no Python.h: install them"
            ' (Debian, Ubuntu: apt install python3-dev), or say compile = "off"'
        )


def keep_compiled_code(folder: Path) -> None:
    """Where the environment names no other folder. PyTorch reads it when it compiles."""
    os.environ.setdefault(_CACHE, str(folder.absolute()))


def compiled_code_folder() -> Path:
    """Where the code is kept."""
    return Path(os.environ[_CACHE])


def make_compilable(unet: UNet2DConditionModel, mode: CompileMode) -> None:
    """In place. Each shape is compiled for itself: one code for all would compute otherwise than code for one."""
    torch._dynamo.config.recompile_limit = _RECOMPILE_LIMIT
    unet.register_forward_pre_hook(_in_one_layout, with_kwargs=True)
    if mode == "regional":
        unet.compile_repeated_blocks(dynamic=False)
    else:
        unet.forward = torch.compile(unet.forward, dynamic=False)


def using(pair_mode: CompileMode, mode: CompileMode) -> AbstractContextManager[Any]:
    """While inside, UNets of a pair with the first mode run compiled, or as they are where the second says "off"."""
    if pair_mode == "off":
        return nullcontext()
    return torch.compiler.set_stance("force_eager" if mode == "off" else "default")


def _in_one_layout(
    unet: UNet2DConditionModel, args: tuple[torch.Tensor, torch.Tensor], told: dict[str, Any]
) -> tuple[tuple[torch.Tensor, ...], dict[str, Any]]:
    """Schedulers have timesteps of several dtypes, and latents lie in memory now so, now otherwise: each would be a
    shape of its own to the compiler. The numbers stay the same."""
    sample, timestep = args
    hidden_states = told["encoder_hidden_states"].contiguous()
    return (sample.contiguous(), timestep.to(torch.float32, copy=True)), {
        **told,
        "encoder_hidden_states": hidden_states,
    }
