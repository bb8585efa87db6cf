"""What the book looks up stays quick as a market fills: through indices of the bids that stand alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import databases, settings_of
from sqlalchemy import Connection, Select, event, text

from api.book import COUNTS, STANDING
from api.runs import BIDS_OF_A_RUN
from api.store.database import open_database

LOOK_UPS = [
    (COUNTS, {"markets": ["m", "n"], "owners": ["p", "q"]}, "participant_id (market_id=? AND participant_id=?)"),
    (STANDING, {"markets": ["m", "n"], "resources": ["r", "s"]}, "resource_id (market_id=? AND resource_id=?)"),
    (BIDS_OF_A_RUN, {"market": "m"}, "resource_id (market_id=?)"),
]


@pytest.fixture(params=["sqlite", "postgresql"])
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connection]:
    with databases(request.param, tmp_path) as environment:
        engine = open_database(settings_of(environment).url)
        with engine.connect() as connection:
            if request.param == "postgresql":
                connection.execute(text("SET LOCAL enable_seqscan = off"))  # which is quicker while nothing is there
            yield connection
        engine.dispose()


@pytest.mark.parametrize(("query", "names", "index"), LOOK_UPS)
def test_bids_that_stand_are_found_by_an_index_of_their_own(
    connection: Connection, query: Select[tuple[object]], names: dict[str, object], index: str
) -> None:
    sent: list[tuple[str, Any]] = []
    event.listen(connection, "before_cursor_execute", lambda *what: sent.append(what[2:4]))
    connection.execute(query, names)
    statement, parameters = sent[-1]
    is_sqlite = connection.dialect.name == "sqlite"
    explain = "EXPLAIN QUERY PLAN" if is_sqlite else "EXPLAIN"
    plan = str(connection.exec_driver_sql(f"{explain} {statement}", parameters).all())
    assert (f"SEARCH bids USING INDEX ix_bids_live_{index}" if is_sqlite else "Index Scan using ix_bids_live_") in plan
