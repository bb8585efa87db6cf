"""OpenDSS asked directly, and a network's own power flow to compare with it."""

from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import opendssdirect

from dlmp.network.model import ComplexArray, UnbalancedNetwork
from dlmp.powerflow import PowerFlow
from dlmp.units import BASE_KVA

SOLVES = 8
"""Solutions in a row: nodes that float keep OpenDSS from telling when it has converged."""


@dataclass(frozen=True)
class Reference:
    """OpenDSS's solution: voltages [pu] by node, taps by winding, power into the circuit and its elements [kVA]."""

    v_pu: dict[str, complex]
    taps: dict[str, float]
    fed_kva: complex
    drawn_kva: dict[str, complex]


@contextmanager
def compiled(path: Path) -> Iterator[Any]:
    """A context of OpenDSS that has read `path`."""
    with chdir(Path.cwd()):  # a new context goes elsewhere
        dss = opendssdirect.NewContext()
    dss.Basic.AllowForms(False)
    dss.Basic.AllowChangeDir(False)
    dss.Text.Command(f'redirect "{path}"')
    yield dss
    dss.Text.Command("clear")


def reference(path: Path, *then: str, before: tuple[str, ...] = ()) -> Reference:
    """Solve `path` after the commands `before`, and with its controls frozen after the commands `then`."""
    with compiled(path) as dss:
        settle = (*before, "set mode=snapshot maxiterations=500 maxcontroliter=200", "solve")
        for command in (*settle, "set controlmode=off tolerance=1e-11", *then, *SOLVES * ["solve"]):
            dss.Text.Command(command)
        return Reference(_voltages(dss), _taps(dss), -complex(*dss.Circuit.TotalPower()), drawn_kva(dss))


def drawn_kva(dss: Any) -> dict[str, complex]:
    """Power into every element that is enabled [kVA]."""
    powers = {}
    for name in dss.Circuit.AllElementNames():
        dss.Circuit.SetActiveElement(name)
        if dss.CktElement.Enabled():
            parts = np.array(dss.CktElement.Powers())
            powers[name.lower()] = complex(parts[0::2].sum(), parts[1::2].sum())
    return powers


def _voltages(dss: Any) -> dict[str, complex]:
    parts = np.array(dss.Circuit.YNodeVArray())
    base = {}
    for name in dss.Circuit.AllBusNames():
        dss.Circuit.SetActiveBus(name)
        base[name] = dss.Bus.kVBase() * 1000
    names = [node.lower() for node in dss.Circuit.YNodeOrder()]
    volt = parts[0::2] + 1j * parts[1::2]
    return {node: complex(v) / base[node.rpartition(".")[0]] for node, v in zip(names, volt, strict=True)}


def _taps(dss: Any) -> dict[str, float]:
    taps = {}
    for _ in dss.RegControls:
        name, winding = dss.RegControls.Transformer().lower(), dss.RegControls.TapWinding()
        if name not in dss.Transformers.AllNames():  # an autotransformer
            continue
        dss.Transformers.Name(name)
        dss.Transformers.Wdg(winding)
        taps[f"transformer.{name} wdg {winding}"] = dss.Transformers.Tap()
    return taps


def voltages(network: UnbalancedNetwork, scale: float = 1.0) -> ComplexArray:
    """(n,) Voltages [pu] of `network` with its own elements, the loads times `scale`."""
    factor = np.where(network.element_kind == "load", scale, 1.0)
    power = np.zeros(len(network.load_port), dtype=complex)
    np.add.at(power, network.element_load, factor * (network.element_p_kw + 1j * network.element_q_kvar) / BASE_KVA)
    ports = network.port_count
    flow = PowerFlow(network, power[None, ports:])
    state_pu, converged = flow.solve(-power[None, :ports])
    assert converged.all()
    return flow.voltages(state_pu[0])


def fed_kva(network: UnbalancedNetwork, v_pu: ComplexArray) -> complex:
    """Power out of the sources, behind their impedances [kVA]."""
    into = network.to_admittance @ v_pu
    power = -v_pu[network.to_node] * np.conj(into)
    return complex(power[network.branch_kind == "source"].sum() * BASE_KVA)


def gaps(network: UnbalancedNetwork, expected: Reference, scale: float = 1.0) -> ComplexArray:
    """Voltage differences [pu]: to ground where that is determined, and between all pairs of phases."""
    inner = np.flatnonzero(~network.is_source)
    gap = np.zeros(network.node_count, dtype=complex)
    nodes = [f"{network.bus[node]}.{network.phase[node]}" for node in inner]
    gap[inner] = voltages(network, scale)[inner] - np.array([expected.v_pu[node] for node in nodes])
    between = network.incidence[network.node_count :] @ gap
    return np.r_[gap[inner[~network.is_floating[inner]]], between]
