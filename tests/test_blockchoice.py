"""Blocks are accepted as a whole or not at all: examples by hand, and every combination cleared on its own."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from cases import Offer, feeder33, generators33, market, rated, resource
from feeders import Branch, feeder

from dlmp import Blocks, Clearing, InfeasibleError, MarketCase, Settings, clear
from dlmp.blockchoice import _cost
from dlmp.report import clearing_rows
from dlmp.units import money_per_price_pu

LINE = [Branch("a", "b", 0.02, 0.04)]
ISLAND = {"p_min_kw": 0.0, "p_max_kw": 0.0}


def block(
    name: str,
    owner: str,
    kw: float,
    price: float,
    *,
    first: int = 0,
    last: int = 0,
    side: str = "supply",
    least_share: float = 1.0,
    group: str = "",
) -> tuple[object, ...]:
    return (name, owner, side == "supply", first, last, kw, price, least_share, group)


def with_blocks(case: MarketCase, *rows: tuple[object, ...]) -> MarketCase:
    name, owner, *rest = (np.array(column) for column in zip(*rows, strict=True))
    names = list(case.resources.name)
    return replace(case, blocks=Blocks(name, np.array([names.index(one) for one in owner]), *rest))


def bidder(name: str, bus: str | int, kw: float, demand_kw: float = 0.0) -> Offer:
    """A resource with room for its blocks, whose own bids nobody takes."""
    return resource(name, bus, supply=[(kw, 900)], demand=[(demand_kw, -900)])


def accepted(found: Clearing) -> set[str]:
    assert found.status == "converged"
    return set(found.case.blocks.name[found.blocks.is_accepted])


def price(found: Clearing, bus: str = "a", interval: int = 0) -> float:
    return float(found.prices.lmp_usd_per_mwh[interval, found.case.network.node(bus)])


def island(*offers: Offer, load_kw: float = 100.0, hours: int = 1) -> MarketCase:
    return market(feeder(LINE, {"a": (load_kw, 0)}), [20.0] * hours, *offers, **ISLAND)


def test_a_block_that_is_needed_but_paid_below_its_bid_is_made_whole():
    """100 kW of load; 60 kW at 10, a block of 60 kW at 20, and a peaker at 40.

    With the block: 60 kW at 20 and 40 kW at 10, 1.60; without: 60 kW at 10 and 40 kW at 40, 2.20.  The offer at 10
    is then partly accepted and makes the price: the block lacks 10 for each of its 60 kWh.
    """
    case = island(resource("g", "a", supply=[(60, 10), (100, 40)]), bidder("plant", "a", 60))
    found = clear(with_blocks(case, block("B", "plant", 60, 20)))
    assert accepted(found) == {"B"}
    assert found.objective == pytest.approx(1.60, abs=1e-6)
    assert price(found) == pytest.approx(10, abs=1e-5)
    (row,) = found.make_whole.itertuples()
    assert (row.resource, row.block) == ("plant", "B")
    assert (row.as_bid_usd, row.revenue_usd, row.payment_usd) == pytest.approx((1.2, 0.6, 0.6), abs=1e-6)
    assert found.certificate.is_feasible
    assert found.certificate.is_supported


def test_a_block_that_would_only_pay_in_part_is_rejected_although_the_price_is_above_its_bid():
    """20 kW are missing at 40, and the block has 100 kW at 20: 2.00 against 1.00 + 0.80."""
    case = island(resource("g", "a", supply=[(80, 10), (100, 40)]), bidder("plant", "a", 150))
    found = clear(with_blocks(case, block("B", "plant", 150, 20)))
    assert accepted(found) == set()
    assert price(found) == pytest.approx(40, abs=1e-5)
    assert found.make_whole.empty
    assert found.blocks.table().forgone_usd.tolist() == pytest.approx([150 * 20 / 1000], abs=1e-5)


def test_a_block_of_several_hours_is_paid_over_all_of_them():
    """It loses 5 a MWh at night (price 15) and gains 20 by day (40): accepted, and not made whole."""
    case = island(resource("g", "a", supply=[(200, [15, 40])]), bidder("plant", "a", 50), hours=2)
    found = clear(with_blocks(case, block("B", "plant", 50, 20, last=1)))
    assert accepted(found) == {"B"}
    assert found.make_whole.empty
    assert found.awards.net_injection_kw[:, 1] == pytest.approx([50, 50], abs=1e-6)
    dear = clear(with_blocks(case, block("B", "plant", 50, 28, last=1)))
    assert accepted(dear) == set()


def test_a_block_that_may_be_accepted_in_part_has_one_share_in_all_its_hours_and_makes_the_price():
    """At least 30 %; the hours need 40 and 60 kW beside the peaker at 90: 40 kW in both is the most that fits."""
    case = market(feeder(LINE, {"a": (100, 0)}), [20.0, 20.0], resource("g", "a", supply=[(100, 90)]),
                  bidder("plant", "a", 100), load=[0.4, 0.6], **ISLAND)  # fmt: skip
    found = clear(with_blocks(case, block("B", "plant", 100, 20, last=1, least_share=0.3)))
    assert accepted(found) == {"B"}
    assert found.blocks.block_kw[:, 0] == pytest.approx([40, 40], abs=1e-5)
    assert found.make_whole.empty
    # One more kWh by day comes from the peaker, one more by night from the block in both hours, which saves one.
    assert price(found, interval=1) == pytest.approx(90, abs=1e-4)
    assert price(found, interval=0) == pytest.approx(20 + 20 - 90, abs=1e-4)


def test_a_block_with_one_share_in_all_its_hours_is_what_its_bidder_would_choose_over_all_of_them():
    """Prices of 5 and 15 in turn, a block at 9 that may be had in part and a load of 50 that it may not exceed: with 50
    of its 90 kW it makes the prices, 4 and 14, and earns nothing whatever its share."""
    case = market(feeder(LINE, {"a": (50, 0)}), [5.0, 15.0], bidder("plant", "a", 100), p_min_kw=0.0)
    found = clear(with_blocks(case, block("B", "plant", 90, 9, last=1, least_share=0.25)))
    assert found.blocks.block_kw[:, 0] == pytest.approx([50, 50], abs=0.1)
    assert found.prices.lmp_usd_per_mwh.mean(axis=0)[1] == pytest.approx(9, abs=0.05)
    assert found.certificate.worst_bid_gap_usd == pytest.approx(0, abs=1e-6)
    assert found.certificate.is_supported


def test_a_demand_block_is_served_where_it_pays_more_than_supply_costs():
    case = island(resource("g", "a", supply=[(200, 30)]), bidder("plant", "a", 0, 80), load_kw=10)
    rows = [block("cheap", "plant", 30, 25, side="demand"), block("dear", "plant", 50, 35, side="demand")]
    found = clear(with_blocks(case, *rows))
    assert accepted(found) == {"dear"}
    assert found.awards.net_injection_kw[0, 1] == pytest.approx(-50, abs=1e-6)


def fixed(case: MarketCase, choice: tuple[bool, ...]) -> MarketCase:
    """The case without blocks, with the chosen ones as load in its hours: another way to write what they do."""
    blocks, load = case.blocks, case.load_p_kw.copy()
    for index in np.flatnonzero(choice):
        share = case.resources.share.toarray()[blocks.resource[index]]
        own = slice(blocks.first[index], blocks.last[index] + 1)
        load[own, : len(share)] -= blocks.sign[index] * blocks.quantity_kw[index] * share
    return replace(case, blocks=Blocks(*(array[:0] for array in vars(blocks).values())), load_p_kw=load)


def cheapest(case: MarketCase) -> tuple[set[str], float]:
    """The best of all combinations, each cleared on its own without blocks."""
    blocks, best = case.blocks, (set(), np.inf)
    hours = (blocks.last - blocks.first + 1) * case.horizon.interval_hours
    as_bid = blocks.sign * blocks.price_usd_per_mwh * blocks.quantity_kw * hours / 1000
    for choice in product([False, True], repeat=len(blocks)):
        groups = [group for group in blocks.group[list(choice)] if group]
        if len(groups) > len(set(groups)):
            continue
        try:
            found = clear(fixed(case, choice))
        except InfeasibleError:
            continue
        cost = found.objective + as_bid[list(choice)].sum()
        if cost < best[1]:
            best = (set(blocks.name[list(choice)]), cost)
    return best


@pytest.fixture(scope="module")
def congested() -> MarketCase:
    """Undervoltage on the 33-bus feeder for two hours, six blocks of which three exclude each other."""
    plants = [bidder("plant 17", 17, 2000), bidder("plant 32", 32, 2000), bidder("plant 24", 24, 0, 2000)]
    case = market(feeder33(v_min_pu=0.93), [20.0, 26.0], *generators33(), *plants, load=[0.9, 1.0])
    return with_blocks(
        case,
        block("small", "plant 17", 200, 27, last=1, group="one of"),
        block("large", "plant 17", 500, 29, last=1, group="one of"),
        block("late", "plant 17", 350, 25, first=1, last=1, group="one of"),
        block("south", "plant 32", 300, 30, last=1),
        block("cold store", "plant 24", 400, 24, side="demand"),
        block("pumps", "plant 24", 300, 21, first=1, last=1, side="demand"),
    )


def test_the_choice_is_the_best_of_all_combinations(congested: MarketCase):
    names, cost = cheapest(congested)
    found = clear(congested)
    assert accepted(found) == names
    assert found.objective == pytest.approx(cost, rel=1e-7)
    assert len(names) > 0
    assert found.certificate.is_feasible


def test_the_order_of_blocks_and_bids_changes_nothing(congested: MarketCase):
    blocks, first = congested.blocks, clear(congested)
    order = np.array([4, 2, 0, 5, 3, 1])
    other = clear(replace(congested, blocks=Blocks(*(array[order] for array in vars(blocks).values()))))
    assert accepted(other) == accepted(first)
    assert other.prices.lmp_usd_per_mwh == pytest.approx(first.prices.lmp_usd_per_mwh, abs=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_the_choice_among_random_blocks_is_the_best_of_all_combinations(seed: int):
    """Two hours or half-hours of a feeder with losses, sometimes with a limit; three of the blocks are a group."""
    random = np.random.default_rng(seed)
    network = feeder([Branch("a", "b", 0.02, 0.04), Branch("b", "c", 0.03, 0.05)], {"b": (80, 20), "c": (120, 30)})
    if seed % 3 == 1:
        network = rated(network, "b-c", kva=150.0)
    plants = [bidder("p0", "b", 400, 400), bidder("p1", "c", 400, 400)]
    dear = resource("dear", "c", supply=[(100, 45), (300, 80)])
    limit = {"p_max_kw": 120.0} if seed % 2 else {}
    case = market(network, random.uniform(20, 50, 2), dear, *plants, load=random.uniform(0.6, 1.2, 2), **limit)
    case = replace(case, horizon=replace(case.horizon, interval_minutes=int(random.choice([30, 60]))))
    rows = []
    for index in range(5):
        first = int(random.integers(0, 2))
        is_supply = random.random() < 0.7
        rows.append(
            block(
                f"b{index}",
                f"p{random.integers(0, 2)}",
                random.uniform(20, 120),
                random.uniform(20, 70),
                first=first,
                last=int(random.integers(first, 2)),
                side="supply" if is_supply else "demand",
                group="one" if index < 3 else "",
            )
        )
    case = with_blocks(case, *rows)
    names, cost = cheapest(case)
    found = clear(case)
    assert accepted(found) == names
    assert found.objective == pytest.approx(cost, rel=1e-7)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_of_blocks_that_are_equally_good_the_names_decide(order: tuple[int, ...]):
    case = island(resource("g", "a", supply=[(200, 40)]), bidder("plant", "a", 300))
    rows = [block(name, "plant", 60, 20, group="one") for name in ("x", "y", "z")]
    (name,) = accepted(clear(with_blocks(case, *(rows[index] for index in order))))
    (same,) = accepted(clear(with_blocks(case, *rows)))
    assert name == same


def test_blocks_that_a_limit_cannot_carry_are_cut_off():
    """A floor of voltage that only the block can keep, and one that it breaks."""
    network = feeder33(v_min_pu=0.9, v_max_pu=1.02)
    case = market(network, 20.0, bidder("plant", 17, 9000))
    found = clear(with_blocks(case, block("far too large", "plant", 8000, 1), block("good", "plant", 500, 15)))
    assert accepted(found) == {"good"}


@pytest.mark.parametrize("seed", range(4))
def test_the_choice_is_the_best_of_all_combinations_where_limits_are_broken(seed: int):
    """Bus c falls below its band whatever is accepted: each MWh relieves it by 25,000 USD, or twice that below 0.95."""
    random = np.random.default_rng(seed)
    network = feeder([Branch("a", "b", 0.02, 0.04), Branch("b", "c", 0.03, 0.05)], {"b": (80, 20), "c": (150, 30)})
    network = replace(network, v_min_pu=np.array([0.9, 0.9, 0.97]))
    case = market(network, [20.0, 30.0], resource("p", "c", supply=[(400, 90_000)]))
    prices = random.uniform(10_000, 60_000, 4)
    rows = [
        block(f"b{index}", "p", random.uniform(10, 40), price, last=index % 2, group="one" if index > 1 else "")
        for index, price in enumerate(prices)
    ]
    case = with_blocks(case, *rows)
    names, cost = cheapest(case)
    found = clear(case)
    assert accepted(found) == names
    assert found.objective == pytest.approx(cost, rel=1e-7)
    assert len(found.broken_limits())
    compared = _cost(found._dispatch) * money_per_price_pu(case.horizon.interval_hours)
    assert compared == pytest.approx(found.objective, rel=1e-9), "choices are compared by their penalties too"


def test_the_linear_model_chooses_blocks_too():
    case = island(resource("g", "a", supply=[(60, 10), (100, 40)]), bidder("plant", "a", 60))
    found = clear(with_blocks(case, block("B", "plant", 60, 20)), Settings(formulation="lindistflow", losses="none"))
    assert accepted(found) == {"B"}


def test_the_report_counts_blocks_and_what_makes_them_whole():
    case = island(resource("g", "a", supply=[(60, 10), (100, 40)]), bidder("plant", "a", 60))
    found = clear(with_blocks(case, block("B", "plant", 60, 20), block("dear", "plant", 60, 200)))
    assert dict(clearing_rows(found, None, 0.0))["blocks"] == "1 of 2 blocks accepted, 0.60 USD to make them whole"


def test_more_than_one_block_of_a_group_is_never_accepted():
    """Both are worth it alone and together; the one that saves more is taken."""
    case = island(resource("g", "a", supply=[(200, 90)]), bidder("plant", "a", 200))
    rows = [block("small", "plant", 30, 20), block("large", "plant", 50, 25)]
    assert accepted(clear(with_blocks(case, *rows))) == {"small", "large"}
    grouped = [(*row[:-1], "one") for row in rows]
    assert accepted(clear(with_blocks(case, *grouped))) == {"large"}
