"""Results of runs, invented or cleared, put into a world and published as versions of its market's prices."""

import hashlib
import io
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
from worlds import DAY_BEGINS

from api.runner import END
from api.runs import Claim, Ended, claim_run
from api.store.writer import each

PRICES = ("lmp_usd_per_mwh", "energy", "loss", "congestion", "voltage", "unbalance", "scarcity")
PRICES_Q = ("lmp_q_usd_per_mvarh", *(f"{name}_q" for name in PRICES[1:]))


def parquet(columns):
    content = io.BytesIO()
    table = pa.table(columns)
    pq.write_table(table, content)
    return content.getvalue(), hashlib.sha256(content.getvalue()).hexdigest(), table.num_rows


def price_table(nodes, intervals=2):
    """Prices of a few nodes; each is its energy part and a loss that is a number of its own."""
    rows = [(interval, node) for interval in range(intervals) for node in nodes]
    begins = pa.array([DAY_BEGINS.replace(hour=7 + interval) for interval, _ in rows], pa.timestamp("s", "UTC"))
    losses = [number / 7 for number in range(len(rows))]
    parts = {name: [0.0] * len(rows) for name in (*PRICES, *PRICES_Q)}
    parts |= {"energy": [30.0] * len(rows), "loss": losses, "lmp_usd_per_mwh": [30 + loss for loss in losses]}
    return {
        "interval_start": begins,
        "interval": [interval for interval, _ in rows],
        "bus": [node for _, node in rows],
        "phase": ["123"] * len(rows),
    } | parts


def statement_table(world, lines):
    """Statement lines (participant, resource, amount): the unit of a line is one kWh."""
    named = [(world.names.ids.get(participant, participant), *rest) for participant, *rest in lines]
    return {
        "participant": pa.array([line[0] for line in named], pa.string()),
        "resource": pa.array([line[1] for line in named], pa.string()),
        "product": pa.array(["energy"] * len(named), pa.string()),
        "quantity": pa.array([1.0] * len(named), pa.float64()),
        "unit": pa.array(["kWh"] * len(named), pa.string()),
        "amount": pa.array([f"{Decimal(line[2]):f}" for line in named], pa.string()),
    }


def award_table(lines):
    """Awards of the resources of statement lines."""
    count = len(lines)
    texts = {"kind": "generator", "bus": "A", "phase": "123"}
    numbers = {"net_injection_kw": 10.0, "q_kvar": 0.0, "lmp_usd_per_mwh": 30.0, "lmp_q_usd_per_mvarh": 0.0}
    columns = {"interval_start": pa.array([DAY_BEGINS] * count, pa.timestamp("s", "UTC"))}
    columns |= {"interval": pa.array([0] * count, pa.int64())}
    columns |= {"resource": pa.array([line[1] for line in lines], pa.string())}
    columns |= {name: pa.array([text] * count, pa.string()) for name, text in texts.items()}
    return columns | {name: pa.array([value] * count, pa.float64()) for name, value in numbers.items()}


CALLED = ("-", "capacity_up", "capacity_up of solar", "capacity_up of solar, wind", "var_up of wind since interval 3")
"""What is called in the states in which invented limits bind: nothing, a service, and resources of either."""
ANONYMOUS = {
    "capacity_up of solar": "capacity_up of a called resource",
    "capacity_up of solar, wind": "capacity_up of a called resource",
    "var_up of wind since interval 3": "var_up of a called resource since interval 3",
}


def limit_table():
    """A limit that binds in the state of every call."""
    return {"component": ["congestion"] * len(CALLED)} | _limits() | {"shadow_price_usd_per_h": [0.25] * len(CALLED)}


def broken_limit_table():
    """A limit that is broken in the state of every call."""
    numbers = {"value": 2.0, "excess": 0.5, "penalty_usd_per_h": 4.0, "cost_usd": 2.0}
    columns = {"cause": ["congestion"] * len(CALLED)} | _limits()
    return columns | {name: [value] * len(CALLED) for name, value in numbers.items()}


def _limits():
    count = len(CALLED)
    columns = {"interval_start": pa.array([DAY_BEGINS] * count, pa.timestamp("s", "UTC")), "interval": [0] * count}
    columns |= {"element": [f"line {number}" for number in range(count)], "phase": ["-"] * count, "end": ["-"] * count}
    return columns | {"called": CALLED, "limit": [1.5] * count, "unit": ["A"] * count}


def share_table():
    """What makes the price of each of two nodes: the substation, and a limit for every call."""
    rows = [(bus, called) for bus in ("A", "B") for called in ("-", *CALLED)]
    begins = pa.array([DAY_BEGINS for _ in rows], pa.timestamp("s", "UTC"))
    columns = {"interval_start": begins, "interval": [0] * len(rows), "bus": [bus for bus, _ in rows]}
    columns |= {"phase": ["123"] * len(rows), "component": ["energy", *["congestion"] * len(CALLED)] * 2}
    columns |= {"element": ["substation price", *(f"line {number}" for number in range(len(CALLED)))] * 2}
    columns |= {name: ["-"] * len(rows) for name in ("element_phase", "element_end")}
    columns |= {"called": [called for _, called in rows], "limit": [400.0] * len(rows), "unit": ["A"] * len(rows)}
    numbers = ("share_usd_per_mwh", "q_share_usd_per_mvarh", "price_usd_per_mwh", "q_price_usd_per_mvarh")
    return columns | {name: [2.5] * len(rows) for name in numbers}


def call_table():
    rows = [(called, name) for called in ANONYMOUS for name in ("solar", "wind") if name in called]
    return {
        "called": [called for called, _ in rows],
        "anonymous": [ANONYMOUS[called] for called, _ in rows],
        "resource": [name for _, name in rows],
    }


def run_invented(world, lines, market=None, reason=None, nodes=("S", "A", "B")):
    """Run a market, with invented results; return the run's name."""
    market = market or world["market"]
    if world.ask("GET", f"/v1/markets/{market}")["state"] == "open":
        world.ask("POST", f"/v1/markets/{market}/close")
    return end_invented(world, lines, f"/v1/markets/{market}/runs", reason, nodes)


def settle_invented(world, lines, market=None, reason=None):
    """Settle a published market with invented results; return the run's name."""
    return end_invented(world, lines, f"/v1/markets/{market or world['market']}/settle", reason)


def end_invented(world, lines, path, reason, nodes=("S", "A", "B")):
    """Ask for a run at `path`, and end it with invented results; return its name."""
    run = world.ask("POST", path, {} if reason is None else {"correction_reason": reason})
    return end_run_of(world, run["id"], lines, nodes)


def end_run_of(world, run_id, lines, nodes=("S", "A", "B")):
    """End a run that waits with invented results; return its name."""
    writer = world.service.writer
    claimed = writer.do_now(each(claim_run), Claim("worker", world.clock(), 10.0, 3))
    assert claimed.id == run_id
    tables = {
        "prices": parquet(price_table(nodes)),
        "statements": parquet(statement_table(world, lines)),
        "awards": parquet(award_table(lines)),
        "binding_limits": parquet(limit_table()),
        "broken_limits": parquet(broken_limit_table()),
        "price_shares": parquet(share_table()),
        "calls": parquet(call_table()),
    }
    ended = Ended(run_id, "worker", world.clock(), "succeeded", "", tables, {"status": "converged"})
    assert writer.do_now(END, ended)
    return run_id


def publish_invented(world, lines, market=None, **more):
    """Run and publish; return the run's name."""
    run = run_invented(world, lines, market, **more)
    world.ask("POST", f"/v1/markets/{market or world['market']}/publish")
    return run
