"""Checks the functions that users edit: which inputs one reads, and whether it returns one number for each response.

Which inputs are read is found by calling the function with `UNKNOWN` in place of some of them:
torch calls `__torch_function__` of a tensor's subclass for whatever is done with the tensor: arithmetic, a comparison,
a conversion, a look at its shape. So a read is noticed even if the result does not show it.
"""

import math
import random
from collections.abc import Callable

import numpy as np
import torch


class UnknownRead(RuntimeError):
    """A function used a tensor that was not computed."""


class Unknown(torch.Tensor):
    """A tensor without values; every use of it is counted and raises `UnknownRead`."""

    times_read = 0

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        Unknown.times_read += 1
        raise UnknownRead(
            "a quantity is read that was not computed in this run, because it was not read when the run began. "
            "If it is log pi_base, leave out --no-base-curves."
        )


UNKNOWN = torch.empty(0).as_subclass(Unknown)


def reads_unknown(function: Callable, *inputs) -> bool:
    """Returns whether function(*inputs) reads, or returns, an input that is `UNKNOWN`. Afterwards the global random
    number generators of torch, numpy and Python are as they were before."""
    python, of_numpy, of_torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    of_gpu = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    before = Unknown.times_read
    try:
        returned = isinstance(function(*inputs), Unknown)
    except Exception:  # the read may reach us inside another error, as from a compiled function
        returned = False
        if Unknown.times_read == before:
            raise
    finally:
        random.setstate(python)
        np.random.set_state(of_numpy)
        torch.set_rng_state(of_torch)
        if of_gpu is not None:
            torch.cuda.set_rng_state(of_gpu)
    return returned or Unknown.times_read > before


def one_for_each(values, count: int, function: str, device: torch.device | str = "cpu") -> torch.Tensor:
    """Returns `values`, which `function` has returned for `count` responses, as data: (count,) float64, detached.

    Raises ValueError if they are not one number for each response, and for numbers outside a tensor also if one is
    infinite or NaN. A tensor is not read: on a GPU that would wait, and the loss is checked once a step."""
    wanted = f"{function} must return one number for each of the {count} responses, and returned "
    if not isinstance(values, torch.Tensor):
        try:
            values = torch.as_tensor(values, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"{wanted}{type(values).__name__}: {str(values)[:200]}") from None
        for number, value in enumerate(values.flatten().tolist()):
            if not math.isfinite(value):
                raise ValueError(f"{wanted}{value} for response {number}.")
    if values.shape != (count,):
        raise ValueError(f"{wanted}values of shape {tuple(values.shape)}.")
    return values.detach().to(device, torch.float64)
