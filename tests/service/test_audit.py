"""The audit chain vouches for every row: whatever is altered, dropped, swapped or added behind its back is found."""

import contextlib
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from publishing import publish_invented, settle_invented
from sqlalchemy import Boolean, Float, Integer, LargeBinary, inspect, text
from sqlalchemy.exc import DBAPIError
from worlds import DAY_BEGINS, NOW, z

from api import integrity
from api.integrity import VOUCHED, faults_in_store
from api.runs import SYSTEM, Cancel, RunRequest, cancel_run, request_run
from api.store.tables import audit, chain, metadata, submissions
from api.store.vouching import kept_rows
from api.store.writer import each

TABLES = [*VOUCHED, audit, chain]
AS_TEXT = {"sqlite": "CAST(:altered AS TEXT)", "postgresql": "convert_from(:altered, 'UTF8')"}
"""Bytes as text: SQLite takes any, PostgreSQL refuses what is no UTF-8."""


@pytest.fixture(scope="module")
def busy(new_world):
    """A service in which everything has happened that the chain tells of."""
    with new_world(webhook_allowed_networks="127.0.0.1") as world:
        hook = {"url": "https://127.0.0.1/", "events": ["market.settled"], "feeder": "lane"}
        hooks = [world.ask("POST", "/v1/webhooks", hook)["id"] for _ in range(2)]
        world.ask("DELETE", f"/v1/webhooks/{hooks[0]}")
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
        settle_invented(world, [("sunny", "solar", "10.03")])
        world.clock.step(days=2)
        times = {"interval_start": z(DAY_BEGINS), "interval_end": z(DAY_BEGINS + timedelta(hours=1))}
        for kwh in (1.5, 2.5):
            readings = [{"resource_id": world["solar"], "net_injection_kwh": kwh, "q_kvarh": 0.5} | times]
            world.ask("POST", f"/v1/markets/{world['market']}/readings", {"readings": readings})
        world.clock.step(days=-2)
        other = world.ask("POST", "/v1/markets", world.market())["id"]
        world.ask("POST", f"/v1/markets/{other}/close", {})
        run_id = world.ask("POST", f"/v1/markets/{other}/runs", {})["id"]
        world.service.writer.do_now(each(cancel_run), Cancel(run_id, SYSTEM, NOW))
        world.service.writer.do_now(each(request_run), RunRequest(other, SYSTEM, NOW, {}, 1.0))
        world.ask("POST", "/v1/markets", world.market(gate_opens_at=z(NOW + timedelta(hours=1))))
        yield world


@contextlib.contextmanager
def unchecked(connection):
    """Let foreign keys be broken, and undo everything in the end."""
    transaction = connection.begin()
    is_postgresql = connection.dialect.name == "postgresql"
    lenient = "SET LOCAL session_replication_role = replica" if is_postgresql else "PRAGMA defer_foreign_keys = ON"
    try:
        connection.execute(text(lenient))
        yield
    finally:
        transaction.rollback()


def found_after(world, *statements, **values):
    """Faults that a verification finds after statements behind the service's back, which are then undone."""
    with world.service.engine.connect() as connection, unchecked(connection):
        for statement in statements:
            connection.execute(text(statement), values)
        return list(faults_in_store(connection))


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
    byte = draw(st.integers(0, 255).filter(lambda other: other != content[place]))
    return content[:place] + bytes([byte]) + content[place + 1 :]


def test_a_store_that_nobody_touched_is_whole(busy):
    answer = busy.get("/v1/audit/verify", "auditor").json()
    assert (answer["is_whole"], answer["faults"]) == (True, [])
    assert all(len(rows_of(busy, table)) > 0 for table in TABLES)


def is_vouched(table, row, column):
    """Whether the chain vouches for this value: all but what a run that is under way says of itself."""
    under_way = table.name == "runs" and row["state"] in ("queued", "running")
    return not under_way or column.name in {
        *(
            "id",
            "market_id",
            "number",
            "kind",
            "correction_reason",
            "settings",
            "settling",
            "corrected_inputs",
            "snapshot",
            "snapshot_sha256",
        ),
        *("time_limit_s", "requested_by", "created_at"),
    }


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_altered_byte_is_found(busy, data):
    table = data.draw(st.sampled_from(TABLES))
    row = data.draw(st.sampled_from(rows_of(busy, table)))
    columns = [
        column for column in table.c if row[column.name] not in (None, "", b"") and is_vouched(table, row, column)
    ]
    column = data.draw(st.sampled_from(columns))
    altered = one_byte_altered(row[column.name], column.type, data.draw)
    own = " AND ".join(f"{key.name} = :own_{key.name}" for key in table.primary_key)
    values = {f"own_{key.name}": row[key.name] for key in table.primary_key} | {"altered": altered}
    is_text = isinstance(altered, bytes) and not isinstance(column.type, LargeBinary)
    new = AS_TEXT[busy.service.engine.dialect.name] if is_text else ":altered"
    with contextlib.suppress(DBAPIError):  # what the database itself refuses needs not be found
        assert found_after(busy, f"UPDATE {table.name} SET {column.name} = {new} WHERE {own}", **values)


def test_every_dropped_row_is_found(busy):
    for table in TABLES:
        for row in rows_of(busy, table):
            own = " AND ".join(f"{key.name} = :{key.name}" for key in table.primary_key)
            values = {key.name: row[key.name] for key in table.primary_key}
            assert found_after(busy, f"DELETE FROM {table.name} WHERE {own}", **values), (table.name, values)


def test_values_that_are_filled_in_or_emptied_are_found(busy):
    columns = [
        *(("markets", "opened_at"), ("markets", "closed_at"), ("markets", "stage"), ("keys", "revoked_at")),
        *(("keys", "expires_at"), ("audit", "before"), ("resources", "retired_at")),
        ("webhooks", "deleted_at"),
    ]
    for name, column in columns:
        assert found_after(busy, f"UPDATE {name} SET {column} = NULL WHERE {column} IS NOT NULL"), (name, column)
        assert found_after(busy, f"UPDATE {name} SET {column} = '' WHERE {column} IS NULL"), (name, column)


def inserted(table):
    columns = [column.name for column in table.c]
    names, values = ", ".join(columns), ", ".join(f":{name}" for name in columns)
    return f"INSERT INTO {table.name} ({names}) VALUES ({values})"


def test_two_rows_that_are_swapped_are_found(busy):
    for table in TABLES[:-1]:
        one, two = rows_of(busy, table)[:2]
        keys = [column.name for column in table.primary_key]
        own = " AND ".join(f"{name} = :{name}" for name in keys)
        with busy.service.engine.connect() as connection, unchecked(connection):
            for row in (one, two):
                connection.execute(text(f"DELETE FROM {table.name} WHERE {own}"), {name: row[name] for name in keys})
            for row, other in ((one, two), (two, one)):
                swapped = dict(row) | {name: other[name] for name in keys}
                connection.execute(text(inserted(table)), swapped)
            assert list(faults_in_store(connection)), table.name


def test_rows_that_are_added_are_found(busy):
    for table in TABLES:
        row = dict(rows_of(busy, table)[-1])
        unique = inspect(busy.service.engine).get_unique_constraints(table.name)
        own = {column.name for column in table.primary_key}.union(*(one["column_names"] for one in unique))
        for name in own:
            if not table.c[name].foreign_keys:
                row[name] = row[name] + (1_000 if isinstance(row[name], int) else "0")
        if table.name == "versions":
            published = {one["run_id"] for one in rows_of(busy, table)}
            names = [run["id"] for run in rows_of(busy, metadata.tables["runs"])]
            row["run_id"] = next(name for name in names if name not in published)
        if table.name == "runs":
            row["state"] = "failed"
        assert found_after(busy, inserted(table), **row), table.name


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
    after = {"stage": "settled", "price_version": 3, "status": "final", "reason": "settlement"}
    assert (settle["before"], settle["after"]) == (
        {"stage": "published"},
        after | {"run_id": settle["after"]["run_id"]},
    )
    assert settle["at"] == z(busy.clock()).replace(".000000", "")
    keys = {key["id"]: key["name"] for key in busy.ask("GET", "/v1/keys")["items"]}
    assert (keys[settle["actor"]], keys[by_action["bids.submit"]["actor"]]) == ("operator", "sunny")
    assert [entry["sequence"] for entry in entries] == list(range(1, len(entries) + 1))


def test_a_bid_that_is_placed_while_the_chain_is_verified_is_no_fault(world, monkeypatch):
    def meanwhile(connection, table):
        if table is submissions:
            world.placed()
        yield from kept_rows(connection, table)

    with monkeypatch.context() as patch:
        patch.setattr(integrity, "kept_rows", meanwhile)
        before = world.get("/v1/audit/verify", "auditor").json()
    after = world.get("/v1/audit/verify", "auditor").json()
    assert (before["faults"], after["faults"]) == ([], [])
    assert after["entries"] == before["entries"] + 1
