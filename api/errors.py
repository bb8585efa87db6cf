"""Everything that the service refuses, as problem details (RFC 9457).

Refusal
├── BadRequest            400  a header is missing, the body is no JSON
├── Unauthenticated       401  no key, or none that is known
├── Forbidden             403  the key's role or scopes do not reach
├── NotFound              404  there is no such thing, or it is another's
├── Conflict              409  the state of the thing does not allow it
├── PreconditionFailed    412  it has changed since it was read
├── TooLarge              413  the body is larger than the limit
├── UnsupportedMedia      415  the body is of another kind than JSON
├── Unprocessable         422  what was sent is wrong: every problem at once
├── TooManyRequests       429  the rate of the key or address is used up
└── Unavailable           503  not now
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a body.

    Parameters
    ----------
    pointer
        Where, as a JSON pointer (RFC 6901) into the body; ``""`` is the whole.
    code
        Which of the documented codes it is; does not change.
    detail
        What would be right.  Never holds what was sent.
    """

    pointer: str
    code: str
    detail: str

    def under(self, prefix: str) -> "Fault":
        """Return the same fault of a part of a larger body."""
        return Fault(prefix + self.pointer, self.code, self.detail)


class Refusal(Exception):  # noqa: N818
    """Base of all; `code` is stable, `detail` says what would be right."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(detail)
        self.code, self.detail = code, detail
        self.faults = tuple(faults)
        self.headers = dict(headers or {})

    def body(self, request_id: str) -> dict[str, object]:
        """Members of the problem details."""
        members: dict[str, object] = {
            "type": f"urn:dlmp:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        }
        if self.faults:
            members["errors"] = [asdict(fault) for fault in self.faults]
        return members


class BadRequest(Refusal):
    """The request cannot be read."""

    status, title = 400, "Bad request"


class Unauthenticated(Refusal):
    """Nobody is known to be asking."""

    status, title = 401, "Not authenticated"

    def __init__(self, code: str, detail: str):
        super().__init__(code, detail, headers={"WWW-Authenticate": "Bearer"})


class Forbidden(Refusal):
    """Who asks may not."""

    status, title = 403, "Not allowed"


class NotFound(Refusal):
    """There is no such thing, or none that the asker may know of."""

    status, title = 404, "Not found"

    def __init__(self, what: str):
        super().__init__("not_found", f"There is no such {what}, or it is not yours.")


class Conflict(Refusal):
    """What is asked for does not fit the state of things."""

    status, title = 409, "Conflict"


class PreconditionFailed(Refusal):
    """The thing has changed since it was read."""

    status, title = 412, "Precondition failed"


class TooLarge(Refusal):
    """The body is too large."""

    status, title = 413, "Content too large"


class UnsupportedMedia(Refusal):
    """The body does not say that it is JSON."""

    status, title = 415, "Unsupported media type"


class Unprocessable(Refusal):
    """The content is wrong."""

    status, title = 422, "Unprocessable content"

    def __init__(self, faults: Sequence[Fault], code: str = "invalid", detail: str = ""):
        count = len(faults)
        said = detail or ("1 problem in the body." if count == 1 else f"{count} problems in the body.")
        super().__init__(code, said, faults=faults)


class TooManyRequests(Refusal):
    """The rate of the key or address is used up."""

    status, title = 429, "Too many requests"

    def __init__(self, retry_after_s: int):
        super().__init__(
            "rate_limited",
            "Too many requests, or streams at once, for this key or address.",
            headers={"Retry-After": str(retry_after_s)},
        )


class Unavailable(Refusal):
    """Not now."""

    status, title = 503, "Service unavailable"

    def __init__(self, detail: str, retry_after_s: int = 1):
        super().__init__("unavailable", detail, headers={"Retry-After": str(retry_after_s)})
