"""A device that is not there: tensors that say they are elsewhere, and a count of how often the host waits for them.

Their numbers lie in main memory and are computed there. What a GPU would make the host wait for is counted: a number
that Python wants to know, a copy to the host or from it (of memory that is not pinned), looking things up on the host
by what lies on the device, a matrix inverse, which is checked.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

#: no kernel of another device is ever called for them
LABEL = torch.device("meta")
_aten = torch.ops.aten
_ANSWERS = {_aten._local_scalar_dense.default, _aten.nonzero.default, _aten._linalg_check_errors.default,
            _aten.masked_select.default, _aten.equal.default, _aten.is_nonzero.default}  # fmt: skip
_LOOKUPS = {_aten.index.Tensor, _aten.index_put_.default, _aten._index_put_impl_.default}


class OnDevice(torch.Tensor):
    """``held``: its numbers."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held):
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=LABEL
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} outside of StandInDevice")


class StandInDevice(TorchDispatchMode):
    """While inside, ``LABEL`` is a device."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        comes_from_device = any(isinstance(leaf, OnDevice) for leaf in leaves)
        target = kwargs.get("device")
        if target is not None:
            kwargs["device"] = torch.device("cpu")
        stays = comes_from_device if target is None else torch.device(target).type == LABEL.type
        if self._waits(func, args, leaves, moves=bool(leaves) and comes_from_device != stays):
            self.waits.append(str(func))
        found = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        if func._schema.is_mutable:
            return args[0]
        return tree_map(_labelled, found) if stays else found

    def _waits(self, func, args, leaves, moves):
        if moves:
            return True
        on_device = [isinstance(leaf, OnDevice) for leaf in leaves]
        if func in _ANSWERS:
            return any(on_device)
        if func in _LOOKUPS:
            return any(on_device) and (not all(on_device) or any(leaf.dtype == torch.bool for leaf in leaves[1:]))
        return func is _aten.copy_.default and len(set(on_device)) == 2


def _held(value):
    return value.held if isinstance(value, OnDevice) else value


def _labelled(value):
    return OnDevice(value) if isinstance(value, torch.Tensor) else value
