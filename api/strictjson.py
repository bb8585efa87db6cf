"""Bodies to Python values, without what JSON parsers let pass: duplicate keys, NaN, infinity, 1e400,
half characters.

RFC 8259 leaves the meaning of duplicate names open; I-JSON (RFC 7493) forbids them, and so does this.
"""

import json
import math
from typing import Any, NoReturn

from api.errors import BadRequest, Fault

LONE = "Text has half of a surrogate pair, which is no character."
DEEPEST = 32
"""Most levels of arrays and objects."""
MOST_MEMBERS = 64
"""Most members of an object."""


def strict_loads(body: bytes) -> Any:
    """Parse one JSON document in UTF-8.

    Raises
    ------
    BadRequest
        When the body is no such document; what is wrong is named, and nothing of the body is repeated.
    """
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_members,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_short_integer,
        )
    except _NotAllowedError as error:
        raise BadRequest(error.code, str(error), faults=[Fault("", error.code, str(error))]) from None
    except UnicodeDecodeError:
        raise BadRequest("not_utf8", "The body must be JSON in UTF-8.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise BadRequest("not_json", f"The body must be one JSON document; it breaks off at {where}.") from None
    except RecursionError:
        raise _too_deep() from None
    if _depth_exceeds(value, DEEPEST):
        raise _too_deep()
    if b"\\u" in body and not _is_unicode(value):
        raise BadRequest("not_unicode", LONE, faults=[Fault("", "not_unicode", LONE)])
    return value


class _NotAllowedError(Exception):
    """Something that JSON parsers let pass."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


def _too_deep() -> BadRequest:
    return BadRequest("too_deep", f"The body must have at most {DEEPEST} levels of arrays and objects.")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MOST_MEMBERS:
        raise _NotAllowedError("too_many_members", f"An object has more than {MOST_MEMBERS} members.")
    members = dict(pairs)
    if len(members) < len(pairs):
        raise _NotAllowedError("duplicate_key", "An object has the same key twice.")
    return members


def _no_constant(text: str) -> NoReturn:
    raise _NotAllowedError("not_finite", "NaN and Infinity are no JSON numbers.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _NotAllowedError("not_finite", "A number is too large.")
    return number


def _short_integer(text: str) -> int:
    if len(text) > 18:
        raise _NotAllowedError("not_finite", "A whole number has more than 18 digits.")
    return int(text)


def _is_unicode(value: Any) -> bool:
    """Whether all text is made of characters: escapes can write halves of surrogate pairs."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _depth_exceeds(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
