"""Tiers of penalties: what is right, and that everything wrong is told."""

import numpy as np
import pytest

from dlmp import InputError, Penalties, Tier
from dlmp.penalties import HARD, KINDS


def test_every_kind_of_limit_is_soft_by_default_and_none_when_hard():
    assert all(getattr(Penalties(), name) for name in KINDS.values())
    assert not any(getattr(HARD, name) for name in KINDS.values())


def test_the_built_in_prices_are_above_what_offers_may_ask_in_us_markets():
    """2,000 USD/MWh; a voltage at the end of a feeder follows power by some 0.04 pu/MW."""
    built_in = Penalties()
    assert min(built_in.thermal[0].price, built_in.substation[0].price, 0.04 * built_in.voltage[0].price) >= 2000


@pytest.mark.parametrize(
    ("tiers", "message"),
    [
        ((Tier(0.1, 5.0),), r"penalties of thermal, beyond = 0.1: the first tier begins at 0"),
        ((Tier(0.0, 0.0),), r"price = 0.0: must be above zero"),
        ((Tier(0.0, -3.0),), r"price = -3.0: must be above zero"),
        ((Tier(0.0, np.inf),), "price = inf: must be finite"),
        ((Tier(0.0, np.nan),), "price = nan: must be finite"),
        ((Tier(0.0, 5.0), Tier(np.inf, 6.0)), "beyond = inf: must be finite"),
        ((Tier(0.0, 5.0), Tier(0.0, 6.0)), r"beyond = 0.0: must be above 0, that of the tier before"),
        ((Tier(0.0, 5.0), Tier(0.1, 5.0)), r"price = 5.0: must be above 5, that of the tier before"),
    ],
)
def test_a_tier_that_is_wrong_is_told(tiers: tuple[Tier, ...], message: str):
    with pytest.raises(InputError, match=message):
        Penalties(thermal=tiers)


def test_everything_that_is_wrong_is_told_at_once():
    with pytest.raises(InputError) as caught:
        Penalties(voltage=(Tier(0.1, -1.0),), substation=(Tier(0.0, 1.0), Tier(5.0, 0.5)))
    assert [problem.element for problem in caught.value.problems] == [
        "penalties of voltage",
        "penalties of voltage",
        "penalties of import",
    ]
