"""What is wrong with blocks is told all at once."""

from dataclasses import replace

import numpy as np
import pytest
from cases import feeder33, market, resource
from storecases import Store, with_stores

from dlmp import Blocks, InputError, MarketCase
from dlmp.blocks import NO_BLOCKS


def case() -> MarketCase:
    plain = market(feeder33(), [20.0] * 3, resource("plant", 5, supply=[(400, 90)], available_kw=[400, 300, 400]))
    return with_stores(plain, Store("battery", 9, charge_kw=50.0, energy_kwh=100.0))


def blocks(**change: object) -> Blocks:
    good = {
        "name": "B",
        "resource": 0,
        "is_supply": True,
        "first": 0,
        "last": 2,
        "quantity_kw": 300.0,
        "price_usd_per_mwh": 20.0,
        "least_share": 1.0,
        "group": "",
    }
    return Blocks(**{name: np.atleast_1d(value) for name, value in (good | change).items()})


def test_a_good_block_is_accepted():
    assert len(replace(case(), blocks=blocks()).blocks) == 1
    assert len(case().blocks) == len(NO_BLOCKS) == 0


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"resource": 7}, "resource", "is no resource"),
        ({"resource": 1, "quantity_kw": 0.0}, "resource", "is a store"),
        ({"first": 2, "last": 1}, "first_interval, last_interval", "0 <= first_interval"),
        ({"last": 3}, "first_interval, last_interval", "<= 2"),
        ({"price_usd_per_mwh": np.inf}, "price_usd_per_mwh", "finite"),
        ({"least_share": 0.0}, "min_acceptance_ratio", "above 0"),
        ({"least_share": 1.1}, "min_acceptance_ratio", "at most 1"),
        ({"quantity_kw": 0.0}, "quantity_kw", "above zero"),
        ({"quantity_kw": np.nan}, "quantity_kw", "finite"),
        ({"quantity_kw": 301.0}, "quantity_kw", "beyond the range of the resource, 300 kW"),
        ({"is_supply": False}, "quantity_kw", "beyond the range of the resource, 0 kW"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], field: str, message: str):
    with pytest.raises(InputError) as error:
        replace(case(), blocks=blocks(**change))
    assert any(
        problem.element == "block B" and problem.field == field and message in problem.message
        for problem in error.value.problems
    )


def test_names_are_unique():
    twice = Blocks(*(np.repeat(value, 2) for value in vars(blocks()).values()))
    with pytest.raises(InputError, match="stands more than once"):
        replace(case(), blocks=twice)


def test_a_block_may_be_larger_than_the_resource_where_its_least_share_fits():
    assert len(replace(case(), blocks=blocks(quantity_kw=600.0, least_share=0.5)).blocks) == 1
