"""Which of its inputs a function reads: called with `UNKNOWN` in the place of some, it gets by without them or not.

torch calls `__torch_function__` of a tensor's subclass for whatever is done with the tensor: arithmetic, a comparison,
a conversion, a look at its shape. So a read is noticed even where the result would not show it.
"""

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
    """Whether function(*inputs) reads, or returns, an input that is `UNKNOWN`. Afterwards the global random number
    generators of torch, numpy and Python are as they were before."""
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
