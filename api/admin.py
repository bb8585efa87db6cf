"""What an operator does at the machine of the service itself, on its database: make it ready, keys, the audit.

Whoever may read and write the database needs no key for it; the audit chain names them `CONSOLE`.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection, Engine, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from api import registry
from api.auth import OPERATOR
from api.clock import system_clock
from api.errors import Fault, Refusal
from api.faults import checked
from api.integrity import faults_in_store
from api.registry import Asked
from api.schemas.objects import KeyIn
from api.settings import ServiceSettings
from api.store.audit import Chain
from api.store.database import migrate, open_database, steady
from api.store.tables import chain as chain_table
from api.store.tables import keys, participants
from api.store.writer import Writer, each
from dlmp.errors import InputError, Problem

CONSOLE = "console"
OPERATOR_KEY_FILE = "operator.key"


def read_settings(**given: Any) -> ServiceSettings:
    """Settings from the environment; those `given` and not None come before.

    Raises
    ------
    InputError
        With every setting that is wrong.
    """
    try:
        return ServiceSettings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise InputError(
            Problem("settings", f"DLMP_{found['loc'][0]}".upper(), found["input"], str(found["msg"]))
            for found in error.errors()
        ) from None


def ready_database(settings: ServiceSettings, *, is_new: bool = True) -> Engine:
    """Connect to the database of `settings` and bring its tables to the newest form.

    Raises
    ------
    InputError
        When it does not answer; when there is none yet and it may not be made.
    """
    shown = settings.url
    try:
        url = make_url(settings.url)
        shown = url.render_as_string(hide_password=True)
        if url.get_backend_name() == "sqlite":
            if not is_new and not Path(str(url.database)).exists():
                raise _unusable(shown, "there is no database yet: `dlmp serve` makes it")
            settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        engine = open_database(settings.url)
        migrate(engine)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError):
        message = "must be postgresql://user@host/name, for which the extra dlmp[postgres] is needed, or blank"
        raise _unusable("DLMP_DATABASE_URL", message) from None
    except DBAPIError as error:
        raise _unusable(shown, f"does not answer ({' '.join(str(error.orig).split())})") from None
    except OSError as error:
        raise _unusable(shown, f"cannot be used ({error.strerror})") from None
    return engine


def _unusable(where: str, message: str) -> InputError:
    return InputError([Problem("service", "database", where, message)])


def first_key(engine: Engine, folder: Path) -> Path | None:
    """Issue an operator's key where there is no key at all, and write it to a file in `folder`.

    The file is on disk before the key is, so that no key works that nobody has.

    Returns
    -------
    Path or None
        The file; None where there are keys already.
    """
    path = folder / OPERATOR_KEY_FILE

    def issue(connection: Connection, chain: Chain, asked: Asked) -> Path | None:
        if connection.execute(select(keys.c.id).limit(1)).one_or_none() is not None:
            return None
        _, whole = registry.issue_key(connection, chain, asked)
        _write_secret(path, whole)
        return path

    content = {"name": "first operator", "role": OPERATOR, "participant_id": None, "scopes": None, "expires_at": None}
    try:
        written: Path | None = _write(engine, issue, content)
    except OSError as error:
        raise InputError(
            [Problem("service", "data_dir", str(folder), f"cannot be written ({error.strerror})")]
        ) from None
    return written


def _write_secret(path: Path, secret: str) -> None:
    """Write a file that only its owner may read."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def issue_key(settings: ServiceSettings, **content: Any) -> tuple[str, str]:
    """Issue a key; return its name and the whole of it.

    Parameters
    ----------
    settings
        Whose database.
    content
        Fields of `KeyIn`; a participant may go by its name.
    """
    engine = ready_database(settings)
    with engine.connect() as connection:
        named = select(participants.c.id).where(participants.c.name == content["participant_id"])
        content["participant_id"] = connection.execute(named).scalar_one_or_none() or content["participant_id"]
    key, faults = checked(TypeAdapter(KeyIn), content)
    if faults:
        raise _wrong(faults, content)
    issued: tuple[str, str] = _write(engine, registry.issue_key, key.model_dump())
    return issued


def list_keys(settings: ServiceSettings) -> list[Mapping[str, Any]]:
    """All keys, without their secrets, the oldest first."""
    engine = ready_database(settings, is_new=False)
    owner = keys.outerjoin(participants, keys.c.participant_id == participants.c.id)
    columns = [column for column in keys.c if column.name != "secret_sha256"]
    query = select(*columns, participants.c.name.label("participant")).select_from(owner).order_by(keys.c.created_at)
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def revoke_key(settings: ServiceSettings, name: str) -> None:
    """Revoke a key; a service that runs refuses it within a second."""
    _write(ready_database(settings, is_new=False), registry.revoke_key, {"id": name})


def verify_audit(settings: ServiceSettings) -> tuple[int, list[str]]:
    """Number of entries of the audit chain, and everything in the store that is not what was written."""
    with steady(ready_database(settings, is_new=False)) as connection:
        return connection.execute(select(chain_table.c.sequence)).scalar_one(), list(faults_in_store(connection))


def _write(engine: Engine, job: Callable[[Connection, Chain, Asked], Any], content: Mapping[str, Any]) -> Any:
    with _writer(engine) as writer:
        try:
            return writer.do_now(each(job), Asked(CONSOLE, system_clock(), content))
        except Refusal as refusal:
            raise _wrong(refusal.faults or [Fault("/id", refusal.code, refusal.detail)], content) from None


@contextmanager
def _writer(engine: Engine) -> Iterator[Writer]:
    writer = Writer(engine)
    writer.start()
    try:
        yield writer
    finally:
        writer.stop()


def _wrong(faults: Any, content: Mapping[str, Any]) -> InputError:
    names = [(fault.pointer.strip("/").partition("/")[0], fault.detail) for fault in faults]
    return InputError(Problem("key", name or "role", content.get(name or "role"), detail) for name, detail in names)
