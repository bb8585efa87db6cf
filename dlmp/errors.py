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
    """A limit that no dispatch keeps, and by how much the best one breaks it.

    `limit` and `attained` are in `unit`; `interval` counts from 0.
    """

    element: str
    interval: int
    limit: float
    attained: float
    unit: str

    def __str__(self) -> str:
        return (
            f"{self.element}, interval {self.interval}: limit {self.limit:.6g} {self.unit}, "
            f"the least violation leaves {self.attained:.6g} {self.unit}"
        )


class InfeasibleError(DlmpError):
    """No dispatch of the offered resources keeps all limits; `conflicts` names those in the way."""

    def __init__(self, conflicts: Iterable[LimitConflict]):
        self.conflicts = tuple(conflicts)
        lines = [f"  - {conflict}" for conflict in self.conflicts]
        super().__init__("\n".join(["no dispatch of the offered resources keeps these limits:", *lines]))


class PowerFlowError(DlmpError):
    """The AC power flow did not converge; the message names the intervals."""


class SolverError(DlmpError):
    """HiGHS stopped without an optimum and without a proof of infeasibility."""


@dataclass
class Problems:
    """Collects problems, so that a user meets all of them at once."""

    found: list[Problem] = field(default_factory=list)

    def add(self, element: str, field: str, value: object, message: str) -> None:
        """Note one problem; the arguments are those of `Problem`."""
        self.found.append(Problem(element, field, value, message))

    def raise_if_any(self) -> None:
        """Raise `InputError` when anything was noted."""
        if self.found:
            raise InputError(self.found)
