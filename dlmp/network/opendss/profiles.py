"""OpenDSS load shapes as profiles of a network's elements.

A load or generator follows its yearly shape, or without one its daily shape; a PV system's irradiance does.
A shape of actual values is divided by the power of each element that follows it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dlmp.errors import Problems
from dlmp.network.opendss.circuit import Circuit
from dlmp.network.profiles import ElementProfiles, Shape


class Follower(Protocol):
    """An element that may follow a shape."""

    @property
    def name(self) -> str:
        """Name of the element."""

    @property
    def shape(self) -> str:
        """Name of its shape, "" for none."""

    @property
    def rated_kva(self) -> complex:
        """Power that actual values are relative to."""


@dataclass(frozen=True, eq=False)
class LoadShapes:
    """The shapes that elements follow, and the index of each follower's."""

    shapes: tuple[Shape, ...]
    of_element: dict[str, int]

    def profiles(self, names: Sequence[str]) -> ElementProfiles:
        """Profiles of the elements with these names."""
        index = [self.of_element.get(name, -1) for name in names]
        return ElementProfiles(self.shapes, np.array(index, dtype=np.int64))


def read_load_shapes(circuit: Circuit, followers: Iterable[Follower], problems: Problems) -> LoadShapes:
    """Read the shapes of all `followers`; one that cannot be a profile is added to `problems`."""
    shapes: list[Shape] = []
    place: dict[tuple[str, complex], int] = {}
    of_element: dict[str, int] = {}
    refused = set()
    for follower in followers:
        if not follower.shape or follower.name in of_element:
            continue
        circuit.dss.LoadShape.Name(follower.shape)
        if not circuit.dss.LoadShape.Npts():
            continue
        if not circuit.dss.LoadShape.HrInterval():
            refused.add(follower.shape)
            continue
        base = follower.rated_kva if circuit.dss.LoadShape.UseActual() else 1 + 1j
        key = (follower.shape, base)
        if key not in place:
            place[key] = len(shapes)
            shapes.append(_shape(circuit, base))
        of_element[follower.name] = place[key]
    for name in sorted(refused):
        problems.add(f"loadshape.{name}", "interval", 0.0, "must be fixed; steps of different length are not supported")
    return LoadShapes(tuple(shapes), of_element)


def _shape(circuit: Circuit, base: complex) -> Shape:
    """The active shape as factors; `base` is the power that its values are divided by [kW, kvar].

    OpenDSS gives a single zero for reactive values that are not there.
    """
    shape = circuit.dss.LoadShape
    of_p, of_q = np.array(shape.PMult(), dtype=float), np.array(shape.QMult(), dtype=float)
    per_p = of_p / (base.real or 1.0)
    has_own_q = len(of_q) == len(of_p) and (len(of_q) > 1 or bool(np.any(of_q)))
    return Shape(float(shape.HrInterval()), per_p, of_q / (base.imag or 1.0) if has_own_q else per_p)
