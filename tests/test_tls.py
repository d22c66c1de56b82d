"""Contexts from files: what is refused, in a line that names the setting."""

import ssl
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from ark_trio.config import EngineSettings, GrpcSettings, HttpSettings, Settings
from ark_trio.errors import ConfigError
from ark_trio.settings.declare import Role
from ark_trio.tls import call_context, door_context, renew_door, require_certificates, serve_context
from tests.support.certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_without_certificates_everything_is_plaintext():
    grpc = GrpcSettings()
    assert call_context(grpc) is serve_context(grpc) is door_context(HttpSettings()) is None


def test_an_engine_with_a_ca_demands_certificates_of_its_callers(authority: Authority):
    cert = authority.issue("engine", "localhost")
    one_way = serve_context(GrpcSettings(tls=True, cert=cert))
    mutual = serve_context(GrpcSettings(tls=True, cert=cert, ca=authority.file))
    assert one_way is not None
    assert mutual is not None
    assert (one_way.verify_mode, mutual.verify_mode) == (ssl.CERT_NONE, ssl.CERT_REQUIRED)


def test_engines_are_always_verified(authority: Authority):
    for ca in (None, authority.file):
        context = call_context(GrpcSettings(tls=True, ca=ca))
        assert context is not None
        assert context.check_hostname
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2


BAD = Path(__file__)
NONE = Path("/nonexistent/x.pem")


@pytest.mark.parametrize(
    ("role", "changes", "line"),
    [
        ("proxy", {"grpc": {"ca": NONE}}, "grpc.tls: certificates are named, but TLS is off"),
        (
            "proxy",
            {"grpc": {"tls": True, "ca": NONE}},
            "grpc.ca: /nonexistent/x.pem: can't be read",
        ),
        ("proxy", {"grpc": {"tls": True, "ca": BAD}}, "grpc.ca: .*: not certificates in PEM form"),
        (
            "proxy",
            {"grpc": {"tls": True, "cert": BAD}},
            "grpc.cert: .*: no certificate with its key",
        ),
        ("proxy", {"grpc": {"tls": True, "key": BAD}}, "grpc.cert: a key without its certificate"),
        (
            "decoder",
            {"grpc": {"tls": True}},
            "grpc.cert: an engine that serves TLS needs one|needs a",
        ),
        ("proxy", {"http": {"tls_cert": NONE}}, "http.tls_cert: /nonexistent/x.pem: can't be read"),
        ("proxy", {"http": {"tls_cert": BAD}}, "http.tls_cert: .*: no certificate with its key"),
        ("proxy", {"http": {"tls_key": BAD}}, "http.tls_cert: a key without its certificate"),
    ],
)
def test_what_can_not_be_is_refused_before_anything_is_opened(
    role: Role, changes: dict[str, Any], line: str
):
    settings = Settings()
    for section, values in changes.items():
        settings = evolve(settings, **{section: evolve(getattr(settings, section), **values)})
    with pytest.raises(ConfigError, match=line):
        require_certificates(settings, role)


def test_the_private_engine_can_not_serve_it(authority: Authority):
    grpc = GrpcSettings(tls=True, cert=authority.issue("engine", "localhost"))
    settings = Settings(grpc=grpc, engine=EngineSettings(driver="xllm"))
    with pytest.raises(ConfigError, match="speaks plaintext"):
        require_certificates(settings, "decoder")


def test_a_key_that_is_encrypted_is_refused_and_nobody_is_asked(
    authority: Authority, tmp_path: Path
):
    from cryptography.hazmat.primitives import serialization as of

    key = of.load_pem_private_key(authority.ca.private_key_pem.bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        key.private_bytes(
            of.Encoding.PEM, of.PrivateFormat.PKCS8, of.BestAvailableEncryption(b"secret")
        )
    )
    http = HttpSettings(tls_cert=authority.issue("door", "localhost"), tls_key=locked)
    with pytest.raises(ConfigError, match=r"http\.tls_cert"):
        door_context(http)


def test_a_certificate_that_went_bad_leaves_the_one_that_is_shown(authority: Authority):
    http = HttpSettings(tls_cert=authority.issue("door", "localhost"))
    assert http.tls_cert is not None
    context = door_context(http)
    http.tls_cert.write_text("")
    with pytest.raises(ConfigError):
        renew_door(context, http)
