"""Requests to the service: sent again while it makes sense, and turned into answers or errors.

A read is sent again whenever no answer came.  So is a write that carries an idempotency key, which the service carries
out once.  Any other write is sent again only where it cannot have been carried out: no connection came about, or the
service said that it is busy.  Meter readings, of which the same ones again change nothing, are sent again like a read.
"""

import json
import random
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from dlmp.client.errors import NoAnswerError, error_of, is_final, is_not_now
from dlmp.client.outbox import Outbox, Request

NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0
LONGEST_WAIT_S = 120.0
"""A service that asks for more patience than this is taken at its word that it is busy."""
IDEMPOTENCY_KEY = "Idempotency-Key"
READ = "GET"


class Transport:
    """Connection of a key to a service.

    Parameters
    ----------
    url, key
        Of the service, and the API key; None reads what is public.
    timeout_s
        Longest silence of the service [s].
    attempts
        How often a request is sent.
    outbox
        Where writes are kept until they are answered.
    """

    def __init__(self, url: str, key: str | None, timeout_s: float, attempts: int, outbox: Outbox | None):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s)
        self._attempts = attempts
        self._outbox = outbox
        self._random = random.Random()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()
        if self._outbox is not None:
            self._outbox.close()

    def read(self, path: str, **query: Any) -> httpx.Response:
        """Read something; parameters that are None are left out."""
        given = {name: value for name, value in query.items() if value is not None}
        return self._send(READ, path, params=given, may_repeat=True)

    def items(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Read all pages of a list."""
        cursor = None
        while True:
            page = self.read(path, **query, cursor=cursor).json()
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def write(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        """Write something that has no idempotency key."""
        content = b"" if body is None else encoded(body)
        return self._send(method, path, content=content, headers=_content_type(content), may_repeat=False)

    def write_table(self, path: str, table: bytes) -> httpx.Response:
        """Write a table, CSV, that changes nothing when it comes once more."""
        return self._send("POST", path, content=table, headers={"Content-Type": "text/csv"}, may_repeat=True)

    def write_once(self, request: Request) -> httpx.Response:
        """Write something under its idempotency key, by way of the outbox."""
        if self._outbox is not None:
            self._outbox.add(request)
            self._learn_whose(self._outbox)
        return self.write_again(request)

    def write_again(self, request: Request) -> httpx.Response:
        """Send a request that is in the outbox already.

        It stays there unless the service itself has carried it out or refused it for good: a proxy's word, or one about
        the key, says nothing about the bid.
        """
        headers = {**_content_type(request.content), **request.headers, IDEMPOTENCY_KEY: request.idempotency_key}
        response = self._exchange(
            request.method, request.path, content=request.content, headers=headers, may_repeat=True
        )
        document = _document(response)
        is_receipt = response.is_success and "submission_id" in document
        if not (is_receipt or response.is_error):
            raise NoAnswerError(f"{self._http.base_url} answered {response.status_code} without a receipt")
        if self._outbox is not None and (is_receipt or is_final(response.status_code, document)):
            self._outbox.answered(request.idempotency_key, response.status_code, response.content)
        return _sound(response)

    def unanswered(self) -> list[Request]:
        """Requests of the outbox that have no answer."""
        if self._outbox is None:
            return []
        self._learn_whose(self._outbox)
        return self._outbox.unanswered()

    def _learn_whose(self, outbox: Outbox) -> None:
        """Tell `outbox` whose the key is, by the resources that it sees, where that can be known now."""
        if outbox.knows_participant:
            return
        try:
            seen = _document(self._http.get("/v1/resources", params={"limit": 1})).get("items", [])
        except httpx.TransportError:
            return
        for resource in seen:
            outbox.belongs_to(resource["participant_id"])

    def events(self, path: str) -> Iterator[dict[str, Any]]:
        """Follow a stream of events; it ends when the service ends it, or the connection breaks."""
        try:
            with self._http.stream(READ, path) as response:
                if response.is_error:
                    response.read()
                    raise error_of(response.status_code, _problem(response))
                for line in response.iter_lines():
                    if line.startswith("data: "):
                        yield json.loads(line.removeprefix("data: "))
        except httpx.TransportError:
            return

    def _send(self, method: str, path: str, *, may_repeat: bool, **what: Any) -> httpx.Response:
        return _sound(self._exchange(method, path, may_repeat=may_repeat, **what))

    def _exchange(self, method: str, path: str, *, may_repeat: bool, **what: Any) -> httpx.Response:
        """Send a request until there is an answer other than *not now*, or patience ends; return the last answer."""
        for attempt in range(1, self._attempts + 1):
            is_last, asked_s = attempt == self._attempts, 0.0
            try:
                response = self._http.request(method, path, **what)
            except httpx.TransportError as error:
                if is_last or not (may_repeat or isinstance(error, NOT_SENT)):
                    raise NoAnswerError(
                        f"{self._http.base_url} did not answer: {error or type(error).__name__}"
                    ) from error
            else:
                asked_s = _retry_after_s(response)
                is_busy = is_not_now(response.status_code, _problem(response))
                if is_last or asked_s > LONGEST_WAIT_S or not is_busy:
                    return response
            time.sleep(max(asked_s, self._pause_s(attempt)))
        raise AssertionError("there is at least one attempt")

    def _pause_s(self, attempt: int) -> float:
        """Pause before the next attempt: twice as long each time, and random, so that clients do not come in step."""
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**attempt)
        return longest * self._random.uniform(0.5, 1.0)


def encoded(body: Mapping[str, Any]) -> bytes:
    """Write a body as JSON; what is not finite is refused here."""
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()


def _content_type(content: bytes) -> dict[str, str]:
    return {"Content-Type": "application/json"} if content else {}


def _document(response: httpx.Response) -> dict[str, Any]:
    """JSON object of an answer; empty where it has none."""
    try:
        document = response.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _problem(response: httpx.Response) -> dict[str, Any]:
    """Problem details of an answer; empty where it has none."""
    return _document(response) if response.is_error else {}


def _sound(response: httpx.Response) -> httpx.Response:
    if response.is_error:
        raise error_of(response.status_code, _problem(response))
    return response


def _retry_after_s(response: httpx.Response) -> float:
    """Seconds that an answer asks to wait, from a number or a date; 0 where it asks for none."""
    text = response.headers.get("Retry-After", "")
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0
