"""From pydantic's findings to faults: a JSON pointer and a code that stays, and nothing of what was sent."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from api.errors import Fault

CODES = {
    "missing": "missing",
    "extra_forbidden": "unknown_field",
    "float_type": "not_a_number",
    "float_parsing": "not_a_number",
    "int_type": "not_a_whole_number",
    "int_parsing": "not_a_whole_number",
    "int_from_float": "not_a_whole_number",
    "bool_type": "not_a_boolean",
    "bool_parsing": "not_a_boolean",
    "string_type": "not_text",
    "finite_number": "not_finite",
    "list_type": "not_a_list",
    "model_type": "not_an_object",
    "model_attributes_type": "not_an_object",
    "dict_type": "not_an_object",
    "literal_error": "not_a_choice",
    "enum": "not_a_choice",
    "union_tag_invalid": "not_a_choice",
    "union_tag_not_found": "missing",
    "string_pattern_mismatch": "malformed",
    "string_too_short": "too_short",
    "string_too_long": "too_long",
    "too_short": "too_few",
    "too_long": "too_many",
    "greater_than": "too_small",
    "greater_than_equal": "too_small",
    "less_than": "too_large",
    "less_than_equal": "too_large",
}
"""Stable codes of pydantic's types of error; a code of our own stands for itself."""

OF_A_NAME = "[key]"
"""Ends the place of an error of the name of a member itself."""
DISCRIMINATOR = "product"
MOST_FAULTS = 100
"""So many faults of one value are named; then how many more there are."""


def faults_of(errors: Iterable[Mapping[str, Any]], tags: Sequence[str] = ()) -> list[Fault]:
    """Turn pydantic's errors into faults; a place that begins with one of `tags` begins with a member of a union."""
    found = list(errors)
    faults = [_fault(error, tags) for error in found[:MOST_FAULTS]]
    if len(found) > MOST_FAULTS:
        faults.append(Fault("", "too_many_faults", f"There are {len(found) - MOST_FAULTS} more."))
    return faults


def _fault(error: Mapping[str, Any], tags: Sequence[str]) -> Fault:
    kind, where = str(error["type"]), list(error["loc"])
    if where and where[0] in tags:
        del where[0]
    if kind.startswith("union_tag"):
        where.append(DISCRIMINATOR)
    context = error.get("ctx", {})
    detail = str(error["msg"])
    if kind in ("literal_error", "enum", "union_tag_invalid"):
        detail = f"must be one of {context.get('expected') or context.get('expected_tags')}"
    if kind == "extra_forbidden":
        detail = "is no field of this object"
    if where[-1:] == [OF_A_NAME]:
        where.pop()
    return Fault(_pointer(where), CODES.get(kind, kind), detail)


def _short(name: object) -> str:
    """Part of a pointer; a long one is cut, so that little of what was sent comes back."""
    text = str(name)
    return text if len(text) <= 64 else text[:64]


def _pointer(where: Sequence[object]) -> str:
    return "".join("/" + _short(part).replace("~", "~0").replace("/", "~1") for part in where)


def checked(adapter: TypeAdapter[Any], value: object, tags: Sequence[str] = ()) -> tuple[Any, list[Fault]]:
    """Validate a value; return it as a model, or None and what is wrong."""
    try:
        return adapter.validate_python(value), []
    except ValidationError as error:
        return None, faults_of(error.errors(include_url=False, include_input=False), tags)
