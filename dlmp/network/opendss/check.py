"""OpenDSS as the check of a clearing, and its regulators settled at what was cleared."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from dlmp.errors import InputError, Problem
from dlmp.network.checked import CheckedFlow
from dlmp.network.model import ComplexArray, UnbalancedNetwork
from dlmp.network.opendss.build import network_of
from dlmp.network.opendss.circuit import ELEMENT, open_circuit
from dlmp.network.opendss.replica import open_replica

PROGRAM = "OpenDSS"


def opendss_flow(network: UnbalancedNetwork, injection_kva: ComplexArray, law_kva: ComplexArray) -> CheckedFlow:
    """Solve every interval in OpenDSS.

    Parameters
    ----------
    network
        A network that was read from an OpenDSS circuit.
    injection_kva
        (t, p) Complex injection at every port [kVA].
    law_kva
        (t, w) Nominal consumption of every load that follows its voltage [kVA].

    Raises
    ------
    InputError
        When the circuit is no longer that of the network, and for a load that OpenDSS has no model of.
    """
    with open_replica(network, (injection_kva != 0).any(axis=0), (law_kva != 0).any(axis=0)) as circuit:
        states = [circuit.state(*power) for power in zip(injection_kva, law_kva, strict=True)]
    return CheckedFlow(
        PROGRAM,
        network,
        np.array([state.v_pu for state in states]),
        np.array([state.fed_kva for state in states]) - injection_kva[:, network.source].sum(axis=1),
        np.array([state.current_from_pu for state in states]),
        np.array([state.current_to_pu for state in states]),
        all(state.converged for state in states),
    )


def settle_taps(
    network: UnbalancedNetwork, injection_kva: ComplexArray, law_kva: ComplexArray
) -> list[tuple[dict[str, float], bool]]:
    """Let the controls of regulators and capacitors act from where they stand, in each interval by itself.

    Parameters
    ----------
    network
        A network that was read from an OpenDSS circuit.
    injection_kva, law_kva
        (t, p) and (t, w); see `opendss_flow`.

    Returns
    -------
    Per interval where they come to, as `UnbalancedNetwork.taps`, and whether they come to rest there.
    """
    with open_replica(network, (injection_kva != 0).any(axis=0), (law_kva != 0).any(axis=0)) as circuit:
        return [circuit.settle(*power) for power in zip(injection_kva, law_kva, strict=True)]


def with_taps(network: UnbalancedNetwork, taps: Mapping[str, float]) -> UnbalancedNetwork:
    """Read the circuit of `network` again with other taps; its limits, loads and source voltages stay.

    Raises
    ------
    InputError
        When the circuit is no longer that of the network.
    """
    path = Path(network.origin)
    with open_circuit(path, taps, needs_solution=False) as circuit:
        again = network_of(circuit, path)
    for name in ("bus", "phase", "branch", "from_node", "to_node"):
        if not np.array_equal(getattr(network, name), getattr(again, name)):
            message = "is no longer the circuit that the network was read from"
            raise InputError([Problem(ELEMENT, "file", network.origin, message)])
    return replace(
        network,
        from_rows=again.from_rows,
        to_rows=again.to_rows,
        shunt_rows=again.shunt_rows,
        tap_element=again.tap_element,
        tap_pu=again.tap_pu,
    )
