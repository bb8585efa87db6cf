"""OpenDSS as a reader of its own files: a circuit compiled, its controls settled and frozen.

The engine comes with ``OpenDSSDirect.py``.  Every circuit gets a context of its own, writes no files
beside the user's, opens no windows and does not change the working directory.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

import numpy as np
import opendssdirect
from dss import DSSException

from dlmp.errors import InputError, Problem, Problems
from dlmp.network.model import ComplexArray, IntArray, some_of

CONVERGENCE = 1e-10
"""Of OpenDSS's power flow, relative; nodes without a source may keep it from getting there."""
MAX_ITERATIONS, MAX_CONTROL_ITERATIONS = 200, 200
WORKING_DIRECTORY = Lock()
"""Held while the process is in a scratch folder: there is one working directory for all threads."""
CONTROLS_OFF = -1
"""Control mode of a circuit whose author has set its taps himself."""
ELEMENT = "OpenDSS circuit"
TAP_DIGITS = 12
"""OpenDSS adds up steps: 1.0375 may be 1.0374999999999999."""
DEGREES_PER_RADIAN = 57.29577951
"""With the digits that OpenDSS's sources have of it: behind a stiff source 1e-10 of its angle is watts."""

HOLDS_VOLTAGE = 3
"""Model of a generator of constant power and voltage."""
BRANCHES = ("line", "transformer", "reactor", "capacitor", "autotrans", "fault")
"""Classes given by their primitive admittance alone."""
INJECTIONS = ("generator", "pvsystem", "storage")
"""Classes that inject power; they are taken at what they give in OpenDSS's solution."""
REGULATING = ("regcontrol", "capcontrol")
"""Controls that move in steps, which `settled_taps` reads and `open_circuit` can freeze."""
IGNORED = (
    "energymeter", "monitor", "sensor", "recloser", "relay", "fuse", "swtcontrol", "regcontrol", "capcontrol",
    "spectrum", "growthshape",
)  # fmt: skip
"""Classes without an admittance; the controls have settled before the circuit is read."""
NOTED = {
    "invcontrol": "its inverters are taken at the power of OpenDSS's solution",
    "storagecontroller": "its storage is taken at the power of OpenDSS's solution",
    "expcontrol": "its inverters are taken at the power of OpenDSS's solution",
    "gendispatcher": "its generators are taken at the power of OpenDSS's solution",
    "espvlcontrol": "what it controls is taken at the power of OpenDSS's solution",
    "upfccontrol": "what it controls is taken at the power of OpenDSS's solution",
}
"""Controls that go on acting between intervals, which the network does not have."""


@dataclass(frozen=True, eq=False)
class Element:
    """An element of a circuit: its conductors' nodes (0: ground), one row per terminal, and its admittance [S]."""

    kind: str
    name: str
    terminals: IntArray
    phases: int
    normal_amps: float
    y_siemens: ComplexArray

    @property
    def label(self) -> str:
        """``line.l115``."""
        return f"{self.kind}.{self.name}"


class Circuit:
    """A compiled circuit.

    Attributes
    ----------
    dss
        The context of OpenDSSDirect.
    bus, phase
        (n,) Bus and phase of every node; node i is number i + 1 in OpenDSS.
    """

    def __init__(self, dss: Any):
        self.dss = dss
        names = [str(name).lower().rsplit(".", 1) for name in dss.Circuit.YNodeOrder()]
        self.bus = np.array([bus for bus, _ in names], dtype=str)
        self.phase = np.array([phase for _, phase in names], dtype=str)

    def v_volt(self) -> ComplexArray:
        """(n,) Voltages of the present solution [V]."""
        parts = np.asarray(self.dss.Circuit.YNodeVArray(), dtype=float)
        return np.asarray(parts[0::2] + 1j * parts[1::2])

    def element_names(self) -> list[str]:
        """Every element that is enabled, such as ``line.l115``."""
        names = []
        for name in self.dss.Circuit.AllElementNames():
            self.dss.Circuit.SetActiveElement(name)
            if self.dss.CktElement.Enabled():
                names.append(str(name).lower())
        return names

    def element(self, name: str) -> Element:
        """Read an element."""
        dss = self.dss
        dss.Circuit.SetActiveElement(name)
        kind, _, own = name.partition(".")
        nodes = np.array(dss.CktElement.NodeRef(), dtype=np.int64)
        parts = np.asarray(dss.CktElement.YPrim(), dtype=float)
        values = parts[0::2] + 1j * parts[1::2]
        size = round(len(values) ** 0.5)
        return Element(
            kind,
            own,
            nodes.reshape(dss.CktElement.NumTerminals(), dss.CktElement.NumConductors()),
            int(dss.CktElement.NumPhases()),
            float(dss.CktElement.NormalAmps()),
            values.reshape(size, size).T,
        )

    def property(self, name: str) -> str:
        """Text of a property of the active element."""
        return str(self.dss.Properties.Value(name))


@contextmanager
def open_circuit(
    path: Path,
    taps: Mapping[str, float] | None = None,
    source_v_pu: float | None = None,
    *,
    needs_solution: bool = True,
) -> Iterator[Circuit]:
    """Compile `path`, settle its controls or set the `taps`, and freeze it.

    Parameters
    ----------
    path
        The master file.
    taps
        What to freeze, as `settled_taps` gives it; the rest is as the controls settle, unless the file has turned
        them off (``Set ControlMode=Off``).
    source_v_pu
        Voltage of every source [pu]; default: the circuit's own.
    needs_solution
        False where it does not matter whether the circuit's own loads have a solution.

    Raises
    ------
    InputError
        When OpenDSS cannot compile or solve it, and for taps of what is not regulated.
    """
    with TemporaryDirectory(prefix="dlmp-opendss-") as scratch:
        try:
            context = _compiled(path.resolve(), scratch)
            if not context.Basic.NumCircuits():
                raise _problem(path, "compile", "defines no circuit (New Circuit.NAME ...)")
            for name in context.Vsources.AllNames() if source_v_pu is not None else ():
                context.Text.Command(f"edit vsource.{name} pu={source_v_pu!r}")
            _settle(context, path, taps or {}, needs_solution=needs_solution)
            yield Circuit(context)
            context.Text.Command("clear")
        except DSSException as error:
            raise _problem(path, "compile", f"OpenDSS: {' '.join(str(error).split())}") from error


def _compiled(file: Path, scratch: str) -> Any:
    """A context of its own that has read `file`; what the file writes goes to the folder `scratch`."""
    with WORKING_DIRECTORY, chdir(scratch):
        context = opendssdirect.NewContext()
        os.chdir(scratch)  # a new context goes to where the process was when it loaded the engine
        context.Basic.AllowForms(False)
        context.Basic.AllowEditor(False)
        context.Basic.AllowChangeDir(False)
        context.Basic.DataPath(scratch)
        context.Text.Command(f'redirect "{file}"')
    return context


def _settle(dss: Any, path: Path, taps: Mapping[str, float], *, needs_solution: bool) -> None:
    """Solve a snapshot with the user's controls, but for those of `taps`, and again without."""
    dss.Text.Command("set mode=snapshot")
    dss.Solution.MaxIterations(MAX_ITERATIONS)
    dss.Solution.MaxControlIterations(MAX_CONTROL_ITERATIONS)
    controls = _controls(dss)
    unknown = [device for device in taps if device not in {device for _, device in controls}]
    if unknown:
        known = some_of([device for _, device in controls]) or "none"
        raise _problem(path, "taps", f"what is frozen must be regulated: {some_of(unknown)}; known: {known}")
    frozen = [control for control, device in controls if device in taps]
    for device, value in taps.items():
        set_tap(dss, device, value)
    for control in frozen:
        dss.Text.Command(f"edit {control} enabled=no")
    if dss.Solution.ControlMode() != CONTROLS_OFF:
        dss.Text.Command("set controlmode=static")
    dss.Solution.Solve()
    for control in frozen:
        dss.Text.Command(f"edit {control} enabled=yes")
    dss.Text.Command("set controlmode=off")
    dss.Solution.Solve()
    if needs_solution and not dss.Solution.Converged():
        raise _problem(path, "solve", "OpenDSS's own power flow does not converge; check loads and voltage bases")
    _freeze_generators(dss)
    dss.Solution.Convergence(CONVERGENCE)
    dss.Solution.Solve()


def _freeze_generators(dss: Any) -> None:
    """Turn generators that hold a voltage into ones of the reactive power that they have come to."""
    held = []
    for _ in dss.Generators:
        if dss.CktElement.Enabled() and int(dss.Generators.Model()) == HOLDS_VOLTAGE:
            p_kw, q_kvar = np.asarray(dss.CktElement.TotalPowers(), dtype=float)[:2].tolist()
            held.append((str(dss.Generators.Name()), -p_kw, -q_kvar))
    for name, p_kw, q_kvar in held:
        dss.Text.Command(f"edit generator.{name} model=1 kw={p_kw!r} kvar={q_kvar!r}")
    if held:
        dss.Solution.Solve()


def _controls(dss: Any) -> list[tuple[str, str]]:
    """Each control that moves in steps, and the name of what it moves."""
    controls = []
    transformers = {str(name).lower() for name in dss.Transformers.AllNames()}
    for _ in dss.RegControls:
        name = str(dss.RegControls.Transformer()).lower()
        kind = "transformer" if name in transformers else "autotrans"
        winding = f"{kind}.{name} wdg {dss.RegControls.TapWinding()}"
        controls.append((f"regcontrol.{dss.RegControls.Name()}", winding))
    for _ in dss.CapControls:
        steps = f"capacitor.{dss.CapControls.Capacitor()} steps"
        controls.append((f"capcontrol.{dss.CapControls.Name()}", steps.lower()))
    return controls


def set_tap(dss: Any, device: str, value: float) -> None:
    """Put a winding on a tap [pu], or close steps of a capacitor; names are those of `settled_taps`."""
    name, _, winding = device.rpartition(" wdg ")
    if name:
        dss.Text.Command(f"edit {name} wdg={winding} tap={value!r}")
        return
    capacitor = device.removesuffix(" steps")
    dss.Capacitors.Name(capacitor.partition(".")[2])
    steps = ["1" if step < value else "0" for step in range(dss.Capacitors.NumSteps())]
    dss.Text.Command(f"edit {capacitor} states=[{' '.join(steps)}]")


def settled_taps(circuit: Circuit) -> dict[str, float]:
    """Tap [pu] of each winding that is regulated, ``transformer.reg1 wdg 2``, and closed ``capacitor.c1 steps``."""
    dss = circuit.dss
    taps = {}
    for _, device in _controls(dss):
        name, _, winding = device.rpartition(" wdg ")
        if name.startswith("autotrans."):
            dss.Text.Command(f"? {name}.taps")
            of_windings = str(dss.Text.Result()).strip("[], ").split(",")
            taps[device] = round(float(of_windings[int(winding) - 1]), TAP_DIGITS)
        elif name:
            dss.Transformers.Name(name.partition(".")[2])
            dss.Transformers.Wdg(int(winding))
            taps[device] = round(float(dss.Transformers.Tap()), TAP_DIGITS)
        else:
            dss.Capacitors.Name(device.removesuffix(" steps").partition(".")[2])
            taps[device] = float(sum(dss.Capacitors.States()))
    return taps


def check_classes(names: list[str]) -> tuple[str, ...]:
    """Notes on elements that are not modelled exactly.

    Raises
    ------
    InputError
        With every element that cannot be modelled at all.
    """
    problems, notes = Problems(), []
    known = {*BRANCHES, *INJECTIONS, *IGNORED, "load", "vsource"}
    for name in names:
        kind = name.partition(".")[0]
        if kind in NOTED:
            notes.append(f"{name}: {NOTED[kind]}")
        elif kind not in known:
            problems.add(name, "class", kind, "is not supported; disable it or replace it by loads and lines")
    problems.raise_if_any()
    return tuple(notes)


def _problem(path: Path, field: str, message: str) -> InputError:
    return InputError([Problem(ELEMENT, field, path.name, message)])
