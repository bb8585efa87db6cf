"""Streams of events: so many of a caller, so long, as long as the key works, and one reading for all who follow."""

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
from servers import open_desk, serving

from api.streams import Streams
from dlmp.client import Client


def test_streams_are_limited_in_number_and_time_and_end_with_their_key(tmp_path: Path):
    with serving(tmp_path, DLMP_MAX_STREAMS="2", DLMP_STREAM_S="6", DLMP_RUNS_HERE="false") as server:
        desk = open_desk(server)
        path = f"{server.url}/v1/markets/{desk.market.id}/events"
        with ExitStack() as streams, httpx.Client(timeout=20) as http, Client(server.url, server.key) as operator:

            def follow(**headers: str) -> httpx.Response:
                return streams.enter_context(http.stream("GET", path, headers=headers))

            began = time.monotonic()
            anonymous = [follow() for _ in range(2)]
            refused = follow()
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")
            auditor = operator.issue_key("auditor", "auditor")
            own = follow(Authorization=f"Bearer {auditor.key}")
            assert [one.status_code for one in (*anonymous, own)] == [200] * 3
            operator._transport._send("DELETE", f"/v1/keys/{auditor.id}", may_repeat=False)
            assert own.read().startswith(b"event: open")
            assert time.monotonic() - began < 5, "the stream of a revoked key went on"
            for one in anonymous:
                assert one.read().startswith(b"event: open")
            assert 5 < time.monotonic() - began < 15
            assert follow().status_code == 200, "a stream that has ended counts no more"
        desk.operator.close()


def test_what_many_follow_is_read_once():
    reads = []

    async def follow() -> list[dict]:
        streams = Streams(most=100)
        with ExitStack() as counted:
            for number in range(100):
                counted.enter_context(streams.of(f"key {number}", "market"))
            first = await asyncio.gather(
                *(streams.latest("market", lambda: {"n": reads.append(1)}) for _ in range(100))
            )
            await asyncio.sleep(0.6)
            await asyncio.gather(*(streams.latest("market", lambda: {"n": reads.append(1)}) for _ in range(100)))
        return first

    assert asyncio.run(follow()) == [{"n": None}] * 100
    assert len(reads) == 2
