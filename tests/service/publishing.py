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
    return {
        "resource": pa.array([line[1] for line in lines], pa.string()),
        "net_injection_kw": pa.array([10.0] * len(lines), pa.float64()),
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
    writer = world.service.writer
    run = world.ask("POST", path, {} if reason is None else {"correction_reason": reason})
    claimed = writer.do_now(each(claim_run), Claim("worker", world.clock(), 10.0, 3))
    assert claimed.id == run["id"]
    tables = {
        "prices": parquet(price_table(nodes)),
        "statements": parquet(statement_table(world, lines)),
        "awards": parquet(award_table(lines)),
        "binding_limits": parquet({"element": ["line 1"], "price_usd_per_mwh": [1.5]}),
    }
    ended = Ended(run["id"], "worker", world.clock(), "succeeded", "", tables, {"status": "converged"})
    assert writer.do_now(END, ended)
    return run["id"]


def publish_invented(world, lines, market=None, **more):
    """Run and publish; return the run's name."""
    run = run_invented(world, lines, market, **more)
    world.ask("POST", f"/v1/markets/{market or world['market']}/publish")
    return run
