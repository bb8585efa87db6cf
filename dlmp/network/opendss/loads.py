"""OpenDSS loads to ports and voltage laws.

A load of p phases stands with an equal part on each: phase to neutral, or in delta from each conductor to the
next.  OpenDSS's load models become sums of power laws (`dlmp.network.loads`): 1 constant power, 2 constant
impedance, 3 motor, 4 CVR exponents, 5 constant current, 6 and 7 fixed reactive power or reactance, 8 ZIP.
The circuit's load multiplier and growth are part of a load's power.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dlmp.errors import Problems
from dlmp.network.opendss.circuit import Circuit

FIXED, EXEMPT = 1, 2
"""Load statuses that the circuit's load multiplier does not reach; the first one follows no shape either."""
FIXED_REACTIVE = (6, 7)
"""Load models whose reactive power is that of a fixed reactance outside their band."""


@dataclass(frozen=True)
class LoadPart:
    """What a load draws between two nodes (OpenDSS's numbers, 0 for ground) by one law.

    `exponent` holds in the band and `outer` at its edges (`dlmp.network.loads`).  `p_kw` and `q_kvar` are at
    `base_volt`; the law holds between `u_min` and `u_max` times that.  `shape` names the load shape that the whole
    load of `rated_kva` follows, "" for none.
    """

    name: str
    first: int
    second: int
    exponent: float
    outer: float
    p_kw: float
    q_kvar: float
    base_volt: float
    u_min: float
    u_max: float
    u_low: float
    shape: str
    rated_kva: complex


def read_loads(circuit: Circuit, problems: Problems, notes: list[str]) -> list[LoadPart]:
    """Read every enabled load of `circuit`; what cannot be modelled is added to `problems` and `notes`."""
    dss = circuit.dss
    parts: list[LoadPart] = []
    multiplier, growth = float(dss.Solution.LoadMult()), _growth(dss)
    for _ in dss.Loads:
        if dss.CktElement.Enabled() and not _is_off(dss, problems):
            parts += _parts(dss, circuit, multiplier, growth, problems, notes)
    return parts


def _is_off(dss: Any, problems: Problems) -> bool:
    """Whether all phases of the active element are open; only some of them is one of `problems`."""
    is_open = [bool(dss.CktElement.IsOpen(1, phase + 1)) for phase in range(dss.CktElement.NumPhases())]
    if any(is_open) and not all(is_open):
        problems.add(str(dss.CktElement.Name()).lower(), "Open", "some phases", "open all of its phases, or none")
    return all(is_open)


def _growth(dss: Any) -> float:
    """Growth of all loads until the year that the circuit is set to."""
    years = int(dss.Solution.Year()) - 1
    dss.Text.Command("get %growth")
    return float((1 + float(dss.Text.Result()) / 100) ** max(0, years))


def _parts(
    dss: Any, circuit: Circuit, multiplier: float, growth: float, problems: Problems, notes: list[str]
) -> list[LoadPart]:
    loads, name = dss.Loads, f"load.{dss.Loads.Name().lower()}"
    phases, model, is_delta = int(loads.Phases()), int(loads.Model()), bool(loads.IsDelta())
    nodes = [int(node) for node in dss.CktElement.NodeRef()]
    pairs = list(phase_pairs(nodes, phases, is_delta=is_delta))
    if any(first == second for first, second in pairs):
        problems.add(name, "Bus1", str(dss.CktElement.BusNames()[0]), "stands between a node and itself")
        return []
    if not is_delta and len(nodes) > phases and nodes[-1] and float(loads.Rneut()) >= 0:
        problems.add(name, "Rneut", float(loads.Rneut()), "must be -1; put a reactor between the neutral and ground")
    if dss.Solution.Year() > 0 and loads.Growth():
        problems.add(name, "Growth", str(loads.Growth()), "is not supported; Set Year=0 leaves growth out")
    base_volt = float(loads.kV()) * 1000 / (3**0.5 if phases in (2, 3) and not is_delta else 1.0)
    status = int(loads.Status())
    factor = growth if status in (FIXED, EXEMPT) else growth * multiplier
    p_kw, q_kvar = float(loads.kW()) * factor, float(loads.kvar()) * factor
    terms = _terms(dss, name, model, p_kw / phases, q_kvar / phases, notes)
    return [
        LoadPart(
            name,
            first,
            second,
            exponent,
            outer,
            p,
            q,
            base_volt,
            float(loads.Vminpu()),
            float(loads.Vmaxpu()),
            float(circuit.property("VLowpu")),
            "" if status == FIXED else shape_name(circuit),
            complex(p_kw, q_kvar),
        )
        for first, second in pairs
        for exponent, outer, p, q in terms
        if p or q
    ]


def shape_name(circuit: Circuit) -> str:
    """Shape that the active element follows: its yearly, else its daily one, "" for none."""
    names = (circuit.property(kind).strip().lower() for kind in ("Yearly", "Daily"))
    return next((name for name in names if name), "")


def phase_pairs(nodes: list[int], phases: int, *, is_delta: bool) -> Iterator[tuple[int, int]]:
    """Nodes between which each phase of a load or generator stands."""
    for phase in range(phases):
        if is_delta:
            yield nodes[phase], nodes[phase + 1 if phase + 1 < len(nodes) else 0]
        else:
            yield nodes[phase], nodes[-1] if len(nodes) > phases else 0


def _terms(
    dss: Any, name: str, model: int, p_kw: float, q_kvar: float, notes: list[str]
) -> list[tuple[float, float, float, float]]:
    """Exponent in and at the edges of the band, real and reactive power of each law of a load of `model`."""
    loads = dss.Loads
    if model in (1, 2, 5):
        exponent = {1: 0.0, 2: 2.0, 5: 1.0}[model]
        return [(exponent, exponent, p_kw, q_kvar)]
    if model == 8:
        zipv = [float(value) for value in loads.ZipV()]
        if zipv[6] > 0:
            notes.append(f"{name}: its cut-off below {zipv[6]:g} of nominal voltage is left out")
        real, reactive = zipv[:3], zipv[3:6]
        return [
            (exponent, exponent, p_kw * share_p, q_kvar * share_q)
            for exponent, share_p, share_q in zip((2.0, 1.0, 0.0), real, reactive, strict=True)
        ]
    exponents = {3: (0.0, 2.0), 4: (float(loads.CVRwatts()), float(loads.CVRvars())), 6: (0.0, 0.0), 7: (0.0, 2.0)}
    of_p, of_q = exponents[model]
    if model == 4 and (loads.CVRCurve() or "").strip():
        notes.append(f"{name}: its CVR curve is left out; the exponents hold in every interval")
    if model in FIXED_REACTIVE:
        notes.append(f"{name}: below its voltage band its real power falls as that of models 1 to 5")
        return [(of_p, 0.0, p_kw, 0.0), (of_q, 2.0, 0.0, q_kvar)]
    if of_p == of_q:
        return [(of_p, 0.0, p_kw, q_kvar)]
    return [(of_p, 0.0, p_kw, 0.0), (of_q, 0.0, 0.0, q_kvar)]
