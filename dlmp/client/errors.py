"""What the client raises.

ServiceError
├── NoAnswerError              the service was not reached, or broke off: what was sent may have been carried out
├── BusyError                  429, 503, 409 in flight: not now, though it was tried again and again
├── ServerError                5xx  a fault of the service
└── RefusedError               4xx  the service says no; `code` and `faults` say why
    ├── NotAuthenticatedError  401  there is no key, or none that works
    ├── NotAllowedError        403  the key may not do this
    ├── NotFoundError          404  there is no such thing, or it is another's
    ├── ConflictError          409  the gate is closed, the market not cleared, a name taken
    ├── OutOfDateError         412  the bid has changed since it was read
    └── ContentError           422  every problem at once
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlmp.errors import DlmpError

IN_FLIGHT = "in_flight"
NOT_NOW = (429, 503)
ABOUT_THE_SENDER = (401, 403, 408)
TYPE_PREFIX = "urn:dlmp:problem:"


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


class NoAnswerError(ServiceError):
    """No answer came, or none of the service; a write with an idempotency key stays in the outbox, to be sent again."""


class _AnsweredError(ServiceError):
    """The service answered with problem details."""

    def __init__(self, status: int, code: str, detail: str, faults: Sequence[Fault] = (), request_id: str = ""):
        self.status, self.code, self.detail = status, code, detail
        self.faults, self.request_id = tuple(faults), request_id
        super().__init__("\n".join([f"{detail} ({code})", *(f"  - {fault}" for fault in faults)]))


class BusyError(_AnsweredError):
    """Not now: too many requests, the service is ending, or the same request is being worked on."""


class ServerError(_AnsweredError):
    """Something went wrong in the service; `request_id` finds it in its log."""


class RefusedError(_AnsweredError):
    """The service refused the request."""


class NotAuthenticatedError(RefusedError):
    """There is no key, or none that works."""


class NotAllowedError(RefusedError):
    """The key may not do this."""


class NotFoundError(RefusedError):
    """There is no such thing, or it is another participant's."""


class ConflictError(RefusedError):
    """The state of things does not allow it."""


class OutOfDateError(RefusedError):
    """The bid has changed since it was read."""


class ContentError(RefusedError):
    """What was sent is wrong."""


KINDS: Mapping[int, type[RefusedError]] = {
    401: NotAuthenticatedError,
    403: NotAllowedError,
    404: NotFoundError,
    409: ConflictError,
    412: OutOfDateError,
    422: ContentError,
}


def faults_of(errors: Sequence[Mapping[str, Any]]) -> tuple[Fault, ...]:
    """Faults of the member ``errors`` of problem details, and of items of a receipt."""
    return tuple(Fault(str(one["pointer"]), str(one["code"]), str(one["detail"])) for one in errors)


def is_not_now(status: int, problem: Mapping[str, Any]) -> bool:
    """Whether an answer says that the same request may succeed later."""
    return status in NOT_NOW or (status == 409 and problem.get("code") == IN_FLIGHT)


def is_final(status: int, problem: Mapping[str, Any]) -> bool:
    """Whether the service itself refuses a request for good, whatever key it is sent with."""
    is_ours = str(problem.get("type", "")).startswith(TYPE_PREFIX)
    return is_ours and status < 500 and status not in ABOUT_THE_SENDER and not is_not_now(status, problem)


def error_of(status: int, problem: Mapping[str, Any]) -> _AnsweredError:
    """Error of an answer with a status from 400 on."""
    kind: type[_AnsweredError] = KINDS.get(status, RefusedError)
    if is_not_now(status, problem):
        kind = BusyError
    elif status >= 500:
        kind = ServerError
    return kind(
        status,
        str(problem.get("code", f"http_{status}")),
        str(problem.get("detail", f"The service answered {status}.")),
        faults_of(problem.get("errors", ())),
        str(problem.get("request_id", "")),
    )
