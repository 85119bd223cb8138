"""What a function that users edit has returned: one number for each response, or an error that says so."""

import math

import torch


def one_for_each(values, count: int, function: str, device: torch.device | str = "cpu") -> torch.Tensor:
    """Returns `values`, which `function` has returned for `count` responses, as data: (count,) float64, detached.

    Raises ValueError if they are not one number for each response, or if a number that is not on a GPU, where reading
    it would have to wait, is infinite or NaN."""
    wanted = f"{function} must return one number for each of the {count} responses, and returned "
    if not isinstance(values, torch.Tensor):
        try:
            values = torch.as_tensor(values, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"{wanted}{type(values).__name__}: {str(values)[:200]}") from None
    if values.shape != (count,):
        raise ValueError(f"{wanted}values of shape {tuple(values.shape)}.")
    if not values.is_cuda:
        for number, value in enumerate(values.tolist()):
            if not math.isfinite(value):
                raise ValueError(f"{wanted}{value} for response {number}.")
    return values.detach().to(device, torch.float64)
