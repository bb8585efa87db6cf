"""How far each model is from the exact optimum: ``python -m benchmarks.accuracy SPEC`` prints JSON.

The exact optimum is IPOPT's of the AC optimal power flow.  For every model stand the cost that it reports, what its
dispatch costs in the AC power flow of another program, the error of its prices, and the worst violation of a limit
there.  A pass of `ac_tangent` is taken without the Newton finish, which as a rule ends a clearing after the first.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import dlmp
from benchmarks.cases import ACCURACY, LINEAR, LOSSLESS
from benchmarks.measure import Skip, case_of, reason_of
from benchmarks.peers import Outcome, peer_module
from benchmarks.process import SKIPPED
from dlmp import Settings, newton
from dlmp.market import MarketCase
from dlmp.network.independent import independent_power_flow
from dlmp.network.model import FloatArray
from dlmp.units import BASE_KVA, KW_PER_MW

LEAST_USD_PER_MWH = 1.0
"""Relative errors of smaller prices are relative to this."""


@dataclass(frozen=True)
class Model:
    """Settings of a clearing, and whether it may end by Newton's method."""

    name: str
    settings: Settings
    has_finish: bool = True


MODELS = (
    Model("lindistflow, lossless", LOSSLESS),
    Model("lindistflow, linear losses", LINEAR),
    *(
        Model(f"ac_tangent, {passes} pass{'es' if passes > 1 else ''}", Settings(max_passes=passes), has_finish=False)
        for passes in (1, 2, 3)
    ),
    Model("ac_tangent, converged", Settings()),
)
"""From the crudest to the engine's default."""


@contextlib.contextmanager
def finish(is_wanted: bool) -> Iterator[None]:
    """Keep the Newton finish from getting anywhere unless it `is_wanted`."""
    steps = newton.MAX_STEPS, newton.MAX_QUADRATIC_STEPS
    if not is_wanted:
        newton.MAX_STEPS = newton.MAX_QUADRATIC_STEPS = 0
    try:
        yield
    finally:
        newton.MAX_STEPS, newton.MAX_QUADRATIC_STEPS = steps


def compared(case: MarketCase) -> list[dict[str, Any]]:
    """Every model of `MODELS` beside the exact optimum of `case`.

    Raises
    ------
    Skip
        Where IPOPT does not solve the case, or is not installed.
    """
    try:
        exact: Outcome = peer_module("AC-OPF").solve(case, Settings())
    except ModuleNotFoundError as error:
        raise Skip(reason_of(error)) from error
    if exact.cost is None:
        raise Skip(f"IPOPT: {exact.status}")
    return [row_of(case, model, exact) for model in MODELS]


def row_of(case: MarketCase, model: Model, exact: Outcome) -> dict[str, Any]:
    """What `model` makes of `case`, beside the `exact` optimum."""
    try:
        with finish(model.has_finish):
            found = dlmp.clear(case, model.settings)
    except dlmp.InfeasibleError:
        return {"model": model.name, "status": "infeasible"}
    except dlmp.InputError as error:
        return {"model": model.name, "status": f"refused: {error.problems[0].message}"}
    network = case.network
    flow = independent_power_flow(network, found.awards.injection_kva(), case.law_pu * BASE_KVA)
    voltage_pu, where = flow.worst_voltage({})
    loading_percent, branch = flow.worst_loading({})
    unbought_kw = flow.import_kva.real - found.import_kw
    value = (case.substation.price_usd_per_mwh * unbought_kw).sum() * case.horizon.interval_hours / KW_PER_MW
    is_unique = np.ones(case.horizon.intervals, bool)
    if model == MODELS[-1]:
        is_unique[[one.interval for one in found.certificate.price_ranges]] = False
    error, relative = price_errors(network.is_priced, found.prices.lmp_usd_per_mwh, exact.price_usd_per_mwh)
    return {
        "model": model.name,
        "status": found.status,
        "passes": len(found.passes),
        "cost_error": abs(found.objective - exact.cost) / abs(exact.cost),
        "ac_cost_error": abs(found.objective + value - exact.cost) / abs(exact.cost),
        "price_error_max": float(error.max()),
        "price_error_mean": float(error.mean()),
        "price_error_relative": float(relative.max()),
        "price_error_relative_unique": float(relative[is_unique].max(initial=0.0)),
        "intervals_not_unique": int((~is_unique).sum()),
        "voltage_violation_pu": voltage_pu,
        "worst_voltage": where,
        "loading_percent": loading_percent,
        "worst_loading": branch,
        "binding_limits": len(found.binding_limits()),
    }


def price_errors(priced: np.ndarray, found: FloatArray, exact: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(t, k) Errors of the published prices [currency/MWh], and these relative to the exact ones."""
    error = np.abs(found - exact)[:, priced]
    return error, error / np.maximum(np.abs(exact[:, priced]), LEAST_USD_PER_MWH)


def main() -> None:
    """Print the comparison of one case, or why there is none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", choices=[spec.name for spec in ACCURACY])
    name = parser.parse_args().spec
    spec = next(spec for spec in ACCURACY if spec.name == name)
    try:
        case, _ = case_of(spec)
        print(json.dumps({"rows": compared(case), "intervals": spec.intervals, "nodes": case.network.node_count}))
    except Skip as reason:
        print(reason)
        sys.exit(SKIPPED)


if __name__ == "__main__":
    main()
