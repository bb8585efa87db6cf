"""Where webhooks may lead: to public addresses by TLS, and nowhere else (server-side request forgery, OWASP).

The name of a receiver is looked up when its webhook is registered and again at every attempt; the connection goes to
the very address that was looked at, so that a name that changes in between leads nowhere.  Redirects are not followed,
no proxy of the environment is used, and of an answer nothing but its status is read.
"""

import asyncio
import socket
import ssl
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import httpcore
import httpx

from api.errors import Fault, Unprocessable
from api.settings import ServiceSettings

MOST_LOOKUPS = 64
"""Names that are looked up at once: a server of names that does not answer holds a thread."""
PUBLIC_IPV6 = ip_network("2000::/3")
"""Beyond it are loopback, link-local, unique local, multicast, mapped and translated (NAT64) addresses."""
NOT_PUBLIC = tuple(
    ip_network(one)
    for one in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
        *("192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        *("224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),
        *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
    )
)
"""What is not globally reachable (IANA's special-purpose registries), tunnels to it (Teredo, 6to4), multicast, and the
one public address at which a cloud (Azure) serves metadata."""


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address belongs to somebody on the internet."""
    if isinstance(address, IPv6Address) and address not in PUBLIC_IPV6:
        return False
    return not any(address in network for network in NOT_PUBLIC)


class Destinations(httpcore.AsyncNetworkBackend):
    """Checks where a webhook leads, and sends there.

    As the network of a connection it looks the name up and connects to what it has checked; the name stays in the
    certificate's check and in the header ``Host``.
    """

    def __init__(self, settings: ServiceSettings):
        self._allowed, self._allow_http = settings.allowed_networks, settings.webhook_allow_http
        self._timeout_s = settings.webhook_timeout_s
        self._network = httpcore.AnyIOBackend()
        self._threads = ThreadPoolExecutor(MOST_LOOKUPS, "resolver")

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return httpx.create_ssl_context()

    def close(self) -> None:
        """Look nothing up any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def check(self, url: str) -> None:
        """Raise `Unprocessable` where `url` may not be sent to."""
        target = self._parsed(url)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._addresses(target.raw_host.decode("ascii"), target.port or 443)
        except TimeoutError:
            raise _not_allowed() from None

    async def post(self, url: str, headers: Mapping[str, str], content: bytes) -> int:
        """Send `content`; return the status of the answer.

        Raises
        ------
        Unprocessable
            When the URL leads to where nothing may be sent.
        TimeoutError
            When all of it takes too long.
        httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError
            When there is no connection, or the answer is no HTTP.
        """
        target, tls = self._parsed(url), self._tls
        address = httpcore.URL(scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path)
        whole = [(b"Host", target.netloc), *((name.encode(), value.encode()) for name, value in headers.items())]
        async with (
            asyncio.timeout(self._timeout_s),
            httpcore.AsyncConnectionPool(ssl_context=tls, network_backend=self) as pool,
            pool.stream("POST", address, headers=whole, content=content) as response,
        ):
            return response.status

    def _parsed(self, url: str) -> httpx.URL:
        """Read a URL as it is sent to."""
        try:
            target = httpx.URL(url)
        except httpx.InvalidURL:
            raise _no_url() from None
        schemes = ("https", "http") if self._allow_http else ("https",)
        is_port = target.port is None or 0 < target.port < 2**16
        if target.scheme not in schemes or not target.raw_host or not is_port or target.userinfo or target.fragment:
            raise _no_url()
        return target

    async def _addresses(self, host: str, port: int) -> list[str]:
        """Look a host up; all of its addresses must be ones that may be sent to."""
        lookup = asyncio.get_running_loop().run_in_executor
        try:
            found: Iterable[Any] = await lookup(self._threads, _looked_up, host, port)
        except (OSError, UnicodeError):
            raise _not_allowed() from None
        addresses = [str(one[4][0]) for one in found]
        if not addresses or not all(self._is_allowed(ip_address(address)) for address in addresses):
            raise _not_allowed()
        return addresses

    def _is_allowed(self, address: IPv4Address | IPv6Address) -> bool:
        return is_public(address) or any(address in network for network in self._allowed)

    async def connect_tcp(self, host: str, port: int, *rest: Any, **more: Any) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of `host` that answers."""
        failed: Exception | None = None
        for address in await self._addresses(host, port):
            try:
                return await self._network.connect_tcp(address, port, *rest, **more)
            except httpcore.ConnectError as error:
                failed = error
        assert failed is not None
        raise failed


def _looked_up(host: str, port: int) -> list[Any]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _no_url() -> Unprocessable:
    detail = "Must be an https URL with a host, without a user, a password or a fragment."
    return Unprocessable([Fault("/url", "url_not_allowed", detail)])


def _not_allowed() -> Unprocessable:
    detail = "The host of the URL must be known, and every address of it public."
    return Unprocessable([Fault("/url", "host_not_allowed", detail)])
