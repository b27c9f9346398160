"""Where a callback may go, and what one request may take."""

import datetime as dt
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from executions.callbacks import targets
from executions.callbacks.errors import BadCallbackUrl
from executions.callbacks.sending import KEPT_BYTES, READ_BYTES, Interrupted, Sender
from executions.callbacks.targets import TargetRefused, addresses_of, parse
from executions.cluster.primitives import PipeEvent
from tests.receiver import Receiver, status

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
PUBLIC = "93.184.216.34"


def answers(*addresses: str) -> targets.Resolver:
    """DNS that says so; what it can't be made to say on demand."""
    return lambda _host, _port: list(addresses)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


# ── URLs ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/",
        "https://example.org",
        "https://example.org:443/hook?a=b#part",
        "https://example.org:8443/",
        "http://10.0.0.1/hook",
        "https://bücher.example/",
        "https://[2606:2800:220:1::1]:8443/",
    ],
)
def test_urls_that_are_taken(url: str) -> None:
    assert parse(url).fragment == ""


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://example.org/", "https"),
        ("file:///etc/passwd", "https"),
        ("gopher://example.org:70/", "https"),
        ("example.org", "https"),
        ("//example.org/", "https"),
        ("https:///hook", "no host"),
        ("https://exa%00mple.org/", "no host"),
        ("https://user:password@example.org/", "password"),
        ("https://user@example.org/", "user name"),
        ("https://example.org:22/", "port"),
        ("https://example.org:80/", "port"),
        ("http://example.org:443/", "port"),
        ("https://example.org:0/", "port"),
        ("https://example.org:99999/", "port"),
        ("https://example.org/\x00", "no URL"),
        ("https://example.org:x/", "no URL"),
        ("https://[::1/", "no URL"),
        ("https://0177.0.0.1/", "no URL"),
        ("https://example.org/" + "a" * 2048, "longer"),
    ],
)
def test_urls_that_are_not(url: str, why: str) -> None:
    with pytest.raises(BadCallbackUrl, match=why) as raised:
        parse(url)
    assert raised.value.fields["callback_url"]


# ── Addresses ────────────────────────────────────────────────────────────────────────────────────


REFUSED = """
    127.0.0.1 127.255.255.254 0.0.0.0 10.1.2.3 172.16.0.1 172.31.255.255 192.168.1.1
    169.254.169.254 100.64.0.1 100.127.255.255 100.100.100.200 192.0.0.192 192.0.2.1 192.88.99.1
    198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
    168.63.129.16
    ::1 :: fe80::1 fe80::1%lo fc00::1 fd00:ec2::254 ff02::1 2001:db8::1 2001::1 3fff::1 100::1
    ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:a9fe:a9fe ::127.0.0.1
    64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::10.0.0.1
    2002:7f00:1:: 2002:a9fe:a9fe::1 2002:c0a8:101:: 5f00::1
"""


@pytest.mark.parametrize("address", REFUSED.split())
def test_addresses_that_no_callback_goes_to(address: str) -> None:
    """Also where the name has a public one beside it, before or after."""
    for found in ([address], [PUBLIC, address], [address, PUBLIC]):
        with pytest.raises(TargetRefused):
            addresses_of(parse("https://innocent.example/"), allowed=(), resolve=answers(*found))


@pytest.mark.parametrize(
    "address",
    [PUBLIC, "1.1.1.1", "2606:4700::1111", "64:ff9b::5db8:d822", "2002:5db8:d822::1", "172.32.0.1"],
)
def test_public_addresses(address: str) -> None:
    found = addresses_of(parse("https://a.example/"), allowed=(), resolve=answers(address))
    assert [str(one) for one in found] == [address]


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f000001", "[::1]"]
)
def test_this_host_by_any_name_as_the_system_resolves_it(host: str) -> None:
    with pytest.raises(TargetRefused, match=r"public|resolved"):
        addresses_of(
            parse(f"https://{host}:8443/"), allowed=(), resolve=targets.system_resolver(20)
        )


def test_http_goes_where_an_operator_allows_it_and_nowhere_else() -> None:
    url = parse("http://a.example/")
    with pytest.raises(TargetRefused, match="only https"):
        addresses_of(url, allowed=LOOPBACK, resolve=answers(PUBLIC))
    assert addresses_of(url, allowed=LOOPBACK, resolve=answers("127.0.0.9", "::ffff:127.0.0.8"))
    with pytest.raises(TargetRefused):
        addresses_of(url, allowed=LOOPBACK, resolve=answers("127.0.0.9", "10.0.0.1"))


def test_a_resolver_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: release.wait(60) and [])
    try:
        with pytest.raises(TargetRefused, match="no answer within"):
            addresses_of(
                parse("https://a.example/"), allowed=(), resolve=targets.system_resolver(0.05)
            )
    finally:
        release.set()


# ── One request ──────────────────────────────────────────────────────────────────────────────────


def test_what_was_checked_is_what_is_connected_to(receiver: Receiver) -> None:
    """The name is asked for once; that it would mean something else now changes nothing."""
    asked = []

    def changing(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    url = parse(receiver.url(host="hook.example"))
    result = Sender(allowed=LOOPBACK, resolve=changing).post(url, {"X-A": "b"}, b"{}")
    assert (result.status, result.error) == (204, "")
    assert asked == [("hook.example", url.port)]
    [got] = receiver.received
    assert got.headers["host"] == f"hook.example:{url.port}"
    assert (got.headers["x-a"], got.body) == ("b", b"{}")


def test_nothing_is_sent_to_a_refused_address(receiver: Receiver) -> None:
    result = Sender().post(parse(receiver.url().replace("http", "https")), {}, b"{}")
    assert result.status is None
    assert "public" in result.error
    assert "127.0.0.1" in result.error, "the host as it was given, nothing that only DNS knows"
    assert receiver.received == []


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.answers = [status(307, Location=receiver.url("/elsewhere"))]
    result = Sender(allowed=LOOPBACK).post(parse(receiver.url()), {}, b"{}")
    assert (result.status, result.error) == (307, "it answered 307; redirects aren't followed")
    assert [got.path for got in receiver.received] == ["/hook"]


def test_of_a_long_answer_only_its_beginning_is_read(receiver: Receiver) -> None:
    written: list[int] = []

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        written.extend(handler.wfile.write(b"\0a" * 8192) for _ in range(4096))

    receiver.answers = [endless]
    result = Sender(allowed=LOOPBACK).post(parse(receiver.url()), {}, b"{}")
    assert (result.status, result.error) == (200, "")
    assert len(result.answer) == KEPT_BYTES
    assert "\0" not in result.answer
    # What the kernel's buffers take is beyond us.
    assert sum(written) < 4096 * 16384 / 2 > READ_BYTES


def test_one_that_dawdles_is_given_up(receiver: Receiver) -> None:
    """Each byte of its head comes in time; the whole doesn't."""
    done = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        while not done.wait(0.05):
            handler.wfile.write(b"H")

    receiver.answers = [drip]
    began = time.monotonic()
    try:
        sender = Sender(allowed=LOOPBACK, total_secs=0.5)
        result = sender.post(parse(receiver.url()), {}, b"{}")
    finally:
        done.set()
    assert result.status is None
    assert result.error
    assert time.monotonic() - began < 20


def test_a_closed_port_and_a_broken_answer_are_told() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = parse(f"http://127.0.0.1:{unheard.getsockname()[1]}/")
        assert Sender(allowed=LOOPBACK).post(url, {}, b"").error.startswith("no connection")
    with Receiver([lambda handler: handler.connection.close()]) as receiver:
        result = Sender(allowed=LOOPBACK).post(parse(receiver.url()), {}, b"")
        assert result.status is None
        assert result.error


def test_the_next_address_is_tried_when_one_takes_no_connection(receiver: Receiver) -> None:
    # Nothing of the suite listens on 127.0.0.99.
    sender = Sender(allowed=LOOPBACK, resolve=answers("127.0.0.99", "127.0.0.1"))
    assert sender.post(parse(receiver.url()), {}, b"").status == 204


def test_a_worker_that_is_to_end_does_not_wait_for_it(receiver: Receiver) -> None:
    stop, reached, done = PipeEvent(), threading.Event(), threading.Event()

    def hang(_handler: BaseHTTPRequestHandler) -> None:
        reached.set()
        done.wait(60)

    def stop_when_it_hangs() -> None:
        reached.wait(60)
        stop.set()

    receiver.answers = [hang]
    threading.Thread(target=stop_when_it_hangs, daemon=True).start()
    try:
        with pytest.raises(Interrupted):
            Sender(allowed=LOOPBACK, total_secs=60).post(
                parse(receiver.url()), {}, b"", interrupt=stop.fileno()
            )
    finally:
        done.set()


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def certificate(tmp_path: Path) -> Callable[[str], Path]:
    """A certificate of its own for a name, with its key, in one file."""

    def make(name: str) -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        encoding = serialization.Encoding.PEM
        private = key.private_bytes(
            encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file = tmp_path / f"{name}.pem"
        file.write_bytes(private + certificate.public_bytes(encoding))
        return file

    return make


def test_the_certificate_is_the_names_though_the_address_is_connected_to(
    certificate: Callable[[str], Path],
) -> None:
    file = certificate("hook.example")
    names: list[str | None] = []
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(file)
    serving.sni_callback = lambda _socket, name, _context: names.append(name)
    trust = ssl.create_default_context(cafile=str(file))
    with Receiver(trust=serving) as receiver:
        sender = Sender(allowed=LOOPBACK, resolve=answers("127.0.0.1"), trust=trust)
        assert sender.post(parse(receiver.url(host="hook.example")), {}, b"{}").status == 204
        assert names == ["hook.example"]
        assert receiver.received[0].headers["host"].startswith("hook.example:")
        other = sender.post(parse(receiver.url(host="other.example")), {}, b"{}")
        assert (other.status, "certificate" in other.error.lower()) == (None, True), other
        untrusting = Sender(allowed=LOOPBACK, resolve=answers("127.0.0.1"))
        unknown = untrusting.post(parse(receiver.url(host="hook.example")), {}, b"{}")
        assert (unknown.status, "certificate" in unknown.error.lower()) == (None, True), unknown
        assert len(receiver.received) == 1
