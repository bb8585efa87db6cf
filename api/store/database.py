"""The database: SQLite in WAL mode with every commit on disk, or PostgreSQL; both by the same statements."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_MS = 10_000
CONNECT_TIMEOUT_S = 10
WRITES = "dlmp_writes"


def open_database(url: str) -> Engine:
    """Connect to a database, which `migrate` must have made.

    Connections that are begun with the execution option `WRITES` take SQLite's write lock at once: a transaction
    that would have to wait for it later could fail instead.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return _postgresql(parsed)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, pool_size=16, max_overflow=32, connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # transactions begin below, not where the driver thinks best
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout = {BUSY_TIMEOUT_MS}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "wal_autocheckpoint = 4000",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        writes = connection.get_execution_options().get(WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql(url: URL) -> Engine:
    patience = {"connect_timeout": CONNECT_TIMEOUT_S}
    engine = create_engine(url, pool_size=16, max_overflow=32, pool_pre_ping=True, connect_args=patience)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        # A statement's plan would be kept from when its tables were empty, and read them whole ever after.
        connection.execute("SET plan_cache_mode = force_custom_plan")
        connection.commit()

    return engine


@contextmanager
def steady(engine: Engine) -> Iterator[Connection]:
    """Connection for reading, which sees all the time what was there at its first statement."""
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        yield connection


def migrate(engine: Engine) -> None:
    """Bring the tables of a database to the newest form; safe to call from several processes at once."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(706197)")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
