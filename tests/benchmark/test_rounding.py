"""small_model/rounding.py against numbers worked out by hand."""

import pytest
import torch

from benchmark.small_model.rounding import kept_in_bfloat16


def test_a_step_below_half_the_distance_of_bfloat16_numbers_is_lost():
    """Next to 1 these are 2**-7 apart above and 2**-8 below."""
    before = {"w": torch.ones(4), "tied": torch.ones(1)}
    small, large = 2**-9, 3 * 2**-8
    after = {"w": torch.ones(4) + torch.tensor([small, -large, large, 0.0])}
    # small is lost, -large is kept as it is, and large becomes 2 * 2**-7, as a tie goes to the even number
    changed, kept, size = kept_in_bfloat16(before, after)
    square = small**2 + 2 * large**2
    assert changed == 0.5
    assert kept == pytest.approx((large * large + 2**-6 * large) / square)
    assert size == pytest.approx((square / 4) ** 0.5)


def test_a_step_on_the_grid_is_kept_and_no_step_is_refused():
    before = {"w": torch.tensor([1.0, -2.0])}
    assert kept_in_bfloat16(before, {"w": torch.tensor([1.5, -2.5])})[:2] == (1.0, 1.0)
    with pytest.raises(ValueError, match="no step"):
        kept_in_bfloat16(before, before)
