"""Where webhooks may lead: never to an address that is not public, whatever a name, a redirect or a proxy says."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network

import httpcore
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from receivers import receiving

from api.destinations import Destinations, is_public
from api.errors import Unprocessable
from api.settings import ServiceSettings

NOT_PUBLIC = {
    "unspecified": ("0.0.0.0", "0.1.2.3", "::"),
    "loopback": ("127.0.0.1", "127.255.255.254", "::1"),
    "private": ("10.0.0.1", "172.16.0.1", "172.31.255.254", "192.168.1.1", "fc00::1", "fdff::1", "fec0::1"),
    "link-local": ("169.254.0.1", "fe80::1", "fe80::1%1", "febf::1"),
    "metadata": ("169.254.169.254", "169.254.170.2", "fd00:ec2::254", "100.100.100.200", "168.63.129.16"),
    "shared": ("100.64.0.1", "100.127.255.254"),
    "multicast": ("224.0.0.1", "239.255.255.250", "ff02::1", "ff0e::1"),
    "reserved": ("240.0.0.1", "255.255.255.255", "192.0.0.8", "198.18.0.1", "198.19.255.254", "4000::1", "e000::1"),
    "documentation": ("192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"),
    "mapped from IPv4": ("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1", "::127.0.0.1"),
    "translated from IPv4": ("64:ff9b::7f00:1", "64:ff9b:1::1", "64:ff9b::808:808"),
    "tunnels": ("2002:7f00:1::1", "2001:0:7f00:1::1", "2001:10::1", "192.88.99.1", "5f00::1", "100::1"),
}
PUBLIC = ("8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.167.0.1", "9.9.9.9")
PUBLIC += ("11.0.0.1", "126.0.0.1", "128.0.0.1", "169.253.0.1", "169.255.0.1", "198.17.0.1", "198.20.0.1", "223.1.1.1")
PUBLIC += ("2606:4700::1111", "2001:4860:4860::8888", "2a00:1450::1", "2003::1", "2001:200::1", "3ffe::1")
REFUSED = [(kind, one) for kind, addresses in NOT_PUBLIC.items() for one in addresses]


def destinations(**settings: object) -> Destinations:
    return Destinations(ServiceSettings(**{"webhook_timeout_s": 2.0} | settings))


LOCAL = {"webhook_allow_http": True, "webhook_allowed_networks": "127.0.0.1"}


def posted(own: Destinations, url: str) -> int:
    return asyncio.run(own.post(url, {"X-Mark": "1"}, b"{}"))


def refusal(own: Destinations, url: str) -> str:
    """Code with which a URL is refused, the same when it is registered and when it is sent to."""
    codes = []
    for attempt in (own.check(url), own.post(url, {}, b"{}")):
        with pytest.raises(Unprocessable) as refused:
            asyncio.run(attempt)
        (fault,) = refused.value.faults
        assert fault.pointer == "/url"
        codes.append(fault.code)
    assert codes[0] == codes[1]
    return codes[0]


class Names:
    """Answers of the resolver: lists of addresses for a host, one after another, the last one for ever."""

    def __init__(self) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []

    def look_up(self, host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        self.asked.append(host)
        if host not in self.answers:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        answers = self.answers[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            (
                socket.AF_INET6 if ":" in one else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (one, port, *((0, 0) if ":" in one else ())),
            )
            for one in found
        ]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    own = Names()
    monkeypatch.setattr(socket, "getaddrinfo", own.look_up)
    return own


@pytest.mark.parametrize(("kind", "address"), REFUSED)
def test_an_address_that_is_not_public_is_refused(kind: str, address: str, names: Names):
    assert not is_public(ip_address(address)), kind
    own = destinations()
    names.answers["receiver.example"] = [[address]]
    assert refusal(own, "https://receiver.example/") == "host_not_allowed"
    names.answers["receiver.example"] = [["8.8.8.8", address]]  # one such among others is enough
    assert refusal(own, "https://receiver.example:8443/x") == "host_not_allowed"


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_not_refused(address: str, names: Names):
    assert is_public(ip_address(address))
    names.answers["receiver.example"] = [[address]]
    asyncio.run(destinations().check("https://receiver.example/"))


def test_what_python_knows_as_not_global_is_refused():
    """The lists of Python's own, which grow with its versions, hold nothing that we let pass."""
    for network in (*ip_network("0.0.0.0/0").subnets(new_prefix=12), *ip_network("2000::/3").subnets(new_prefix=16)):
        for address in (network[0], network[1], network[-1]):
            assert not is_public(address) or (address.is_global and not address.is_multicast), address


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "localhost.", "LOCALHOST", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "0", "127.1"),
        *("2130706433", "0x7f000001", "017700000001", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "169.254.169.254"),
    ],
)
def test_another_way_to_write_such_an_address_is_refused_by_the_real_resolver(host: str):
    assert refusal(destinations(), f"https://{host}/") == "host_not_allowed"


@pytest.mark.parametrize(
    "url",
    [
        *("http://receiver.example/", "https://", "https:///path", "https://user@receiver.example/"),
        *("https://user:secret@receiver.example/", "https://receiver.example/#part", "https://receiver.example:0/"),
        *("https://receiver.example:99999/", "https://receiver.example:x/", "https://[::1/", "ftp://receiver.example/"),
        *(
            "//receiver.example/",
            "receiver.example",
            "file:///etc/passwd",
            "https://0177.0.0.1/",
            "https://receiver.example:-1/",
        ),
    ],
)
def test_what_is_no_https_url_is_refused(url: str, names: Names):
    names.answers = {name: [["8.8.8.8"]] for name in ("receiver.example", "etc")}
    assert refusal(destinations(), url) == "url_not_allowed"


@pytest.mark.parametrize("host", ["unknown.example", "xn--", "xn--a", "a" * 300, "a..b", "%00", "*"])
def test_a_name_that_nobody_knows_is_refused_like_one_that_leads_inside(host: str, monkeypatch: pytest.MonkeyPatch):
    looked_up = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda *of, **more: looked_up(*of, **more, flags=socket.AI_NUMERICHOST))
    assert refusal(destinations(), f"https://{host}/") == "host_not_allowed"


def test_a_name_that_leads_inside_after_it_was_registered_gets_nothing(names: Names):
    with receiving() as inside:
        names.answers["receiver.example"] = [["8.8.8.8"], ["127.0.0.1"]]
        own, url = destinations(webhook_allow_http=True), f"http://receiver.example:{inside.port}/"
        asyncio.run(own.check(url))
        with pytest.raises(Unprocessable):
            posted(own, url)
        assert inside.got == []


def test_the_connection_goes_to_the_very_address_that_was_checked(names: Names):
    """A name that changes between the check and the connection would lead to the second receiver."""
    with receiving("127.0.0.2") as outside, receiving("127.0.0.1") as inside:
        names.answers["receiver.example"] = [["127.0.0.2"], ["127.0.0.1"]]
        url = f"http://receiver.example:{outside.port}/hook"
        own = destinations(webhook_allow_http=True, webhook_allowed_networks="127.0.0.2/32")
        assert posted(own, url) == 204
        assert names.asked == ["receiver.example"]
        assert [one.headers["host"] for one in outside.got] == [f"receiver.example:{outside.port}"]
        assert refusal(own, f"http://receiver.example:{inside.port}/") == "host_not_allowed"
        assert inside.got == []


def test_the_next_address_of_a_name_is_tried_when_the_first_does_not_answer(names: Names):
    with receiving("127.0.0.2") as receiver:
        names.answers["receiver.example"] = [["127.0.0.3", "127.0.0.2"]]
        own = destinations(webhook_allow_http=True, webhook_allowed_networks="127.0.0.2/31")
        assert posted(own, f"http://receiver.example:{receiver.port}/") == 204
        names.answers["receiver.example"] = [["127.0.0.3"]]
        with pytest.raises(httpcore.ConnectError):
            posted(own, f"http://receiver.example:{receiver.port}/")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int):
    with receiving() as other, receiving(answers=[status]) as receiver:
        receiver.headers["Location"] = other.url
        assert posted(destinations(**LOCAL), receiver.url) == status
        assert (len(receiver.got), other.got) == (1, [])


def test_proxies_and_credentials_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path):
    with receiving() as proxy, receiving() as receiver:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password secret\n")
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        assert posted(destinations(**LOCAL), receiver.url) == 204
        assert proxy.got == []
        assert receiver.got[0].headers.keys() == {"host", "content-length", "x-mark"}
        assert receiver.got[0].path == "/hook?a=b"


def talking(talk: Callable[[socket.socket], None]) -> tuple[str, threading.Thread]:
    """A server that says to its first caller what `talk` says."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listening, listening.accept()[0] as caller:
            heard = b""
            while not heard.endswith(b"{}"):  # the whole request: closing with some of it unread is a reset
                heard += caller.recv(65536)
            try:
                talk(caller)
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}/", thread


def drip(caller: socket.socket) -> None:
    caller.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(300):
        caller.sendall(b"X-%d: 1\r\n" % number)
        time.sleep(0.1)


def hint(caller: socket.socket) -> None:
    for _ in range(50):
        caller.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        time.sleep(0.1)


def flood(caller: socket.socket) -> None:
    caller.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        caller.sendall(b"X: " + b"x" * 60_000 + b"\r\n")


def endless_body(caller: socket.socket) -> None:
    caller.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        caller.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


@pytest.mark.parametrize(
    ("talk", "outcome"),
    [
        (drip, TimeoutError),
        (lambda caller: time.sleep(1), TimeoutError),
        (hint, TimeoutError),
        (flood, httpcore.RemoteProtocolError),
        (lambda caller: caller.sendall(b"SSH-2.0-OpenSSH_9.9\r\n"), httpcore.RemoteProtocolError),
        (lambda caller: None, httpcore.RemoteProtocolError),
        (endless_body, 200),
    ],
    ids=[
        "drips",
        "is silent",
        "hints for ever",
        "floods",
        "speaks another protocol",
        "hangs up",
        "never ends its body",
    ],
)
def test_a_receiver_that_misbehaves_costs_no_more_than_the_time_limit(talk, outcome):
    url, thread = talking(talk)
    own = destinations(**LOCAL, webhook_timeout_s=0.7)
    began = time.monotonic()
    if isinstance(outcome, int):
        assert posted(own, url) == outcome
    else:
        with pytest.raises(outcome):
            posted(own, url)
    assert time.monotonic() - began < 2.0
    thread.join(10)
    assert not thread.is_alive()  # it was hung up on


def test_a_name_that_is_looked_up_for_ever_costs_no_more_than_the_time_limit(monkeypatch: pytest.MonkeyPatch):
    answer = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer.wait(20) and [])
    own = destinations(webhook_timeout_s=0.3)
    began = time.monotonic()
    with pytest.raises(Unprocessable):
        asyncio.run(own.check("https://slow.example/"))
    with pytest.raises(TimeoutError):
        posted(own, "https://slow.example/")
    assert time.monotonic() - began < 2.0
    answer.set()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """File of a certificate for ``receiver.example``, which is its own authority, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver.example")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("receiver.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path = tmp_path_factory.mktemp("tls") / "receiver.pem"
    path.write_bytes(made.public_bytes(encoding) + key.private_bytes(encoding, form, serialization.NoEncryption()))
    return str(path)


def test_tls_is_for_the_name_and_not_for_the_address(certificate: str, names: Names, monkeypatch: pytest.MonkeyPatch):
    asked_for = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda connection, name, _: asked_for.append(name)
    names.answers = {name: [["127.0.0.1"]] for name in ("receiver.example", "other.example")}
    with receiving(wrap=lambda listening: context.wrap_socket(listening, server_side=True)) as receiver:
        url = f"https://receiver.example:{receiver.port}/"
        with pytest.raises(httpcore.ConnectError):  # an authority that nobody trusts
            posted(destinations(webhook_allowed_networks="127.0.0.1"), url)
        monkeypatch.setenv("SSL_CERT_FILE", certificate)
        own = destinations(webhook_allowed_networks="127.0.0.1")
        assert posted(own, url) == 204
        with pytest.raises(httpcore.ConnectError):  # the certificate is another's
            posted(own, url.replace("receiver.", "other."))
        assert asked_for == ["receiver.example", "receiver.example", "other.example"]
        assert [one.headers["host"] for one in receiver.got] == [f"receiver.example:{receiver.port}"]


def test_networks_are_allowed_by_name_and_no_others(names: Names):
    own = destinations(webhook_allowed_networks="10.1.0.0/16, fd12::/48")
    for address, is_allowed in {"10.1.2.3": True, "10.2.0.1": False, "fd12::1": True, "fd13::1": False}.items():
        names.answers["receiver.example"] = [[address]]
        if is_allowed:
            asyncio.run(own.check("https://receiver.example/"))
        else:
            assert refusal(own, "https://receiver.example/") == "host_not_allowed"


@pytest.mark.parametrize("text", ["10.0.0.1/8", "ten", "10.0.0.0/8;127.0.0.1", "0.0.0.0/33"])
def test_a_wrong_network_is_a_wrong_setting(text: str):
    with pytest.raises(ValueError, match="webhook_allowed_networks"):
        ServiceSettings(webhook_allowed_networks=text)
