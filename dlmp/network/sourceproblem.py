"""What is wrong with the ``source`` of a network."""

from dlmp.errors import InputError, Problem

ELEMENT = "network source"
"""Element of the problems that concern the source itself."""


def source_problem(field: str, value: object, message: str) -> InputError:
    """Return an error of one problem with the source."""
    return InputError([Problem(ELEMENT, field, value, message)])
