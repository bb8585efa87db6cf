"""Fixtures of the service's tests: worlds on SQLite and on PostgreSQL, each on a database of its own.

The PostgreSQL server is that of ``DLMP_TEST_DATABASE_URL``; where it does not answer, the tests fail.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import structlog
from serverfixtures import desk, published, server
from worlds import Loop, Names, World, furnish, running

from api.store.tables import metadata

__all__ = ["desk", "published", "server"]
pytest.register_assert_rewrite("crash")  # what a failed assertion compared is told there, too

SERVER = os.environ.get("DLMP_TEST_DATABASE_URL", "postgresql://root@127.0.0.1:5432/test")
KINDS = ("sqlite", "postgresql")
NewWorld = Callable[..., AbstractContextManager[World]]


@pytest.fixture(scope="session", autouse=True)
def quiet() -> Iterator[None]:
    """No log line for every request."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    own = Loop()
    yield own
    own.close()


class _Sqlite:
    """Databases as files of a folder; each but the first is a copy of it."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._template = folder / "template.sqlite"

    def template(self) -> str:
        return f"sqlite:///{self._template}"

    @contextmanager
    def copy(self) -> Iterator[str]:
        path = self._folder / f"{uuid4().hex}.sqlite"
        shutil.copyfile(self._template, path)
        yield f"sqlite:///{path}"
        for leftover in self._folder.glob(f"{path.name}*"):
            leftover.unlink()

    def close(self) -> None:
        """Leave the folder to pytest."""


class _Postgres:
    """Databases of a server; each but the first is filled from it, and used again, which is faster than a new one."""

    def __init__(self) -> None:
        self._prefix = f"dlmp_apitests_{uuid4().hex[:12]}"
        self._server = psycopg.connect(SERVER, autocommit=True)
        self._free: list[str] = []
        self._made: list[str] = []
        self._do(f"CREATE DATABASE {self._prefix}")

    def _do(self, statement: str) -> None:
        self._server.execute(statement.encode())

    def _url(self, name: str) -> str:
        return f"{SERVER.rpartition('/')[0]}/{name}"

    def template(self) -> str:
        return self._url(self._prefix)

    @contextmanager
    def copy(self) -> Iterator[str]:
        name = self._free.pop() if self._free else self._new()
        yield self._url(name)
        self._fill_again(name)
        self._free.append(name)

    def _new(self) -> str:
        name = f"{self._prefix}_{len(self._made)}"
        self._made.append(name)
        self._do(f"CREATE DATABASE {name} TEMPLATE {self._prefix}")
        with psycopg.connect(self._url(name)) as own:
            own.execute("CREATE SCHEMA kept")
            for table in metadata.sorted_tables:
                own.execute(f"CREATE TABLE kept.{table.name} AS TABLE public.{table.name}".encode())
        return name

    def _fill_again(self, name: str) -> None:
        with psycopg.connect(self._url(name)) as own:
            for table in reversed(metadata.sorted_tables):
                own.execute(f"DELETE FROM public.{table.name}".encode())
            for table in metadata.sorted_tables:
                own.execute(f"INSERT INTO public.{table.name} TABLE kept.{table.name}".encode())

    def close(self) -> None:
        for name in (*self._made, self._prefix):
            self._do(f"DROP DATABASE {name} WITH (FORCE)")
        self._server.close()


@pytest.fixture(scope="session", params=KINDS)
def new_world(
    request: pytest.FixtureRequest, loop: Loop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NewWorld]:
    """Make a world on a fresh database of a kind, with settings of the service."""
    databases = _Sqlite(tmp_path_factory.mktemp("worlds")) if request.param == "sqlite" else _Postgres()
    try:
        names: Names = furnish(databases.template(), loop)

        @contextmanager
        def make(**settings: object) -> Iterator[World]:
            with databases.copy() as url, running(url, names, loop, **settings) as world:
                yield world

        yield make
    finally:
        databases.close()


@pytest.fixture
def world(new_world: NewWorld) -> Iterator[World]:
    """A service of the test's own."""
    with new_world() as own:
        yield own


@pytest.fixture(scope="module")
def shared(new_world: NewWorld) -> Iterator[World]:
    """A service that the tests of a module share: for those that change nothing."""
    with new_world() as own:
        yield own
