"""The audit chain vouches for every row: whatever is altered, dropped, swapped or added behind its back is found."""

import contextlib
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from publishing import publish_invented
from sqlalchemy import Boolean, Float, Integer, LargeBinary, inspect, text
from sqlalchemy.exc import DBAPIError
from worlds import DAY_BEGINS, NOW, z

from api.integrity import VOUCHED, faults_in_store
from api.runs import SYSTEM, Cancel, RunRequest, cancel_run, request_run
from api.store.tables import audit, chain, metadata
from api.store.writer import each

TABLES = [*VOUCHED, audit, chain]
FLIPPED = {"bids": {"state"}, "runs": {"state"}}


@pytest.fixture(scope="module")
def busy(new_world):
    """A service in which everything has happened that the chain tells of."""
    with new_world() as world:
        first = world.placed(
            segments=[{"quantity_kw": 1, "price_usd_per_mwh": 1}],
            interval_end=z(DAY_BEGINS + timedelta(hours=3)),
        )
        etag = world.get(f"/v1/bids/{first}", "sunny").headers["etag"]
        body = world.bid(segments=[{"quantity_kw": 2, "price_usd_per_mwh": 1e9 / 1e7}])
        headers = world.new_key() | {"If-Match": etag}
        assert world.request("PUT", f"/v1/bids/{first}", "sunny", headers, json=body).status_code == 200
        second = world.placed(who="windy", resource_id=world["wind"])
        etag = world.get(f"/v1/bids/{second}", "windy").headers["etag"]
        assert world.delete(f"/v1/bids/{second}", "windy", headers=world.new_key() | {"If-Match": etag}).is_success
        world.place_all([world.bid(), world.bid(resource_id=world["battery"])], "per_item")
        world.delete(f"/v1/resources/{world['battery']}")
        publish_invented(world, [("sunny", "solar", "10.01")])
        publish_invented(world, [("sunny", "solar", "10.02")], reason="a meter was read again")
        world.ask("POST", f"/v1/markets/{world['market']}/settle")
        other = world.ask("POST", "/v1/markets", world.market())["id"]
        for path in ("close", "runs"):
            world.ask("POST", f"/v1/markets/{other}/{path}", {})
        asked = RunRequest(other, SYSTEM, NOW, {}, 1.0)
        run_id, _ = world.service.writer.do_now(each(request_run), asked)
        world.service.writer.do_now(each(cancel_run), Cancel(run_id, SYSTEM, NOW))
        world.service.writer.do_now(each(request_run), asked)
        yield world


def found_after(world, *statements, **values):
    """Faults that a verification finds after statements behind the service's back, which are then undone."""
    with world.service.engine.connect() as connection:
        transaction = connection.begin()
        try:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SET session_replication_role = replica"))
            else:
                connection.execute(text("PRAGMA defer_foreign_keys = ON"))
            for statement in statements:
                connection.execute(statement if not isinstance(statement, str) else text(statement), values)
            return list(faults_in_store(connection))
        finally:
            transaction.rollback()


def rows_of(world, table):
    with world.service.engine.connect() as connection:
        return connection.execute(text(f"SELECT * FROM {table.name} ORDER BY 1, 2")).mappings().all()


def one_byte_altered(value, kind, draw):
    """Return a value of which one byte, or for a number one digit or its sign, is another."""
    if isinstance(kind, Boolean):
        return not value
    if isinstance(kind, Integer):
        return value ^ (1 << draw(st.integers(0, 30)))
    if isinstance(kind, Float):
        return draw(st.sampled_from([-value or 1.0, value + 0.5, value * (1 + 2**-52) or 5e-324]))
    content = bytes(value) if isinstance(kind, LargeBinary) else value.encode()
    place = draw(st.integers(0, len(content) - 1))
    usual = st.integers(32, 126) if not isinstance(kind, LargeBinary) else st.integers(0, 255)
    byte = draw(usual.filter(lambda other: other != content[place]))
    altered = content[:place] + bytes([byte]) + content[place + 1 :]
    return altered if isinstance(kind, LargeBinary) else altered.decode()


def test_a_store_that_nobody_touched_is_whole(busy):
    answer = busy.get("/v1/audit/verify", "auditor").json()
    assert (answer["is_whole"], answer["faults"]) == (True, [])
    assert all(len(rows_of(busy, table)) > 0 for table in TABLES)


def is_vouched(table, row, column):
    """Whether the chain vouches for this value: all but what a run that is under way says of itself."""
    under_way = table.name == "runs" and row["state"] in ("queued", "running")
    return not under_way or column.name in {
        *("id", "market_id", "number", "correction_reason", "settings", "snapshot", "snapshot_sha256"),
        *("time_limit_s", "requested_by", "created_at"),
    }


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_altered_byte_is_found(busy, data):
    table = data.draw(st.sampled_from(TABLES))
    row = data.draw(st.sampled_from(rows_of(busy, table)))
    columns = [
        column
        for column in table.c
        if row[column.name] not in (None, "", b"") and is_vouched(table, row, column)
    ]
    column = data.draw(st.sampled_from(columns))
    altered = one_byte_altered(row[column.name], column.type, data.draw)
    own = " AND ".join(f"{key.name} = :own_{key.name}" for key in table.primary_key)
    values = {f"own_{key.name}": row[key.name] for key in table.primary_key} | {"altered": altered}
    with contextlib.suppress(DBAPIError):  # what the database itself refuses needs not be found
        assert found_after(busy, f"UPDATE {table.name} SET {column.name} = :altered WHERE {own}", **values)


def test_every_dropped_row_is_found(busy):
    for table in TABLES:
        for row in rows_of(busy, table):
            own = " AND ".join(f"{key.name} = :{key.name}" for key in table.primary_key)
            values = {key.name: row[key.name] for key in table.primary_key}
            assert found_after(busy, f"DELETE FROM {table.name} WHERE {own}", **values), (table.name, values)


def test_rows_that_are_filled_or_emptied_are_found(busy):
    for name, column in (("markets", "opened_at"), ("markets", "stage"), ("keys", "revoked_at"), ("audit", "before")):
        assert found_after(busy, f"UPDATE {name} SET {column} = NULL WHERE {column} IS NOT NULL")
        assert found_after(busy, f"UPDATE {name} SET {column} = '' WHERE {column} IS NULL")


def test_two_rows_whose_contents_are_swapped_are_found(busy):
    for table in TABLES[:-1]:
        one, two = rows_of(busy, table)[:2]
        keys = {column.name for column in table.primary_key}
        unique = {
            name
            for constraint in inspect(busy.service.engine).get_unique_constraints(table.name)
            for name in constraint["column_names"]
        }
        others = [name for name in one if name not in keys | unique and one[name] != two[name]]
        if not others:
            others = [next(name for name in one if name not in keys and one[name] != two[name])]
        sets = ", ".join(f"{name} = :new_{name}" for name in others)
        own = " AND ".join(f"{name} = :{name}" for name in keys)
        with busy.service.engine.connect() as connection:
            transaction = connection.begin()
            for row, other in ((one, two), (two, one)):
                values = {f"new_{name}": other[name] for name in others} | {name: row[name] for name in keys}
                with contextlib.suppress(DBAPIError), connection.begin_nested():
                    connection.execute(text(f"UPDATE {table.name} SET {sets} WHERE {own}"), values)
            assert list(faults_in_store(connection)), table.name
            transaction.rollback()


def test_appended_rows_are_found(busy):
    for table in TABLES:
        row = dict(rows_of(busy, table)[-1])
        for name, value in row.items():
            is_free = isinstance(value, str) and not table.c[name].foreign_keys and "[" not in value and "{" not in value
            if is_free and (table.c[name].primary_key or name in ("name", "hash", "id", "sha256", "idempotency_key")):
                row[name] = value[:-1] + ("0" if value[-1] != "0" else "1")
            elif name in ("sequence", "version", "number", "price_version") or (name == "id" and table is chain):
                row[name] = value + 1_000
        if table.name == "versions":
            row["run_id"] = rows_of(busy, metadata.tables["runs"])[-1]["id"]
        if table.name == "runs":
            row["state"] = "failed"
        columns = ", ".join(row)
        assert found_after(busy, f"INSERT INTO {table.name} ({columns}) VALUES ({', '.join(':' + n for n in row)})", **row)


def test_a_chain_whose_end_is_cut_off_is_found_even_when_its_head_is_set_back(busy):
    last, before = rows_of(busy, audit)[-1], rows_of(busy, audit)[-2]
    cut = "DELETE FROM audit WHERE sequence = :sequence"
    assert found_after(busy, cut, sequence=last["sequence"])
    set_back = "UPDATE chain SET sequence = :before, hash = :hash"
    values = {"sequence": last["sequence"], "before": before["sequence"], "hash": before["hash"]}
    assert found_after(busy, cut, set_back, **values)  # the row that the entry wrote is not vouched for any more


def test_the_chain_says_who_did_what_when_and_what_was_before(busy):
    entries = busy.get("/v1/audit?limit=1000", "auditor").json()["items"]
    by_action = {entry["action"]: entry for entry in entries}
    settle = by_action["market.settle"]
    assert settle["target"] == busy["market"]
    assert (settle["before"], settle["after"]) == ({"stage": "published"}, {"stage": "settled"})
    assert settle["at"] == z(busy.clock()).replace(".000000", "")
    keys = {key["id"]: key["name"] for key in busy.ask("GET", "/v1/keys")["items"]}
    assert (keys[settle["actor"]], keys[by_action["bids.submit"]["actor"]]) == ("operator", "sunny")
    assert [entry["sequence"] for entry in entries] == list(range(1, len(entries) + 1))
