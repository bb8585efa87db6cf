"""Fixtures of a service that listens, and of a cleared market, which all tests share."""

from collections.abc import Iterator

import pytest
from servers import Desk, Server, open_desk, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    """A service that all tests share."""
    with serving(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def desk(server: Server) -> Iterator[Desk]:
    found = open_desk(server)
    yield found
    found.operator.close()


@pytest.fixture(scope="session")
def published(server: Server) -> Iterator[Desk]:
    """A market with a bid of 300 kW in all hours, cleared and published."""
    found = open_desk(server)
    with found.client() as client:
        client.submit(found.bid(interval=None))
    found.operator.close_gate(found.market.id)
    run = found.operator.run(found.market.id)
    assert run.state == "succeeded", run.reason
    found.operator.publish(found.market.id)
    yield found
    found.operator.close()
