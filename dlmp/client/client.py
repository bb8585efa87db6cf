"""The client: a method for each thing that aggregators and operators do."""

import hashlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, Self

import httpx
import pandas as pd

from dlmp.client.bids import AnyBid
from dlmp.client.errors import ServiceError
from dlmp.client.outbox import Outbox, Request
from dlmp.client.records import (
    BidVersion,
    Delivery,
    Feeder,
    Key,
    Market,
    MaskedBid,
    Participant,
    ReadSeries,
    Receipt,
    Resent,
    Resource,
    Run,
    Webhook,
)
from dlmp.client.tables import readings_csv, readings_frame, table_of, with_amounts
from dlmp.client.transport import Transport, encoded

ATOMIC, PER_ITEM = "atomic", "per_item"
POLL_S = 0.5
Show = Callable[[Run], None]


class Client:
    """Client of a market service; may be used from several threads.

    Parameters
    ----------
    url
        Of the service, such as ``http://127.0.0.1:8000``.
    key
        API key; None reads what is public.
    outbox
        File in which bids are kept until they are answered; None keeps them in memory only.
    timeout_s
        Longest silence of the service [s].
    attempts
        How often a request is sent while the service is busy or not reached.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        outbox: str | PathLike[str] | None = None,
        timeout_s: float = 30.0,
        attempts: int = 8,
    ):
        kept = None if outbox is None else Outbox(outbox, str(httpx.URL(url)).rstrip("/"), _account(key or ""))
        self._transport = Transport(url, key, timeout_s, attempts, kept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close connections and outbox."""
        self._transport.close()

    def add_participant(self, name: str) -> Participant:
        """Register someone who trades."""
        return Participant.of(self._post("/v1/participants", {"name": name}))

    def participants(self) -> list[Participant]:
        """Everyone who trades."""
        return [Participant.of(item) for item in self._transport.items("/v1/participants")]

    def issue_key(self, name: str, role: str, participant_id: str | None = None) -> Key:
        """Issue an API key; the whole of it is in this answer only."""
        return Key.of(self._post("/v1/keys", {"name": name, "role": role, "participant_id": participant_id}))

    def add_feeder(self, name: str, *, shipped: str | None = None, files: Mapping[str, str] | None = None) -> Feeder:
        """Add a feeder that ships with dlmp, or one of the texts of its files; known content changes nothing."""
        content = {"shipped": shipped, "files": None if files is None else dict(files)}
        return Feeder.of(self._post("/v1/feeders", {"name": name, **_given(content)}))

    def feeders(self) -> list[Feeder]:
        """All versions of all feeders."""
        return [Feeder.of(item) for item in self._transport.items("/v1/feeders")]

    def add_resource(
        self, participant_id: str, feeder: str, name: str, bus: str, kind: str, *, phase: str = "", **limits: float
    ) -> Resource:
        """Register a DER at a node; `limits` are ``p_max_kw`` and so on, as `Resource` has them."""
        place = {"participant_id": participant_id, "feeder": feeder, "name": name, "bus": bus, "kind": kind}
        return Resource.of(self._post("/v1/resources", {**place, "phase": phase, **limits}))

    def resources(self, feeder: str | None = None) -> list[Resource]:
        """Your resources, or for an operator all of them."""
        return [Resource.of(item) for item in self._transport.items("/v1/resources", feeder=feeder)]

    def add_market(
        self,
        name: str,
        feeder_id: str,
        trade_date: str,
        *,
        market_timezone: str,
        gate_opens_at: str,
        gate_closes_at: str,
        import_price_usd_per_mwh: Sequence[float],
        **more: Any,
    ) -> Market:
        """Register a market of a day; `more` are the other fields of the API's markets."""
        body = {
            "name": name,
            "feeder_id": feeder_id,
            "trade_date": trade_date,
            "market_timezone": market_timezone,
            "gate_opens_at": gate_opens_at,
            "gate_closes_at": gate_closes_at,
            "import_price_usd_per_mwh": list(import_price_usd_per_mwh),
        }
        return Market.of(self._post("/v1/markets", body | more))

    def markets(self, trade_date: str | None = None) -> list[Market]:
        """All markets, or those of a day."""
        return [Market.of(item) for item in self._transport.items("/v1/markets", trade_date=trade_date)]

    def market(self, market_id: str) -> Market:
        """A market and its state now."""
        return Market.of(self._transport.read(f"/v1/markets/{market_id}").json())

    def open_gate(self, market_id: str) -> Market:
        """Open a gate before its time."""
        return Market.of(self._post(f"/v1/markets/{market_id}/open"))

    def close_gate(self, market_id: str) -> Market:
        """Close a gate before its time."""
        return Market.of(self._post(f"/v1/markets/{market_id}/close"))

    def submit(
        self, bids: AnyBid | Sequence[AnyBid], *, mode: str = ATOMIC, idempotency_key: str | None = None
    ) -> Receipt:
        """Place a bid, or many of one market at once.

        Parameters
        ----------
        bids
            One bid, or up to 1,000.
        mode
            For many: ``atomic``, all or none, or ``per_item``, each on its own.
        idempotency_key
            Your own name for this submission; left out, a random one.

        Raises
        ------
        ContentError, ConflictError
            When the bids are refused: with every fault; when the gate is not open.
        NoAnswerError, BusyError
            When it is not known whether the bids stand: `resend` finds out.
        """
        if not isinstance(bids, Sequence):
            return self._once("POST", "/v1/bids", self._bodies([bids])[0], idempotency_key)
        body = {"mode": mode, "bids": self._bodies(bids)}
        return self._once("POST", "/v1/bids/batch", body, idempotency_key)

    def amend(self, was: BidVersion, bid: AnyBid, *, idempotency_key: str | None = None) -> Receipt:
        """Put `bid` in place of `was`, the newest version; raises `OutOfDateError` when somebody was faster."""
        path, body = f"/v1/bids/{was.id}", self._bodies([bid])[0]
        return self._once("PUT", path, body, idempotency_key, {"If-Match": was.etag})

    def withdraw(self, was: BidVersion, *, idempotency_key: str | None = None) -> Receipt:
        """Withdraw the bid whose newest version is `was`; raises `OutOfDateError` when somebody was faster."""
        return self._once("DELETE", f"/v1/bids/{was.id}", None, idempotency_key, {"If-Match": was.etag})

    def bid(self, bid_id: str) -> BidVersion:
        """Newest version of a bid."""
        response = self._transport.read(f"/v1/bids/{bid_id}")
        return BidVersion.of(response.json() | {"etag": response.headers["ETag"]})

    def bids(self, market_id: str | None = None, state: str | None = None) -> list[BidVersion]:
        """Every version of your bids, in the order of their acceptance."""
        found = self._transport.items("/v1/bids", market_id=market_id, state=state, limit=1_000)
        return [BidVersion.of(item) for item in found]

    def history(self, bid_id: str) -> list[BidVersion]:
        """Every version of a bid, the first one first."""
        return [BidVersion.of(item) for item in self._transport.items(f"/v1/bids/{bid_id}/history")]

    def resend(self) -> list[Resent]:
        """Send again what the outbox has no answer for, as after a crash; each is carried out once."""
        resent = []
        for request in self._transport.unanswered():
            try:
                receipt = _receipt(self._transport.write_again(request))
            except ServiceError as error:
                resent.append(Resent(request.idempotency_key, None, error))
            else:
                resent.append(Resent(request.idempotency_key, receipt, None))
        return resent

    def request_run(self, market_id: str, **settings: Any) -> Run:
        """Queue the clearing of a closed market, or get the one under way; `settings` as in the API's runs."""
        return Run.of(self._post(f"/v1/markets/{market_id}/runs", settings))

    def run(self, market_id: str, show: Show | None = None, **settings: Any) -> Run:
        """Clear a closed market and wait for it; `show` is called with the run whenever it has moved.

        The state of the run that is returned says whether it has succeeded.
        """
        return self.follow(self.request_run(market_id, **settings), show)

    def follow(self, run: Run, show: Show | None = None) -> Run:
        """Wait until a run has ended, over broken connections and restarts of the service."""
        while run.is_under_way:
            for event in self._transport.events(f"/v1/runs/{run.id}/events"):
                run = Run.of(event)
                if show is not None:
                    show(run)
            if run.is_under_way:
                time.sleep(POLL_S)
                run = Run.of(self._transport.read(f"/v1/runs/{run.id}").json())
        return run

    def cancel(self, run_id: str) -> Run:
        """Cancel a run that has not ended."""
        return Run.of(self._post(f"/v1/runs/{run_id}/cancel"))

    def publish(self, market_id: str) -> Market:
        """Publish prices, awards and statements of the newest run."""
        return Market.of(self._post(f"/v1/markets/{market_id}/publish"))

    def add_readings(self, market_id: str, readings: pd.DataFrame | bytes) -> list[ReadSeries]:
        """Post what meters have shown, all or none; readings that are there already change nothing.

        Parameters
        ----------
        market_id
            A market whose gate is closed.
        readings
            Rows ``resource_id, interval_start, interval_end, net_injection_kwh``, positive into the grid, and where
            metered ``q_kvarh``; or such a table as CSV.

        Raises
        ------
        ContentError, ConflictError
            With every reading that is wrong, by its line in the CSV; when the gate is not closed.
        """
        table = readings if isinstance(readings, bytes) else readings_csv(readings)
        receipt = self._transport.write_table(f"/v1/markets/{market_id}/readings/csv", table).json()
        return [ReadSeries.of(item) for item in receipt["items"]]

    def readings(self, market_id: str, resource_id: str | None = None, *, all_versions: bool = False) -> pd.DataFrame:
        """Readings of your resources, or for an operator of all.

        Returns
        -------
        Rows ``resource_id, resource, version, is_current, interval_start, net_injection_kwh, q_kvarh``; ``q_kvarh`` is
        NaN where none was metered.
        """
        market = self.market(market_id)
        query = {"resource_id": resource_id, "all_versions": True if all_versions else None}
        series = self._transport.items(f"/v1/markets/{market_id}/readings", **query)
        return readings_frame(series, market.starts_at, market.interval_minutes)

    def request_settlement(
        self, market_id: str, *, real_time_market_id: str | None = None, correction_reason: str | None = None
    ) -> Run:
        """Queue the settlement of a published market with the readings that there are, or get the same one under way.

        Parameters
        ----------
        market_id
            The market.
        real_time_market_id
            At whose prices deviations are settled; None is that of the settlement before, and at first the market's own
            prices.
        correction_reason
            Why a settled market is settled again.
        """
        terms = {"real_time_market_id": real_time_market_id, "correction_reason": correction_reason}
        return Run.of(self._post(f"/v1/markets/{market_id}/settle", _given(terms)))

    def settle(self, market_id: str, show: Show | None = None, **terms: str | None) -> Run:
        """Settle a published market, and wait for its final statements; `terms` are those of `request_settlement`.

        The state of the run that is returned says whether the market is settled.
        """
        return self.follow(self.request_settlement(market_id, **terms), show)

    def add_webhook(
        self, url: str, events: Sequence[str], *, market_id: str | None = None, feeder: str | None = None
    ) -> Webhook:
        """Register an https address that is told of `events`, all of them or those of a market or of a feeder."""
        place = _given({"market_id": market_id, "feeder": feeder})
        return Webhook.of(self._post("/v1/webhooks", {"url": url, "events": list(events)} | place))

    def webhooks(self) -> list[Webhook]:
        """Your webhooks, or for an operator those of the operators."""
        return [Webhook.of(item) for item in self._transport.items("/v1/webhooks")]

    def delete_webhook(self, webhook_id: str) -> None:
        """Delete a webhook: what waits for it is not sent any more."""
        self._transport.write("DELETE", f"/v1/webhooks/{webhook_id}")

    def ping(self, webhook_id: str) -> Delivery:
        """Send a ``ping`` to a webhook, once; `deliveries` tells what became of it."""
        return Delivery.of(self._post(f"/v1/webhooks/{webhook_id}/ping"))

    def deliveries(self, webhook_id: str) -> list[Delivery]:
        """What a webhook was told in the last 30 days, the newest first."""
        return [Delivery.of(item) for item in self._transport.items(f"/v1/webhooks/{webhook_id}/deliveries")]

    def prices(self, market_id: str, version: int | None = None, bus: str | None = None) -> pd.DataFrame:
        """Prices of all nodes and intervals with their parts; the newest version, or `version`."""
        return self._table(f"/v1/markets/{market_id}/prices", price_version=version, bus=bus)

    def limits(self, market_id: str, version: int | None = None) -> pd.DataFrame:
        """Limits that bind."""
        return self._table(f"/v1/markets/{market_id}/limits", price_version=version)

    def broken_limits(self, market_id: str, version: int | None = None) -> pd.DataFrame:
        """Limits that are broken because that costs less than to keep them: what makes scarcity."""
        return self._table(f"/v1/markets/{market_id}/broken-limits", price_version=version)

    def price_shares(
        self, market_id: str, version: int | None = None, bus: str | None = None, interval_start: str | None = None
    ) -> pd.DataFrame:
        """What makes each price: the share of each binding element, which add up to it."""
        path = f"/v1/markets/{market_id}/price-shares"
        return self._table(path, price_version=version, bus=bus, interval_start=interval_start)

    def awards(self, market_id: str, version: int | None = None, of: str = "resources") -> pd.DataFrame:
        """What your resources were awarded, or for an operator all.

        `of` is ``resources``, whose net injection it is, or what of their bids: ``segments``, ``reactive_segments``,
        ``blocks``, ``stores`` or ``services``.
        """
        return self._table(f"/v1/markets/{market_id}/awards", price_version=version, of=of)

    def masked_bids(self, market_id: str) -> list[MaskedBid]:
        """All bids of a market under pseudonyms, from its `bids_public_at` on; `NotFoundError` before."""
        return [MaskedBid.of(item) for item in self._transport.items(f"/v1/markets/{market_id}/bids")]

    def statements(self, market_id: str, version: int | None = None) -> pd.DataFrame:
        """Your statement, or for an operator all; amounts are `decimal.Decimal` and add up to whole cents."""
        return self._table(f"/v1/markets/{market_id}/statements", price_version=version)

    def statement_delta(self, market_id: str, version: int | None = None) -> pd.DataFrame:
        """By what a correction changes your statement."""
        path = f"/v1/markets/{market_id}/statements/delta"
        return with_amounts(pd.DataFrame(self._transport.items(path, price_version=version)))

    def _table(self, path: str, **query: Any) -> pd.DataFrame:
        return table_of(self._transport.read(path, format="parquet", **query).content)

    def _post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        document: dict[str, Any] = self._transport.write("POST", path, body).json()
        return document

    def _once(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        idempotency_key: str | None,
        headers: Mapping[str, str] | None = None,
    ) -> Receipt:
        name = idempotency_key or str(uuid.uuid4())
        content = b"" if body is None else encoded(body)
        return _receipt(self._transport.write_once(Request(name, method, path, headers or {}, content)))

    def _bodies(self, bids: Sequence[AnyBid]) -> list[dict[str, Any]]:
        """Bodies of bids; those without times are of the whole day of their market."""
        wanted = {bid.market_id for bid in bids if bid.interval_start is None or bid.interval_end is None}
        days = {market_id: self.market(market_id) for market_id in wanted}
        bodies = []
        for bid in bids:
            body = bid.body()
            if bid.market_id in days:
                day = days[bid.market_id]
                body["interval_start"] = bid.interval_start or day.starts_at
                body["interval_end"] = bid.interval_end or day.ends_at
            bodies.append(body)
        return bodies


def _account(key: str) -> str:
    """Name of an API key, without its secret; of another token a hash."""
    name, dot, _ = key.removeprefix("dlmp_").partition(".")
    return name if key.startswith("dlmp_") and dot else hashlib.sha256(key.encode()).hexdigest()


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _receipt(response: httpx.Response) -> Receipt:
    return Receipt.of(response.json(), response.headers.get("Idempotent-Replay") == "true")
