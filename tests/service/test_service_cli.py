"""Commands on the service: keys and audit on its database, bids, runs, prices and statements through its HTTP API."""

import sqlite3
import sys
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest
from servers import Desk, day_that_is_over, flexible, hours

from dlmp.cli import main
from dlmp.client import Bid, Client

HEADER = "resource,interval,side,segment,quantity_kw,price_usd_per_mwh\n"


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run the command line; gives exit code, standard output and standard error."""

    def run_main(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dlmp", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code, *capsys.readouterr()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("DLMP_OUTBOX", str(tmp_path / "outbox"))
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    return run_main


@pytest.fixture
def bidding(desk: Desk, run, monkeypatch):
    """The command line with the key of an aggregator whose market is open."""
    monkeypatch.setenv("DLMP_URL", desk.url)
    monkeypatch.setenv("DLMP_KEY", desk.key)
    return run


def write(path: Path, *lines: str) -> Path:
    path.write_text(HEADER + "".join(f"{line}\n" for line in lines))
    return path


def test_a_key_is_issued_once_listed_without_its_secret_and_revoked(run):
    code, out, err = run("key", "issue", "the desk", "--role", "operator")
    assert (code, err) == (0, "")
    whole = out.strip()
    name, _, secret = whole.removeprefix("dlmp_").partition(".")
    assert len(secret) >= 43
    code, out, _ = run("key", "list")
    assert code == 0
    assert out.splitlines()[1].split()[:4] == [name, "the", "desk", "operator"]
    assert secret not in out
    assert run("key", "revoke", name)[0] == 0
    assert run("key", "list")[1].splitlines()[1].endswith("revoked")
    assert run("audit", "verify")[:2] == (0, "audit             2 entries, whole\n")


def test_a_wrong_key_request_is_one_message_and_code_2(run):
    for arguments, said in (
        (("issue", "x", "--role", "king"), "role"),
        (("issue", "x", "--role", "aggregator"), "needs a participant"),
        (("issue", "x", "--role", "aggregator", "--participant", "nobody"), "participant_id"),
        (("issue", "x", "--role", "auditor", "--scope", "bids:write"), "scopes"),
        (("issue", "x", "--role", "auditor", "--expires-at", "soon"), "expires_at"),
        (("revoke", "key_0"), "no such key"),
        (("revoke", "dlmp_key_0.secret"), "not its secret"),
    ):
        code, out, err = run("key", *arguments)
        assert (code, out) == (2, ""), arguments
        assert said in err
        assert "dlmp_key_0.secret" not in err


def test_an_audit_of_nothing_is_not_whole_but_an_error(run, tmp_path: Path):
    code, _, err = run("audit", "verify")
    assert code == 2
    assert "no database yet" in err
    assert not (tmp_path / "dlmp-data").exists()


def test_an_altered_row_makes_the_audit_exit_1_and_is_named(run, tmp_path: Path):
    run("key", "issue", "one", "--role", "auditor")
    with sqlite3.connect(tmp_path / "dlmp-data" / "dlmp.sqlite") as connection:
        connection.execute("UPDATE audit SET actor = 'somebody else'")
    connection.close()
    code, out, _ = run("audit", "verify")
    assert code == 1
    assert "- entry 1 (key.issue of key_" in out


def test_a_self_schedule_of_several_rows_is_their_sum(bidding, desk: Desk, tmp_path: Path):
    file = tmp_path / "bids.csv"
    rows = ("solar 13,0,supply,0,100.1,,1", "solar 13,0,supply,1,50.2,,1", "solar 13,0,supply,,9,5,0")
    file.write_text("\n".join([HEADER.strip() + ",is_self_scheduled", *rows, ""]))
    assert bidding("submit", file, "--market", desk.market.id)[0] == 0
    with desk.client() as client:
        terms = {one.product: one.terms for one in client.bids(desk.market.id)}
    assert terms["self_schedule"] == {"side": "supply", "quantity_kw": 150.3}
    assert [part["quantity_kw"] for part in terms["energy"]["segments"]] == [9.0]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("solar 13,0,supply,0,20,5,2", "is_self_scheduled = 2: must be 0 or 1"),
        ("solar 13,0,supply,0,20,,2", "is_self_scheduled = 2: must be 0 or 1"),
        ("solar 13,0,supply,0,20,5,1", "price_usd_per_mwh = 5.0: must be blank"),
        ("solar 13,0,supply,0,20,,0", "price_usd_per_mwh = nan: must not be blank"),
    ],
)
def test_what_is_self_scheduled_is_said_clearly_or_refused(bidding, desk: Desk, tmp_path: Path, row: str, said: str):
    file = tmp_path / "bids.csv"
    file.write_text(f"{HEADER.strip()},is_self_scheduled\n{row}\n")
    code, _, err = bidding("submit", file, "--market", desk.market.id)
    assert (code, len(err.splitlines())) == (2, 2)
    assert said in err


def test_more_bids_than_can_be_placed_all_or_none_are_refused_before_any_is_placed(bidding, desk: Desk, tmp_path: Path):
    names = ("feeder_id", "trade_date", "market_timezone", "gate_opens_at", "gate_closes_at")
    given = {name: getattr(desk.market, name) for name in names} | {"import_price_usd_per_mwh": [30.0]}
    market = desk.operator.add_market("minutes", interval_minutes=1, **given)
    file = write(tmp_path / "bids.csv", *(f"solar 13,{minute},supply,,1,5" for minute in range(1_001)))
    code, out, err = bidding("submit", file, "--market", market.id)
    assert (code, out) == (2, "")
    assert "bids = 1001: are more than the 1,000 that can be placed all or none" in err
    with desk.client() as client:
        assert client.bids(market.id) == []
        assert bidding("submit", file, "--market", market.id, "--per-item")[0] == 0
        assert len(client.bids(market.id)) == 1_001


def test_a_file_of_bids_is_placed_with_a_receipt(bidding, desk: Desk, tmp_path: Path):
    file = write(
        tmp_path / "bids.csv", "solar 13,,supply,0,300,10", "solar 13,,supply,1,200,20", "solar 24,7,supply,,50,5"
    )
    code, out, err = bidding("submit", file, "--market", desk.market.id)
    assert (code, err) == (0, "")
    assert "accepted          2 of 2 bids\n" in out
    assert "sub_" in out
    with desk.client() as client:
        stands = {one.resource_id: one for one in client.bids(desk.market.id)}
    whole, single = (stands[resource.id] for resource in desk.resources)
    assert [part["price_usd_per_mwh"] for part in whole.terms["segments"]] == [10.0, 20.0]
    assert (whole.interval_start, whole.interval_end) == (desk.market.starts_at, desk.market.ends_at)
    assert single.interval_start == desk.market.starts_at.replace("T00", "T07")


def test_tables_of_other_bids_are_placed_and_their_wrong_lines_told(bidding, desk: Desk, tmp_path: Path):
    market, resources = flexible(desk)
    one, two, three = (resource.name for resource in resources)
    texts = {
        "blocks.csv": "block,resource,side,first_interval,last_interval,quantity_kw,price_usd_per_mwh,exclusive_group\n"
        f"a,{one},supply,3,5,40,20,evening\nb,{one},supply,,,40,20,evening\nc,{one},demand,3,,500,20,\n",
        "reactive_bids.csv": "resource,interval,side,segment,quantity_kvar,price_usd_per_mvarh\n"
        f"{one},,inject,0,30,2\n{one},,inject,1,30,3\n{two},7,absorb,0,10,-1\n",
        "stores.csv": "resource,charge_max_kw,energy_max_kwh,initial_kwh,charge_efficiency\n"
        f"{two},90,300,20,0.9\n{three},90,300,,2\n",
        "store_profile.csv": f"resource,interval,charge_max_kw,energy_min_kwh\n{two},5,0,\n{two},9,,200\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    for name, accepted, wrong in (
        ("blocks.csv", "2 of 3", "blocks.csv line 4, quantity_kw: "),
        ("reactive_bids.csv", "1 of 2", "reactive_bids.csv lines 2 to 3, segments: "),
        ("stores.csv", "1 of 2", "stores.csv line 3, charge_efficiency: "),
    ):
        code, out, err = bidding("submit", tmp_path / name, "--market", market.id, "--per-item")
        assert code == 2, err
        assert f"accepted          {accepted} bids\n" in out
        assert [line.startswith(f"  - {wrong}") for line in err.splitlines()[1:]] == [True], err
    with desk.client() as client:
        stands = client.bids(market.id)
    whole, short = sorted(stands[:2], key=lambda bid: bid.interval_start)
    absorb, store = stands[2:]
    assert (short.interval_start[10:16], short.interval_end[10:16]) == ("T03:00", "T06:00")
    assert (whole.interval_start, whole.interval_end) == (market.starts_at, market.ends_at)
    assert {short.terms["exclusive_group"], whole.terms["exclusive_group"]} == {"evening"}
    assert (absorb.terms["side"], absorb.interval_start[10:16]) == ("absorb", "T07:00")
    assert store.terms["charge_max_kw"] == [90.0] * 5 + [0.0] + [90.0] * 18
    assert store.terms["energy_min_kwh"] == [0.0] * 9 + [200.0] + [0.0] * 14
    assert (store.terms["initial_kwh"], store.terms["energy_max_kwh"]) == (20.0, [300.0])
    (tmp_path / "store_profile.csv").write_text(f"resource,interval\n{two},24\nnobody,1\n{two},3\n{two},3\n")
    code, out, err = bidding("submit", tmp_path / "stores.csv", "--market", market.id)
    assert (code, out) == (2, "")
    assert {line.partition(", ")[0] for line in err.splitlines()[1:]} == {
        f"  - store_profile.csv line {number}" for number in (2, 3, 5)
    }


def test_every_line_that_the_service_refuses_is_told_and_nothing_is_placed(bidding, desk: Desk, tmp_path: Path):
    file = write(
        tmp_path / "bids.csv",
        "solar 13,0,supply,0,300,10",
        "solar 13,0,supply,1,100,99999",
        "solar 24,1,supply,0,5000,10",
        "solar 24,2,supply,0,50,10",
    )
    code, out, err = bidding("submit", file, "--market", desk.market.id)
    assert code == 2
    assert "accepted          0 of 3 bids" in out
    assert [line.partition(": ")[0] for line in err.splitlines()[1:]] == [
        "  - bids.csv line 3, price_usd_per_mwh",
        "  - bids.csv line 4, segments",
    ]
    code, out, err = bidding("submit", file, "--market", desk.market.id, "--per-item")
    assert code == 2
    assert "accepted          1 of 3 bids" in out
    assert len(err.splitlines()) == 3


def test_every_line_that_is_wrong_by_itself_is_told_before_anything_is_sent(bidding, desk: Desk, tmp_path: Path):
    file = write(
        tmp_path / "bids.csv",
        "solar 99,0,supply,0,300,10",
        "solar 13,24,supply,0,1,1",
        "solar 13,0,supply,0,1,",
        "solar 13,x,supply,0,y,1",
    )
    code, out, err = bidding("submit", file, "--market", desk.market.id)
    assert (code, out) == (2, "")
    told = [line.partition(" = ")[0].removeprefix("  - bids.csv ") for line in err.splitlines()[1:]]
    assert set(told) == {
        "line 2, resource",
        "line 3, interval",
        "line 4, price_usd_per_mwh",
        "line 5, interval",
        "line 5, quantity_kw",
    }


def test_a_submission_without_an_answer_is_sent_again_by_the_next_one(bidding, desk: Desk, tmp_path: Path, monkeypatch):
    file = write(tmp_path / "bids.csv", "solar 13,0,supply,0,300,10")
    other = write(tmp_path / "other.csv", "solar 13,1,supply,0,300,10")
    write_again = Client.submit

    def lose(client: Client, *arguments, **options):
        with monkeypatch.context() as patch:
            patch.setattr(client._transport._outbox, "answered", lambda *answer: None)
            return write_again(client, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Client, "submit", lose)
        bidding("submit", file, "--market", desk.market.id)
    code, _, err = bidding("submit", other, "--market", desk.market.id)
    assert code == 0
    assert "an earlier submission without an answer was sent again and stands as sub_" in err
    with desk.client() as client:
        assert len(client.bids(desk.market.id)) == 2


def test_no_key_and_no_service_are_one_message_and_code_5(run, desk: Desk, monkeypatch):
    code, out, err = run("statement", desk.market.id, "--url", desk.url)
    assert (code, out) == (5, "")
    assert "(no_key)" in err
    monkeypatch.setattr("dlmp.client.transport.time.sleep", lambda seconds: None)
    code, out, err = run("prices", desk.market.id, "--url", "http://127.0.0.1:1")
    assert (code, out, len(err.splitlines())) == (5, "", 1)


def test_a_key_file_that_cannot_be_read_is_bad_input(run, desk: Desk):
    assert run("prices", desk.market.id, "--url", desk.url, "--key-file", "nowhere")[0] == 2


def test_a_market_is_closed_cleared_and_published_and_a_run_of_an_open_one_is_refused(
    run, desk: Desk, server, tmp_path: Path
):
    operator = ("--url", desk.url, "--key-file", server.folder / "data" / "operator.key")
    code, _, err = run("run", desk.market.id, *operator)
    assert code == 5
    assert "(gate_not_closed)" in err
    code, out, _ = run("run", desk.market.id, "--close", "--publish", *operator)
    assert code == 0
    assert "succeeded" in out
    assert f"{desk.market.id}, published" in out


def test_a_market_is_settled_with_the_readings_of_a_file(run, desk: Desk, server, tmp_path: Path):
    operator = ("--url", desk.url, "--key-file", server.folder / "data" / "operator.key")
    market, resource = day_that_is_over(desk), desk.resources[0].id
    with desk.client() as client:
        client.submit(Bid(market.id, resource, "supply", [(300.0, 12.0)]))
    assert run("run", market.id, "--close", "--publish", *operator)[0] == 0
    path, line = tmp_path / "readings.csv", ",".join((resource, *hours(market, 1)))
    header = "resource_id,interval_start,interval_end,net_injection_kwh,q_kvarh\n"
    path.write_text(f"{header}{line},290,\n{line},x,\n")
    code, _, err = run("readings", market.id, path, *operator)
    assert code == 5
    assert "Line 3: " in err and "not_a_number" in err
    assert run("readings", market.id, "nowhere.csv", *operator)[0] == 2
    path.write_text(f"{header}{line},290,\n")
    for new in (1, 0):
        code, out, _ = run("readings", market.id, path, *operator)
        assert (code, out.split()) == (0, f"readings of 1 resources, new ones of {new}".split())
    code, out, _ = run("settle", market.id, *operator)
    assert code == 0
    assert "succeeded" in out and f"{market.id}, settled" in out
    code, _, err = run("settle", market.id, *operator)
    assert (code, "(reason_needed)" in err) == (5, True)
    with desk.client() as client:
        own = client.statements(market.id).set_index("product")
        assert own.quantity["energy_imbalance"] == pytest.approx(-10)
        assert own.quantity["deemed_as_awarded"] == 23


def test_prices_are_shown_for_every_hour_and_written_as_csv_and_parquet(run, published: Desk, tmp_path: Path):
    code, out, err = run("prices", published.market.id, "--url", published.url)
    assert (code, err) == (0, "")
    assert sum(line.strip()[2:6] == ":00 " for line in out.splitlines()) == 24
    run(
        "prices",
        published.market.id,
        "--url",
        published.url,
        "--csv",
        "p.csv",
        "--parquet",
        "p.parquet",
        "--version",
        1,
    )
    table = pd.read_csv(tmp_path / "p.csv", dtype={"bus": str, "phase": str})
    assert table.interval_start.iloc[0] == published.market.starts_at
    pd.testing.assert_series_equal(
        table.price_usd_per_mwh, pd.read_parquet(tmp_path / "p.parquet").price_usd_per_mwh, rtol=1e-12
    )


def test_a_statement_is_shown_with_its_total_and_written_to_the_cent(run, published: Desk, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("DLMP_KEY", published.key)
    code, out, err = run("statement", published.market.id, "--url", published.url, "--version", 1)
    assert (code, err) == (0, "")
    run("statement", published.market.id, "--url", published.url, "--csv", "s.csv", "--version", 1)
    amounts = [Decimal(text) for text in pd.read_csv(tmp_path / "s.csv", dtype=str).amount]
    total = next(line for line in out.splitlines() if "total" in line).split()[-1]
    assert Decimal(total.replace(",", "")) == sum(amounts) > 0


def test_help_names_every_command(run):
    code, out, _ = run("--help")
    assert code == 0
    for name in (
        "clear",
        "serve",
        "key",
        "audit",
        "submit",
        "run",
        "readings",
        "settle",
        "prices",
        "statement",
        "simulate",
    ):
        assert f"\n  {name} " in out or f" {name} " in out
