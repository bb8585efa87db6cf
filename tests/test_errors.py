"""Messages name the element, the field, the value and what would be right."""

import pytest

from dlmp.errors import (
    DlmpError,
    InfeasibleError,
    InputError,
    LimitConflict,
    PowerFlowError,
    Problem,
    Problems,
    SolverError,
)

SHORT_LINE = Problem("line L3", "r_ohm", -1.0, "resistance must not be negative")


@pytest.mark.parametrize("kind", [InputError, InfeasibleError, PowerFlowError, SolverError])
def test_every_error_is_a_dlmp_error(kind: type[Exception]):
    assert issubclass(kind, DlmpError)


def test_one_problem_is_told_in_one_line():
    assert str(InputError([SHORT_LINE])) == (
        "1 problem in the input:\n  - line L3, r_ohm = -1.0: resistance must not be negative"
    )


def test_all_problems_are_told():
    error = InputError(iter([SHORT_LINE, Problem("bus 7", "base_kv", 0.0, "must be above zero")]))
    assert len(error.problems) == 2
    assert str(error).splitlines() == [
        "2 problems in the input:",
        "  - line L3, r_ohm = -1.0: resistance must not be negative",
        "  - bus 7, base_kv = 0.0: must be above zero",
    ]


def test_a_conflict_tells_limit_and_least_violation_in_its_unit():
    error = InfeasibleError(iter([LimitConflict("line 3", 2, 100.0, 123.4567891, "A")]))
    assert error.conflicts[0].attained == 123.4567891
    assert str(error).splitlines() == [
        "no dispatch of the offered resources keeps these limits:",
        "  - line 3, interval 2: limit 100 A, within reach 123.457 A",
    ]


def test_limits_that_conflict_with_each_other_are_told_set_by_set():
    members = [("bus 1", 0), ("bus 2", 1), ("bus 3", 1), ("line 4", 2), ("line 5", 2)]
    error = InfeasibleError(LimitConflict(name, 0, 1.0, 1.5, "pu", group) for name, group in members)
    assert [[conflict.element for conflict in members] for members in error.sets] == [
        ["bus 1"],
        ["bus 2", "bus 3"],
        ["line 4", "line 5"],
    ]
    assert str(error).splitlines() == [
        "no dispatch of the offered resources keeps these limits:",
        "  - bus 1, interval 0: limit 1 pu, within reach 1.5 pu",
        "nor these limits together, though all but any one of them:",
        "  - bus 2, interval 0: limit 1 pu, within reach 1.5 pu",
        "  - bus 3, interval 0: limit 1 pu, within reach 1.5 pu",
        "nor these limits together, though all but any one of them:",
        "  - line 4, interval 0: limit 1 pu, within reach 1.5 pu",
        "  - line 5, interval 0: limit 1 pu, within reach 1.5 pu",
    ]


def test_nothing_is_raised_where_no_problem_was_found():
    problems = Problems()
    problems.raise_if_any()
    problems.add("bus 7", "base_kv", 0.0, "must be above zero")
    with pytest.raises(InputError, match=r"bus 7, base_kv = 0\.0"):
        problems.raise_if_any()
