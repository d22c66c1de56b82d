"""TLS at the door and to the engines, with real certificates that change while streams run."""

import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import grpc
import httpx2
import pytest

from ark_wire import ark_pb2
from tests.support.certificates import Authority
from tests.support.dns import name_server
from tests.support.processes import Served, free_port, listens, running, wait_until
from tests.support.wire import CHAT, chat, connected, post, read_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

JSON = {"content-type": "application/json"}
DONE = b"data: [DONE]\n\n"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextmanager
def engine(cert: Path, ca: Path | None = None, role: str = "decoder") -> Iterator[Served]:
    port = free_port()
    command = ["ark-trio", role, "--engine", "echo", "--served-names", "echo"]
    tls = ["--grpc-tls=1", f"--grpc-cert={cert}", *([f"--grpc-ca={ca}"] if ca else [])]
    with running([*command, "--grpc-bind", f"127.0.0.1:{port}", *tls]) as process:
        wait_until(lambda: listens(port), what="the engine")
        yield Served(process.popen, process.output, port)


@contextmanager
def gateway(decoder: Served, *flags: str, host: str = "localhost") -> Iterator[Served]:
    port = free_port()
    command = ["ark-trio", "proxy", "--bind", f"127.0.0.1:{port}", "--probe-s=0.3", *flags]
    with running([*command, "--decoders", f"{host}:{decoder.port}"]) as process:
        wait_until(lambda: listens(port), what="the gateway")
        yield Served(process.popen, process.output, port)


def ready(door: Served) -> bool:
    return '"ready":true' in door.log


def trusting(authority: Authority, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.file)
    context.set_alpn_protocols([*protocols])
    return context


def secured(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    sock = socket.create_connection(("127.0.0.1", port), 10)
    return context.wrap_socket(sock, server_hostname="localhost")


def serial(port: int, authority: Authority) -> str:
    """Of the certificate that is shown there."""
    with secured(port, trusting(authority, "h2")) as sock:
        return str((sock.getpeercert() or {})["serialNumber"])


def asked(door: Served, authority: Authority, *, http2: bool) -> httpx2.Response:
    with httpx2.Client(verify=trusting(authority), http2=http2, http1=not http2) as client:
        url = f"https://localhost:{door.port}{CHAT}"
        return client.post(url, content=chat("a b"), headers=JSON)


def test_the_gateway_calls_an_engine_by_tls_and_shows_it_a_certificate(authority: Authority):
    own = authority.issue("gateway", "gateway")
    with engine(authority.issue("engine", "localhost"), authority.file) as decoder:
        tls = ["--grpc-tls=1", f"--grpc-ca={authority.file}"]
        with gateway(decoder, *tls, f"--grpc-cert={own}") as door:
            wait_until(lambda: ready(door), within_s=10, what="the decoder")
            answer = httpx2.post(door.url + CHAT, content=chat("a b"), headers=JSON)
            assert answer.text.endswith(DONE.decode())
        with gateway(decoder, *tls) as door:
            assert_never_ready(door)


def test_an_engine_whose_certificate_is_not_good_gets_nothing(authority: Authority, tmp_path: Path):
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other")
    tls = ["--grpc-tls=1", f"--grpc-ca={authority.file}"]
    with ExitStack() as stack:
        bad_ca = stack.enter_context(engine(stranger.issue("engine", "localhost")))
        bad_name = stack.enter_context(engine(authority.issue("named", "elsewhere.test")))
        plain = stack.enter_context(gateway(bad_ca))  # the gateway speaks plaintext
        doors = [stack.enter_context(gateway(each, *tls)) for each in (bad_ca, bad_name)]
        for door in (plain, *doors):
            assert_never_ready(door)
        named = gateway(bad_name, *tls, "--grpc-server-name=elsewhere.test", host="127.0.0.1")
        door = stack.enter_context(named)
        wait_until(lambda: ready(door), within_s=10, what="the decoder")


def test_a_name_whose_decoders_speak_tls_is_a_fleet_but_for_who_has_not_its_certificate(
    authority: Authority, tmp_path: Path
):
    """Each address is another decoder; what it shows must be for the name."""
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other")
    port = free_port()
    certificates = {
        "127.0.0.1": authority.issue("one", "decoders.test"),
        "127.0.0.2": authority.issue("two", "decoders.test"),
        "127.0.0.3": authority.issue("three", "elsewhere.test"),
        "127.0.0.4": stranger.issue("four", "decoders.test"),
    }
    with ExitStack() as stack:
        decoders = {}
        for host, cert in certificates.items():
            command = ["ark-trio", "decoder", "--engine", "echo", "--served-names", "echo"]
            tls = ["--grpc-tls=1", f"--grpc-cert={cert}", f"--grpc-ca={authority.file}"]
            decoder = running([*command, "--grpc-bind", f"{host}:{port}", *tls])
            decoders[host] = stack.enter_context(decoder)
        names = stack.enter_context(name_server(tmp_path))
        names.say(decoders=[*certificates])
        door_port = free_port()
        command = ["ark-trio", "proxy", "--bind", f"127.0.0.1:{door_port}", "--probe-s=0.3"]
        own = authority.issue("gateway", "gateway")
        tls = ["--grpc-tls=1", f"--grpc-ca={authority.file}", f"--grpc-cert={own}"]
        where = ["--decoders", f"decoders.test:{port}", "--dns-servers", names.address]
        stack.enter_context(running([*command, *tls, *where, "--fleet-policy=round_robin"]))

        def states() -> dict[str, str]:
            status = httpx2.get(f"http://127.0.0.1:{door_port}/admin/status").json()
            return {
                each["decoder"].rpartition(":")[0]: each["state"] for each in status["decoders"]
            }

        def ask() -> httpx2.Response:
            url = f"http://127.0.0.1:{door_port}{CHAT}"
            return httpx2.post(url, content=chat("a b"), headers=JSON, timeout=10)

        wait_until(lambda: listens(door_port), what="the gateway")
        bad = {"127.0.0.3": "away", "127.0.0.4": "away"}
        wait_until(
            lambda: states() == {"127.0.0.1": "ready", "127.0.0.2": "ready"} | bad,
            15,
            "two of four",
        )
        assert all(ask().text.endswith(DONE.decode()) for _ in range(6))
        decoders["127.0.0.1"].kill()
        assert all(ask().text.endswith(DONE.decode()) for _ in range(6))
        assert states() == {"127.0.0.1": "away", "127.0.0.2": "ready"} | bad


def assert_never_ready(door: Served) -> None:
    answer = httpx2.post(door.url + CHAT, content=chat("a"), headers=JSON)
    assert answer.status_code == 503
    assert "certificate" not in answer.text.lower()
    assert not ready(door)


def test_grpcs_own_client_agrees(authority: Authority):
    with engine(authority.issue("engine", "localhost")) as decoder:
        trust = grpc.ssl_channel_credentials(authority.file.read_bytes())
        with grpc.secure_channel(f"localhost:{decoder.port}", trust) as channel:
            call = channel.unary_unary(
                "/inference.Inference/Control",
                ark_pb2.ControlRequest.SerializeToString,
                ark_pb2.ControlResponse.FromString,
            )
            assert (
                "models"
                in call(ark_pb2.ControlRequest(control_type="GetStatus"), timeout=10).outputs
            )


def test_certificates_change_at_both_ends_and_no_stream_is_touched(authority: Authority):
    own = authority.issue("gateway", "gateway")
    shown = authority.issue("door", "localhost")
    with engine(authority.issue("engine", "localhost"), authority.file) as decoder:
        flags = ["--grpc-tls=1", f"--grpc-ca={authority.file}", f"--grpc-cert={own}"]
        with gateway(decoder, *flags, f"--tls-cert={shown}") as door:
            wait_until(lambda: ready(door), within_s=10, what="the decoder")
            before = serial(door.port, authority)
            for http2 in (True, False):
                answer = asked(door, authority, http2=http2)
                assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
                assert answer.text.endswith(DONE.decode())
            with secured(door.port, trusting(authority, "http/1.1")) as sock:
                sock.sendall(post(chat("count=40 gap_s=0.1")))
                read_until(sock, b'"content":"')
                shown.write_text("nonsense")
                door.signal(signal.SIGHUP)
                wait_until(lambda: "reload_refused" in door.log, within_s=5)
                assert serial(door.port, authority) == before
                authority.issue("gateway", "gateway")
                authority.issue("door", "localhost")
                door.signal(signal.SIGHUP)
                wait_until(lambda: "settings_reloaded" in door.log, within_s=5)
                assert serial(door.port, authority) != before
                assert asked(door, authority, http2=True).text.endswith(DONE.decode())
                assert b'"finish_reason":"stop"' in read_until(sock, DONE)


def test_who_speaks_no_tls_at_its_door_or_never_goes_on_does_not_disturb(authority: Authority):
    with engine(authority.issue("engine", "localhost")) as decoder:
        tls = ["--grpc-tls=1", f"--grpc-ca={authority.file}"]
        shown = authority.issue("door", "localhost")
        with gateway(decoder, *tls, f"--tls-cert={shown}") as door:
            wait_until(lambda: ready(door), within_s=10, what="the decoder")
            with secured(door.port, trusting(authority, "http/1.1")) as bystander:
                bystander.sendall(post(chat("count=20 gap_s=0.1")))
                read_until(bystander, b'"content":"')
                with connected(door.port):  # and says nothing
                    for noise in (
                        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
                        b"\x16\x03\x01\xff\xff" * 20,
                    ):
                        with connected(door.port) as sock, suppress(ConnectionResetError):
                            sock.sendall(noise)
                            assert b"HTTP" not in sock.recv(1024)
                    assert b'"finish_reason":"stop"' in read_until(bystander, DONE)
            assert "Traceback" not in door.log
            door.signal(signal.SIGTERM)
            assert door.wait(10) == 0
