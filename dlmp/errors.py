"""Everything that dlmp raises on purpose.

DlmpError
├── InputError          what was handed in is wrong: every problem at once
├── InfeasibleError     no dispatch keeps the limits: which ones conflict
├── PowerFlowError      the AC power flow has no solution at the given injections
└── SolverError         HiGHS ended in a state that is neither optimal nor infeasible
"""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an input.

    Parameters
    ----------
    element
        What is wrong, as the user named it: ``"line L3"``, ``"bids.csv row 7"``.
    field
        Which of its fields.
    value
        What was found there.
    message
        What would be right.
    """

    element: str
    field: str
    value: object
    message: str

    def __str__(self) -> str:
        return f"{self.element}, {self.field} = {self.value!r}: {self.message}"


class DlmpError(Exception):
    """Base of every error that dlmp raises on purpose."""


class InputError(DlmpError):
    """The input is wrong; `problems` holds all that was found, not just the first."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = tuple(problems)
        count = len(self.problems)
        title = "1 problem in the input:" if count == 1 else f"{count} problems in the input:"
        super().__init__("\n".join([title, *(f"  - {problem}" for problem in self.problems)]))


@dataclass(frozen=True)
class LimitConflict:
    """A limit of an irreducible set: no dispatch keeps all of the set, though all but any one of it can be kept.

    Parameters
    ----------
    element, interval
        What is limited, and when, from 0.
    limit, attained
        The limit, and about what it would have to be for the others of its set to be kept, in `unit`.
    group
        Number of the set, from 0; a set of one is a limit that no dispatch keeps, whatever else is broken.
    """

    element: str
    interval: int
    limit: float
    attained: float
    unit: str
    group: int = 0

    def __str__(self) -> str:
        return (
            f"{self.element}, interval {self.interval}: limit {self.limit:.6g} {self.unit}, "
            f"within reach {self.attained:.6g} {self.unit}"
        )


class ShortageConflict(LimitConflict):
    """A required service of an irreducible set: `limit` must be held ready, at most `attained` can be."""

    def __str__(self) -> str:
        return (
            f"{self.element}, interval {self.interval}: {self.limit:.6g} {self.unit} required, at most "
            f"{self.attained:.6g} {self.unit} can be held ready; lower it, or give it a shortage_usd_per_mw_h"
        )


class InfeasibleError(DlmpError):
    """No dispatch of the offered resources keeps all limits; `conflicts` names irreducible sets of them.

    Required services without a price of shortage are limits, too.
    """

    def __init__(self, conflicts: Iterable[LimitConflict]):
        self.conflicts = tuple(conflicts)
        alone = tuple(members[0] for members in self.sets if len(members) == 1)
        together = [members for members in self.sets if len(members) > 1]
        parts = [("these limits:", alone)] if alone else []
        parts += [("these limits together, though all but any one of them:", members) for members in together]
        lines: list[str] = []
        for head, members in parts:
            begin = "nor" if lines else "no dispatch of the offered resources keeps"
            lines += [f"{begin} {head}", *(f"  - {conflict}" for conflict in members)]
        super().__init__("\n".join(lines))

    @property
    def sets(self) -> list[tuple[LimitConflict, ...]]:
        """The irreducible sets."""
        groups = dict.fromkeys(conflict.group for conflict in self.conflicts)
        return [tuple(conflict for conflict in self.conflicts if conflict.group == group) for group in groups]


class PowerFlowError(DlmpError):
    """The AC power flow did not converge; the message names the intervals."""


class SolverError(DlmpError):
    """HiGHS stopped without an optimum and without a proof of infeasibility."""


@dataclass
class Problems:
    """Collects problems, so that a user meets all of them at once."""

    found: list[Problem] = field(default_factory=list)

    def add(self, element: str, field: str, value: object, message: str) -> None:
        """Note one problem; the arguments are those of `Problem`, numbers of numpy becoming Python's."""
        plain = value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value
        self.found.append(Problem(element, field, plain, message))

    def raise_if_any(self) -> None:
        """Raise `InputError` when anything was noted."""
        if self.found:
            raise InputError(self.found)
