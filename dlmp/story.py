"""What dispatch is worth on a feeder, told in three runs: a day to a page, tables and pictures.

The runs are the day with nobody dispatched, the day dispatched by price, and the dispatched day with more load.  Beside
them stands the largest load that the feeder carries with nobody dispatched (`dlmp.capacity`), so that the page can tell
how much capacity the dispatch gains.  Every figure of the page comes from a clearing or its settlement.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from dlmp.bids import ACCOUNTS
from dlmp.capacity import LargestLoad, keeps_limits, largest_load, peak_load_kw, undispatched, with_more_load
from dlmp.clearing import Clearing, clear
from dlmp.errors import InputError, Problem
from dlmp.market import MarketCase
from dlmp.network.model import BALANCED_PHASE, FloatArray
from dlmp.output import Writer, csv_writer, finite
from dlmp.plot import curves, feeder, price_stack
from dlmp.prices import interval_keys
from dlmp.report import broken_rows
from dlmp.scarcity import count_elements
from dlmp.settlement import Settlement, settle
from dlmp.settlement.lines import ENERGY
from dlmp.settlement.money import in_minor_units
from dlmp.units import KW_PER_MW

PAGE = "story.md"
PICTURES = ("feeder_before.png", "feeder_after.png", "price.png", "curves.png")
STORY_FILES = (PAGE, "runs.csv", "prices.csv", "payments.csv", *PICTURES)
"""Names of all files of a story."""

CONGESTED_USD_PER_MWH = 0.01
"""An interval in which limits change the price by less is not told on the page [currency/MWh]."""


@dataclass(frozen=True, eq=False)
class Run:
    """One clearing of a story: what it is called, and of which case it is."""

    name: str
    clearing: Clearing = field(repr=False)

    @cached_property
    def settlement(self) -> Settlement:
        """Who is paid what."""
        return settle(self.clearing)

    @property
    def holds(self) -> bool:
        """True when all limits are kept, also by an independent AC power flow."""
        return keeps_limits(self.clearing)

    def figures(self) -> dict[str, Any]:
        """Return its row of ``runs.csv``."""
        clearing = self.clearing
        case, share = clearing.case, clearing.local_supply.totals()["share_served_locally"]
        v_pu = clearing.voltages.v_pu[:, ~case.network.is_source[case.network.port_node[case.network.voltage_ports]]]
        return {
            "case": case.name,
            "run": self.name,
            "peak_load_mw": peak_load_kw(case) / KW_PER_MW,
            "broken_limits": count_elements(clearing.broken_limits()),
            "intervals_with_broken_limits": int(clearing.broken_limits().interval.nunique()),
            "highest_loading_percent": 100 * float(clearing.flows.loading.max()),
            "lowest_v_pu": float(v_pu.min()),
            "highest_v_pu": float(v_pu.max()),
            "lowest_price_usd_per_mwh": float(clearing.prices.published.min()),
            "highest_price_usd_per_mwh": float(clearing.prices.published.max()),
            "cost_without_penalties_usd": clearing.objective - clearing.penalty,
            "share_served_locally": share,
            "ac_feasible": clearing.certificate.is_feasible,
        }


@dataclass(frozen=True, eq=False)
class Story:
    """A day in three runs, the load that it carries undispatched, and other days of the feeder in two.

    Parameters
    ----------
    more_kw
        Load that the third run adds [kW].
    before, after, more
        Nobody dispatched; dispatched by price; dispatched with the added load.
    alone
        The largest load with nobody dispatched.
    others
        Runs without and with dispatch of each other day.
    dispatched
        The largest load with dispatch; None where it was not looked for.
    """

    more_kw: float
    before: Run
    after: Run
    more: Run
    alone: LargestLoad
    others: tuple[tuple[Run, Run], ...]
    dispatched: LargestLoad | None = None

    @property
    def case(self) -> MarketCase:
        """The day as it is given."""
        return self.after.clearing.case

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs, those of other days last."""
        return (self.before, self.after, self.more, *(run for pair in self.others for run in pair))

    @property
    def carried_kw(self) -> float | None:
        """The largest added load that dispatch was seen to carry [kW]; None where not even the load of today."""
        if self.dispatched is not None:
            return self.dispatched.more_kw
        carried = [added for added, run in ((0.0, self.after), (self.more_kw, self.more)) if run.holds]
        return max(carried, default=None)

    @property
    def gained_kw(self) -> float | None:
        """Effective capacity gained by dispatch: at least so much [kW]; None where dispatch keeps no limits either."""
        return None if self.carried_kw is None else max(self.carried_kw - self.alone.more_kw, 0.0)

    @property
    def interval(self) -> int:
        """The interval in which the undispatched day breaks its limits most, else that of the highest load."""
        penalties = self.before.clearing.penalties()
        load_kw = self.case.load_p_kw.sum(axis=1)
        return int(penalties.argmax() if penalties.any() else load_kw.argmax())

    @property
    def port(self) -> int:
        """Port of the highest price of the day with more load."""
        prices = self.more.clearing.prices
        return int(prices.ports[prices.published.max(axis=0).argmax()])


def tell_story(
    case: MarketCase,
    more_kw: float,
    others: Sequence[MarketCase] = (),
    progress: Callable[[str], None] = lambda text: None,
    *,
    with_largest: bool = False,
) -> Story:
    """Clear all runs of a story.

    Parameters
    ----------
    case
        The day, with its resources offered.
    more_kw
        Load to add in the third run [kW].
    others
        Other days of the feeder, which are told without and with dispatch.
    progress
        Called with what is being done; default: silent.
    with_largest
        Look for the largest load with dispatch too, which takes long: loads that are too many are slow to clear.

    Raises
    ------
    InputError
        When `more_kw` is not above zero, nobody bids, or no load at all is carried without dispatch.
    """
    if not (np.isfinite(more_kw) and more_kw > 0):
        raise InputError([Problem("story", "more_kw", more_kw, "must be finite and above zero")])
    if not len(case.resources):
        raise InputError([Problem("story", "case", case.name, "has no resources: there is nothing to dispatch")])
    progress("clearing without dispatch")
    before = Run("no dispatch", clear(undispatched(case)))
    progress("clearing with dispatch")
    after = Run("dispatch by price", clear(case))
    progress("clearing with more load")
    more = Run(f"dispatch, {more_kw / KW_PER_MW:g} MW more load", clear(with_more_load(case, more_kw)))
    progress("looking for the largest load without dispatch")
    alone = largest_load(undispatched(case))
    dispatched = None
    if with_largest:
        progress("looking for the largest load with dispatch")
        dispatched = largest_load(case, more_kw)
    pairs = []
    for other in others:
        progress(f"clearing {other.name}")
        pairs.append((Run("no dispatch", clear(undispatched(other))), Run("dispatch by price", clear(other))))
    return Story(more_kw, before, after, more, alone, tuple(pairs), dispatched)


def run_table(story: Story) -> pd.DataFrame:
    """One row per run."""
    return pd.DataFrame([run.figures() for run in story.runs])


def price_table(story: Story) -> pd.DataFrame:
    """One row per interval: the substation's price, and that at the story's bus in each of the three runs."""
    case, port = story.case, story.port
    frame = interval_keys(case.horizon, 1)
    frame["bus"] = str(case.network.place(port))
    frame["substation_usd_per_mwh"] = case.substation.price_usd_per_mwh
    before = story.before.clearing.prices
    frame["before_usd_per_mwh"] = before.lmp_usd_per_mwh[:, port]
    frame["before_without_scarcity_usd_per_mwh"] = (before.lmp_usd_per_mwh - before.scarcity)[:, port]
    frame["after_usd_per_mwh"] = story.after.clearing.prices.lmp_usd_per_mwh[:, port]
    frame["more_usd_per_mwh"] = story.more.clearing.prices.lmp_usd_per_mwh[:, port]
    return frame


def payment_table(story: Story) -> pd.DataFrame:
    """One row per account: net energy [kWh] and payment, of the dispatched day and of that with more load."""
    accounts = list(dict.fromkeys([*story.case.resources.participant.tolist(), *ACCOUNTS]))
    nothing = in_minor_units(Decimal(0), story.case.horizon.currency)
    columns: dict[str, list[Any]] = {"account": accounts}
    for name, run in (("after", story.after), ("more", story.more)):
        statements = run.settlement.statements()
        energy = statements[statements["product"] == ENERGY].groupby("participant").quantity.sum().to_dict()
        amounts = dict(run.settlement.totals().itertuples(index=False, name=None))
        columns[f"energy_{name}_kwh"] = [energy.get(account, 0.0) for account in accounts]
        columns[f"amount_{name}"] = [amounts.get(account, nothing) for account in accounts]
    return pd.DataFrame(columns)


def writers(story: Story, page: str) -> dict[str, Writer]:
    """What writes each of `STORY_FILES`; `page` is the text of the first."""
    payments = payment_table(story)
    plain = payments.assign(**{name: payments[name].map("{:f}".format) for name in ("amount_after", "amount_more")})
    tables = {"runs": run_table(story), "prices": price_table(story), "payments": plain}
    return {
        PAGE: lambda path: path.write_text(page, "utf-8"),
        **{f"{name}.csv": csv_writer(finite(name, table)) for name, table in tables.items()},
        **dict(_pictures(story)),
    }


def _pictures(story: Story) -> Iterator[tuple[str, Writer]]:
    interval, network = story.interval, story.case.network
    bus, phase = str(network.port_bus[story.port]), str(network.port_phase[story.port])
    by_phase = None if phase == BALANCED_PHASE else phase
    axes = (
        feeder(story.before.clearing, interval),
        feeder(story.more.clearing, interval),
        price_stack(story.more.clearing, bus, phase=by_phase),
        curves(story.more.clearing, marginal_resource(story.more.clearing, interval), interval),
    )
    for name, ax in zip(PICTURES, axes, strict=True):
        yield name, ax.figure.canvas.figure.savefig


def marginal_resource(clearing: Clearing, interval: int) -> str:
    """Name of the resource whose award is farthest inside its range in an interval."""
    resources, award_kw = clearing.case.resources, clearing.awards.net_injection_kw[interval]
    room_kw = np.minimum(award_kw - resources.p_min_kw, resources.p_max_kw[interval] - award_kw)
    return str(resources.name[room_kw.argmax()])


def story_rows(story: Story, wall_seconds: float) -> list[tuple[str, str]]:
    """Sum up a story in lines: a label and a text each."""
    rows = [("case", f"{story.case.name}, {wall_seconds:.2f} s")]
    for index, run in enumerate(story.runs):
        row = run.figures()
        what = f"{row['broken_limits']} limits broken" if row["broken_limits"] else "all limits held"
        prices = f"{row['lowest_price_usd_per_mwh']:,.2f} to {row['highest_price_usd_per_mwh']:,.2f}"
        text = f"{run.name}: {row['peak_load_mw']:.2f} MW, {what}, prices {prices}"
        rows.append(("" if index else "runs", text if index < 3 else f"{row['case']}, {text}"))
    if story.gained_kw is not None:
        rows.append(("capacity gained", f"at least {story.gained_kw / KW_PER_MW:.2f} MW"))
    return rows


def page_of(story: Story, pictures: str = "") -> str:
    """The story as Markdown, with its pictures in the folder `pictures`, which ends with a slash or is blank."""
    case, horizon = story.case, story.case.horizon
    when = f"{horizon.local(story.interval):%H:%M}"
    bus = case.network.place(story.port)
    before, after, curve, marginal = (f"{pictures}{name}" for name in PICTURES)
    parts = [
        f"# {case.name}: what dispatch is worth",
        f"`dlmp story` wrote this page: every figure is from a clearing of {horizon.local(0):%A, %Y-%m-%d}, "
        f"{horizon.timezone}, and each clearing was checked by an independent AC power flow "
        f"({story.after.clearing.certificate.program}).",
        "## Three runs",
        _intro(story),
        _runs_as_text(story.runs[:3]),
        _broken_as_text(story.before),
        "## Capacity gained",
        _gain_as_text(story),
        "## Prices before and after",
        f"Prices [{horizon.currency}/MWh] at bus {bus}, where they are highest with more load, in the intervals in "
        "which limits make a difference. *Without scarcity* leaves out of the first run's prices what its broken "
        "limits make of them, which are penalties and nobody's offers.",
        _prices_as_text(story),
        f"![Price at bus {bus} with more load, by component]({curve})",
        "## Who is paid what",
        f"Net energy, and what each account is paid over the day [{horizon.currency}]; negative amounts are paid by "
        "it. They add up to nothing.",
        _payments_as_text(story),
        f"## At {when}",
        f"![The feeder at {when} with nobody dispatched; what is broken is marked]({before})",
        f"![The feeder at {when}, dispatched, with more load]({after})",
        f"![The resource with most room at {when}: its curve, its award and its price]({marginal})",
    ]
    for pair in story.others:
        parts += _other_as_text(pair)
    return "\n\n".join(parts) + "\n"


def _intro(story: Story) -> str:
    resources = story.case.resources
    kinds = pd.Series(resources.kind.tolist()).value_counts(sort=False)
    named = ", ".join(f"{count} {str(kind).replace('_', ' ')}" for kind, count in kinds.items())
    return (
        f"The feeder has {len(resources)} resources ({named}). With *no dispatch* sun and wind inject all that they "
        "have, vehicles charge as soon as they are plugged in, batteries rest and nobody else is called. *Dispatch by "
        f"price* clears their bids. The third run adds {story.more_kw / KW_PER_MW:g} MW to the peak of the load, and "
        "in each other interval and at each bus in proportion to the load there."
    )


def _runs_as_text(runs: Sequence[Run]) -> str:
    currency = runs[0].clearing.case.horizon.currency
    names = (
        "Run", "Peak load [MW]", "Limits broken", "Highest loading [%]", "Voltages [pu]", f"Prices [{currency}/MWh]",
        f"Cost without penalties [{currency}]", "Served locally [%]", "AC check",
    )  # fmt: skip
    rows = []
    for run in runs:
        row = run.figures()
        broken, spread = row["broken_limits"], f"{row['lowest_v_pu']:.4f} to {row['highest_v_pu']:.4f}"
        prices = f"{row['lowest_price_usd_per_mwh']:,.2f} to {row['highest_price_usd_per_mwh']:,.2f}"
        rows.append((
            run.name, f"{row['peak_load_mw']:.2f}",
            f"{broken} in {row['intervals_with_broken_limits']} intervals" if broken else "none",
            f"{row['highest_loading_percent']:.1f}", spread, prices,
            f"{row['cost_without_penalties_usd']:,.2f}", f"{100 * row['share_served_locally']:.1f}",
            _verdict(run),
        ))  # fmt: skip
    return _as_text(names, rows)


def _verdict(run: Run) -> str:
    """What the independent AC power flow says of the limits, those that are told broken as far as told."""
    if not run.clearing.certificate.is_feasible:
        return "does not hold"
    return "all limits held" if run.holds else "no limit broken but those told"


def _broken_as_text(run: Run) -> str:
    """What a run breaks: the dearest of each kind of limit."""
    worst = [text for _, text in broken_rows(run.clearing) if text.startswith("- ")]
    return "\n".join([f"Broken with {run.name}:", "", *worst]) if worst else f"Nothing is broken with {run.name}."


def _gain_as_text(story: Story) -> str:
    today_mw, alone_mw = peak_load_kw(story.case) / KW_PER_MW, story.alone.more_mw
    lines = [
        f"The load peaks at {today_mw:.2f} MW. With nobody dispatched the feeder carries {today_mw + alone_mw:.2f} MW, "
        f"{alone_mw:+.2f} MW: the largest load that breaks no limit in any interval, found by bisection; "
        f"{(story.alone.fails_kw - story.alone.more_kw) / KW_PER_MW:.2f} MW more break one."
    ]
    if story.gained_kw is None or story.carried_kw is None:
        lines.append("Dispatched by price it breaks limits, too: nothing is gained.")
    else:
        gained, carried = story.gained_kw / KW_PER_MW, today_mw + story.carried_kw / KW_PER_MW
        lines.append(
            f"Dispatched by price it carries {carried:.2f} MW with all limits held. The effective capacity gained is "
            f"**at least {gained:.2f} MW**, without a new wire; {_found_as_text(story.dispatched)}."
        )
    return " ".join(lines)


def _found_as_text(dispatched: LargestLoad | None) -> str:
    """How near the load that dispatch carries is to the largest."""
    if dispatched is None:
        return "the largest load with dispatch was not looked for"
    return f"{(dispatched.fails_kw - dispatched.more_kw) / KW_PER_MW:.2f} MW more are too many with dispatch, too"


def _told_intervals(story: Story) -> list[int]:
    """Intervals in which a flow or a broken limit changes the price at the story's bus in any of the three runs."""
    changes: FloatArray = np.max(
        [
            np.abs(prices.congestion[:, story.port]) + np.abs(prices.scarcity[:, story.port])
            for prices in (run.clearing.prices for run in story.runs[:3])
        ],
        axis=0,
    )
    return np.flatnonzero(changes > CONGESTED_USD_PER_MWH).tolist()


def _prices_as_text(story: Story) -> str:
    table, told = price_table(story), _told_intervals(story)
    names = ("From", "Substation", "No dispatch", "Without scarcity", "Dispatch", "More load")
    prices = table.filter(like="_usd_per_mwh").to_numpy(float)
    rows = [
        (f"{story.case.horizon.local(interval):%H:%M}", *(f"{price:,.2f}" for price in prices[interval]))
        for interval in told
    ]
    return _as_text(names, rows)


def _payments_as_text(story: Story) -> str:
    names = ("Account", "Energy [MWh]", "Paid", f"Energy, {story.more_kw / KW_PER_MW:g} MW more", "Paid")
    rows = [
        (str(account), f"{energy / KW_PER_MW:,.2f}", f"{amount:,}", f"{energy_more / KW_PER_MW:,.2f}", f"{more:,}")
        for account, energy, amount, energy_more, more in payment_table(story).itertuples(index=False)
    ]
    return _as_text(names, rows)


def _other_as_text(pair: tuple[Run, Run]) -> list[str]:
    clearing = pair[1].clearing
    price, horizon = clearing.case.substation.price_usd_per_mwh, clearing.case.horizon
    cheapest = int(price.argmin())
    nodal = clearing.prices.published[cheapest]
    return [
        f"## {clearing.case.name}",
        f"{horizon.local(0):%A, %Y-%m-%d}. The price at the substation is lowest at {horizon.local(cheapest):%H:%M}: "
        f"{price[cheapest]:.2f} {horizon.currency}/MWh, and {nodal.min():.2f} to {nodal.max():.2f} at the buses with "
        "dispatch.",
        _runs_as_text(pair),
        _broken_as_text(pair[0]),
    ]


def _as_text(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown table whose first column is text and whose others are figures."""
    lines = [names, ["---", *["---:"] * (len(names) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
