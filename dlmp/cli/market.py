"""A market through its service: ``dlmp submit``, ``run``, ``readings``, ``settle``, ``prices`` and ``statement``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from dlmp.cli.markettables import price_summary, statement_summary
from dlmp.cli.terminal import new_app, print_rows, progress, stdout
from dlmp.client import Client, Market, Receipt, RefusedError, Run
from dlmp.client.bidfile import BidFile, read_bids
from dlmp.client.client import ATOMIC, PER_ITEM
from dlmp.client.errors import Fault
from dlmp.client.tables import TIME_FORMAT
from dlmp.errors import InputError, Problem

MOST_BIDS = 1_000
REFUSED_CODE, FAILED_CODE = 2, 4
SUCCEEDED = "succeeded"

app = new_app()
Url = Annotated[str, typer.Option(envvar="DLMP_URL", metavar="URL", help="Address of the service.")]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", metavar="FILE", help="File that holds the API key; left out: the variable DLMP_KEY."),
]
KeyVariable = Annotated[str | None, typer.Option("--key", envvar="DLMP_KEY", hidden=True)]
MarketArgument = Annotated[str, typer.Argument(metavar="MARKET", help="Name of the market, mkt_ and 24 digits.")]
DEFAULT_URL = "http://127.0.0.1:8000"


@app.command("submit")
def submit_command(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="Bids, blocks or stores as in a case folder.")],
    market: Annotated[
        str | None, typer.Option(metavar="MARKET", help="Market; left out: the only one that is open.")
    ] = None,
    per_item: Annotated[
        bool, typer.Option("--per-item", help="Place the good bids though others are refused.")
    ] = False,
    outbox: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="DLMP_OUTBOX", help="Where bids are kept until they are answered."),
    ] = None,
    url: Url = DEFAULT_URL,
    key_file: KeyFile = None,
    key: KeyVariable = None,
) -> None:
    """Place the bids of a file, up to 1,000 all or none; every line that is wrong is told."""
    kept = outbox or Path(typer.get_app_dir("dlmp")) / "outbox.sqlite"
    with _client(url, key_file, key, kept) as client:
        for resent in client.resend():
            told = f"stands as {resent.receipt.submission_id}" if resent.receipt else f"was refused: {resent.error}"
            typer.echo(f"dlmp: an earlier submission without an answer was sent again and {told}", err=True)
        chosen = client.market(market) if market else _open_market(client)
        bids = read_bids(file, chosen, client.resources(chosen.feeder))
        if not per_item and len(bids.bids) > MOST_BIDS:
            message = f"are more than the {MOST_BIDS:,} that can be placed all or none: divide them, or give --per-item"
            raise InputError([Problem(file.name, "bids", len(bids.bids), message)])
        accepted, faults = _submit(client, bids, PER_ITEM if per_item else ATOMIC)
    receipts = ", ".join(f"{receipt.submission_id} at {receipt.received_at}" for receipt in accepted)
    count = sum(len(receipt.bid_ids) for receipt in accepted)
    print_rows(
        [
            ("market", f"{chosen.id}, {chosen.name} of {chosen.trade_date}"),
            ("accepted", f"{count} of {len(bids.bids)} bids"),
            ("receipt", receipts or "none"),
        ]
    )
    if faults:
        raise _RefusedBidsError(faults)


class _RefusedBidsError(InputError):
    """Lines of a file that the service refuses."""

    def __init__(self, faults: list[str]):
        Exception.__init__(self, "\n".join(["these bids are refused:", *(f"  - {fault}" for fault in faults)]))


def _open_market(client: Client) -> Market:
    is_open = [market for market in client.markets() if market.state == "open"]
    if len(is_open) == 1:
        return is_open[0]
    known = ", ".join(f"{market.id} ({market.name} of {market.trade_date})" for market in is_open) or "none"
    raise InputError([Problem("submit", "market", None, f"name one that is open: {known}")])


def _submit(client: Client, file: BidFile, mode: str) -> tuple[list[Receipt], list[str]]:
    """Place all bids of a file; return the receipts, and what is wrong in which line."""
    receipts, faults = [], []
    numbers = iter(range(len(file.bids)))
    while group := list(islice(numbers, MOST_BIDS)):
        try:
            receipt = client.submit([file.bids[number] for number in group], mode=mode)
        except RefusedError as refused:
            if not refused.faults:
                raise
            faults += [line for fault in refused.faults for line in _told(file, group[0], fault)]
            continue
        receipts.append(receipt)
        for number, outcome in zip(group, receipt.outcomes, strict=True):
            faults += file.told(number, outcome.faults)
    return receipts, faults


def _told(file: BidFile, first: int, fault: Fault) -> list[str]:
    """Tell of a fault whose pointer begins with ``/bids/N``."""
    _, bids, number, *rest = [*fault.pointer.split("/"), "", ""]
    if bids != "bids" or not number.isdecimal():
        return [str(fault)]
    pointer = "/".join(part for part in rest if part)
    return file.told(first + int(number), [Fault(f"/{pointer}" if pointer else "", fault.code, fault.detail)])


@app.command("run")
def run_command(
    market: MarketArgument,
    close: Annotated[bool, typer.Option("--close", help="Close the gate first, before its time.")] = False,
    publish: Annotated[bool, typer.Option("--publish", help="Publish what is cleared.")] = False,
    hard: Annotated[bool, typer.Option("--hard", help="Refuse a day on which not all limits can be kept.")] = False,
    correction: Annotated[
        str | None, typer.Option(metavar="REASON", help="Why a published market is cleared again.")
    ] = None,
    url: Url = DEFAULT_URL,
    key_file: KeyFile = None,
    key: KeyVariable = None,
) -> None:
    """Clear a closed market and wait for it; exit code 4 when the run fails."""
    settings = {"limits": "hard" if hard else "soft"} | ({"correction_reason": correction} if correction else {})
    with _client(url, key_file, key) as client, progress(quiet=False) as show:
        if close:
            client.close_gate(market)
        run = client.run(market, _shown(show), **settings)
        if run.state == SUCCEEDED and publish:
            client.publish(market)
        found = client.market(market)
    _tell(run, found)


@app.command("readings")
def readings_command(
    market: MarketArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="Readings, with the columns of the guide.")],
    url: Url = DEFAULT_URL,
    key_file: KeyFile = None,
    key: KeyVariable = None,
) -> None:
    """Post the meter readings of a file, all or none; what is there already changes nothing."""
    try:
        table = file.read_bytes()
    except OSError as error:
        raise InputError([Problem("readings", "file", str(file), f"cannot be read ({error.strerror})")]) from None
    with _client(url, key_file, key) as client:
        series = client.add_readings(market, table)
    new = [one for one in series if one.is_new]
    print_rows([("readings", f"of {len(series)} resources, new ones of {len(new)}")])


@app.command("settle")
def settle_command(
    market: MarketArgument,
    real_time: Annotated[
        str | None,
        typer.Option(
            metavar="MARKET",
            help="At whose prices deviations are settled; left out: as before, at first the market's own.",
        ),
    ] = None,
    correction: Annotated[
        str | None, typer.Option(metavar="REASON", help="Why a settled market is settled again.")
    ] = None,
    url: Url = DEFAULT_URL,
    key_file: KeyFile = None,
    key: KeyVariable = None,
) -> None:
    """Settle a published market with the readings that there are; exit code 4 when the run fails."""
    with _client(url, key_file, key) as client, progress(quiet=False) as show:
        run = client.settle(market, _shown(show), real_time_market_id=real_time, correction_reason=correction)
        found = client.market(market)
    _tell(run, found)


def _shown(show: Callable[[str], None]) -> Callable[[Run], None]:
    return lambda run: show(f"run {run.number}: {run.progress['text']}")


def _tell(run: Run, market: Market) -> None:
    """Print how a run ended; the exit code is `FAILED_CODE` where it failed."""
    print_rows([("run", f"{run.id}, {run.state}"), *_summary(run), ("market", f"{market.id}, {market.state}")])
    if run.state != SUCCEEDED:
        raise typer.Exit(FAILED_CODE)


def _summary(run: Run) -> list[tuple[str, str]]:
    if run.summary is None:
        return [("reason", run.reason)]
    return [("total cost", f"{run.summary['objective']:,.2f}"), ("input", f"SHA-256 {run.snapshot_sha256}")]


@app.command("prices")
def prices_command(
    market: MarketArgument,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="OUT", help="Write them as CSV.")] = None,
    parquet: Annotated[Path | None, typer.Option("--parquet", metavar="OUT", help="Write them as Parquet.")] = None,
    version: Annotated[int | None, typer.Option(metavar="N", help="Version; left out: the newest.")] = None,
    url: Url = DEFAULT_URL,
    key_file: KeyFile = None,
    key: KeyVariable = None,
) -> None:
    """Show the published prices of a market, or write them to a file."""
    with _client(url, key_file, key) as client:
        prices, of = client.prices(market, version), client.market(market)
    with _writing(csv or parquet):
        if csv is not None:
            prices.to_csv(csv, index=False, date_format=TIME_FORMAT)
        if parquet is not None:
            prices.to_parquet(parquet, index=False)
    if csv is None and parquet is None:
        stdout().print(price_summary(prices, of))


@app.command("statement")
def statement_command(
    market: MarketArgument,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="OUT", help="Write it as CSV.")] = None,
    version: Annotated[int | None, typer.Option(metavar="N", help="Version; left out: the newest.")] = None,
    url: Url = DEFAULT_URL,
    key_file: KeyFile = None,
    key: KeyVariable = None,
) -> None:
    """Show your statement of a market, or write it to a file; an operator's has those of all."""
    with _client(url, key_file, key) as client:
        statements, of = client.statements(market, version), client.market(market)
    if csv is None:
        stdout().print(statement_summary(statements, {}, of.currency))
        return
    with _writing(csv):
        statements.to_csv(csv, index=False)


@contextmanager
def _writing(path: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError([Problem("output", "file", str(path), f"cannot be written ({error.strerror})")]) from None


def _client(url: str, key_file: Path | None, key: str | None, outbox: Path | None = None) -> Client:
    if key_file is not None:
        try:
            key = key_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise InputError([Problem("key", "file", str(key_file), "cannot be read")]) from None
    return Client(url, key, outbox=outbox)
