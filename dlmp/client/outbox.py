"""The outbox: every write with an idempotency key is on disk here before it is sent, and its answer after.

After a crash, whatever has no answer is sent again under its own key: the service carries it out once, whether or not
it had come through.  An SQLite file, in which a process that is killed loses nothing.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

TABLES = """
CREATE TABLE IF NOT EXISTS requests (
    number INTEGER PRIMARY KEY, service TEXT NOT NULL, account TEXT NOT NULL, idempotency_key TEXT NOT NULL,
    method TEXT NOT NULL, path TEXT NOT NULL, headers TEXT NOT NULL, content BLOB NOT NULL, created_at REAL NOT NULL,
    status INTEGER, answer BLOB, UNIQUE (service, account, idempotency_key));
CREATE TABLE IF NOT EXISTS accounts (
    service TEXT NOT NULL, account TEXT NOT NULL, participant TEXT NOT NULL, PRIMARY KEY (service, account));
"""
OWN = """
service = :service AND account IN (
    SELECT :account UNION SELECT one.account FROM accounts AS one JOIN accounts AS own USING (service, participant)
    WHERE own.service = :service AND own.account = :account)
"""
"""Requests of this account, and of others of the same participant."""
COLUMNS = "idempotency_key, method, path, headers, content"
BUSY_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Request:
    """A write, as it is sent.

    Parameters
    ----------
    idempotency_key
        Its name; sent again under the same name it has one effect.
    method, path
        ``POST``, ``/v1/bids``.
    headers
        Those beside the key's and the idempotency key's.
    content
        The body.
    """

    idempotency_key: str
    method: str
    path: str
    headers: Mapping[str, str]
    content: bytes


class Outbox:
    """Requests of one account at one service, and of others of its participant; a file may serve several.

    Parameters
    ----------
    path
        The file; made when it is not there.
    service, account
        URL of the service, and name of the API key.
    """

    def __init__(self, path: str | PathLike[str], service: str, account: str):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._own = service, account
        self._named: dict[str, object] = {"service": service, "account": account}
        self._lock = threading.Lock()
        self._file = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        Path(path).chmod(0o600)
        self._file.execute("PRAGMA journal_mode = WAL")
        self._file.execute("PRAGMA synchronous = FULL")
        self._file.executescript(TABLES)

    def add(self, request: Request) -> None:
        """Keep a request; it is on disk when this returns.  Raises `ValueError` when its key names another one."""
        what = (request.idempotency_key, request.method, request.path)
        values = (*self._own, *what, json.dumps(dict(request.headers)), request.content, time.time())
        columns = f"service, account, {COLUMNS}, created_at"
        own = "service = ? AND account = ? AND idempotency_key = ? AND method = ? AND path = ? AND content = ?"
        with self._lock:
            self._file.execute(f"INSERT OR IGNORE INTO requests ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
            found = self._file.execute(f"SELECT 1 FROM requests WHERE {own}", (*self._own, *what, request.content))
            if found.fetchone() is None:
                raise ValueError("this idempotency key was used for another request")

    @property
    def knows_participant(self) -> bool:
        """Whether it has been told whose the account is."""
        own = "service = ? AND account = ?"
        with self._lock:
            return self._file.execute(f"SELECT 1 FROM accounts WHERE {own}", self._own).fetchone() is not None

    def belongs_to(self, participant_id: str) -> None:
        """Keep whose the account is: idempotency keys are the participant's, and outlive an API key."""
        with self._lock:
            self._file.execute("INSERT OR REPLACE INTO accounts VALUES (?, ?, ?)", (*self._own, participant_id))

    def answered(self, idempotency_key: str, status: int, answer: bytes) -> None:
        """Keep the answer to a request, which is then not sent again."""
        what = {"status": status, "answer": answer, "idempotency_key": idempotency_key}
        with self._lock:
            self._file.execute(
                f"UPDATE requests SET status = :status, answer = :answer WHERE {OWN} "
                "AND idempotency_key = :idempotency_key",
                self._named | what,
            )

    def unanswered(self) -> list[Request]:
        """Requests without an answer, the oldest first."""
        query = f"SELECT {COLUMNS} FROM requests WHERE {OWN} AND status IS NULL ORDER BY number"
        with self._lock:
            rows = self._file.execute(query, self._named)
            return [
                Request(key, method, path, json.loads(headers), bytes(content))
                for key, method, path, headers, content in rows
            ]

    def close(self) -> None:
        """Close the file."""
        self._file.close()
