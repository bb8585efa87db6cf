"""What the client raises.

ServiceError
├── NoAnswer              the service was not reached, or broke off: what was sent may have been carried out
├── Busy             429, 503, 409 in flight: not now, though it was tried again and again
├── ServerFailed     5xx  a fault of the service
└── Refused          4xx  the service says no; `code` and `faults` say why
    ├── NotAuthenticated  401
    ├── NotAllowed        403
    ├── NotFound          404  there is no such thing, or it is another's
    ├── StateConflict     409  the gate is closed, the market not cleared, a name taken
    ├── OutOfDate         412  the bid has changed since it was read
    └── WrongContent      422  every problem at once
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlmp.errors import DlmpError

IN_FLIGHT = "in_flight"
NOT_NOW = (429, 503)


@dataclass(frozen=True)
class Fault:
    """One thing wrong with what was sent.

    Parameters
    ----------
    pointer
        Where, as a JSON pointer into the body.
    code
        Which of the documented codes.
    detail
        What would be right.
    """

    pointer: str
    code: str
    detail: str

    def __str__(self) -> str:
        return f"{self.pointer or 'body'}: {self.detail} ({self.code})"


class ServiceError(DlmpError):
    """Base of everything that goes wrong between client and service."""


class NoAnswer(ServiceError):
    """No answer came; a write with an idempotency key stays in the outbox, to be sent again."""


class _Answered(ServiceError):
    """The service answered with problem details."""

    def __init__(self, status: int, code: str, detail: str, faults: Sequence[Fault] = (), request_id: str = ""):
        self.status, self.code, self.detail = status, code, detail
        self.faults, self.request_id = tuple(faults), request_id
        super().__init__("\n".join([f"{detail} ({code})", *(f"  - {fault}" for fault in faults)]))


class Busy(_Answered):
    """Not now: too many requests, the service is ending, or the same request is being worked on."""


class ServerFailed(_Answered):
    """Something went wrong in the service; `request_id` finds it in its log."""


class Refused(_Answered):
    """The service refused the request."""


class NotAuthenticated(Refused):
    """There is no key, or none that works."""


class NotAllowed(Refused):
    """The key may not do this."""


class NotFound(Refused):
    """There is no such thing, or it is another participant's."""


class StateConflict(Refused):
    """The state of things does not allow it."""


class OutOfDate(Refused):
    """The bid has changed since it was read."""


class WrongContent(Refused):
    """What was sent is wrong."""


KINDS: Mapping[int, type[Refused]] = {
    401: NotAuthenticated,
    403: NotAllowed,
    404: NotFound,
    409: StateConflict,
    412: OutOfDate,
    422: WrongContent,
}


def faults_of(errors: Sequence[Mapping[str, Any]]) -> tuple[Fault, ...]:
    """Faults of the member ``errors`` of problem details, and of items of a receipt."""
    return tuple(Fault(str(one["pointer"]), str(one["code"]), str(one["detail"])) for one in errors)


def is_not_now(status: int, problem: Mapping[str, Any]) -> bool:
    """Whether an answer says that the same request may succeed later."""
    return status in NOT_NOW or (status == 409 and problem.get("code") == IN_FLIGHT)


def error_of(status: int, problem: Mapping[str, Any]) -> _Answered:
    """Error of an answer with a status from 400 on."""
    kind: type[_Answered] = KINDS.get(status, Refused)
    if is_not_now(status, problem):
        kind = Busy
    elif status >= 500:
        kind = ServerFailed
    return kind(
        status,
        str(problem.get("code", f"http_{status}")),
        str(problem.get("detail", f"The service answered {status}.")),
        faults_of(problem.get("errors", ())),
        str(problem.get("request_id", "")),
    )
