"""Network models that a market can be cleared against."""

from collections.abc import Callable

from dlmp.errors import InputError, Problem
from dlmp.formulation.ac_tangent import AcTangent
from dlmp.formulation.interface import Formulation
from dlmp.formulation.lindistflow import LinDistFlow
from dlmp.market import MarketCase
from dlmp.network.model import IntArray
from dlmp.settings import Settings

FORMULATIONS: dict[str, Callable[[MarketCase, Settings, IntArray], Formulation]] = {
    "ac_tangent": lambda case, settings, interval: AcTangent(
        case.network, case.law_pu[interval], counts_reactive_import=case.substation.counts_reactive
    ),
    "lindistflow": LinDistFlow.of_case,
}
"""Formulations by name; a new one needs its own file and a line here."""


def new_formulation(case: MarketCase, settings: Settings, interval: IntArray) -> Formulation:
    """Make the formulation that `settings` name for states that each belong to an `interval`.

    Raises
    ------
    InputError
        For an unknown formulation, or one that does not fit the network.
    """
    if settings.formulation not in FORMULATIONS:
        known = ", ".join(FORMULATIONS)
        raise InputError([Problem("settings", "formulation", settings.formulation, f"must be one of {known}")])
    return FORMULATIONS[settings.formulation](case, settings, interval)
