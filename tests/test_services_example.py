"""The worked example of docs/services.md: its files clear and settle to what its tables say."""

import re
from pathlib import Path

import numpy as np
import pytest
from settlementcases import amounts

from dlmp import Clearing, clear, read_case, settle

PAGE = (Path(__file__).parents[1] / "docs" / "services.md").read_text("utf-8")
FILES = re.findall(r"^`([a-z_]+\.(?:csv|toml))`\n\n```\w*\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> Clearing:
    folder = tmp_path_factory.mktemp("example")
    for name, text in FILES:
        (folder / name).write_text(text, "utf-8")
    return clear(read_case(folder))


def rows_below(header: str) -> list[list[str]]:
    """Cells of the table with that header."""
    table = PAGE[PAGE.index(header) :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def test_the_page_has_every_file_of_the_case():
    assert len(FILES) == len(dict(FILES)) == 8
    assert {"service_offers.csv", "requirements.csv"} <= dict(FILES).keys()


def test_awards_and_prices_are_those_of_the_page(found: Clearing):
    awards, services = found.awards, found.services
    columns = (awards.net_injection_kw, awards.lmp_usd_per_mwh, services.reserved_kw, services.price_usd_per_mw_h)
    shown = rows_below("| Resource | Energy [kW] |")
    assert [row[0] for row in shown] == found.case.resources.name.tolist()
    cleared = np.array([values[0] for values in columns]).T
    np.testing.assert_allclose(cleared, [[float(cell) for cell in row[1:]] for row in shown], rtol=1e-5, atol=1e-5)


def test_components_are_those_of_the_page(found: Clearing):
    ((requirement, congestion, price),) = rows_below("| `requirement` | `congestion` | Price |")
    row = found.services.table().query("resource == 'engine'").iloc[0]
    np.testing.assert_allclose(
        [row.requirement, row.congestion, row.price_usd_per_mw_h],
        [float(requirement), float(congestion), float(price)],
        rtol=1e-5,
    )
    assert set(found.binding_limits().called) == {"capacity_up"}
    np.testing.assert_allclose(found.flows.from_kva.real, -10.0, rtol=1e-5)


def test_the_page_s_accounts_are_those_of_the_settlement(found: Clearing):
    settlement = settle(found)
    own, totals = amounts(settlement), dict(settlement.totals().itertuples(index=False, name=None))
    shown = rows_below("| Account | `energy` |")
    assert [row[0] for row in shown] == list(totals)
    for account, energy, capacity, total in shown:
        assert str(totals[account]) == total
        if account != "operator":
            assert (own[account, "energy"], own.get((account, "capacity_up"), "0.00")) == (energy, capacity)
    assert (own["operator", "services"], own["operator", "congestion"]) == ("-0.35", "0.12")
    assert {"0.35", "0.12"} <= set(re.findall(r"\d\.\d\d", PAGE.split("The operator pays")[1]))
