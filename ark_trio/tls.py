"""TLS, at the gateway's door and between gateway, decoder and prefiller: contexts from the files that the settings name.

Files are read when a process starts and when it is told to reload. What is connected goes on as it is.
"""

import ssl
from pathlib import Path

from ark_trio.config import GrpcSettings, HttpSettings, Settings
from ark_trio.errors import ConfigError
from ark_trio.settings.declare import Role

GRPC_PROTOCOLS = ("h2",)
HTTP_PROTOCOLS = ("h2", "http/1.1")
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2, those that RFC 9113 (appendix A) leaves; TLS 1.3's are all good."""


def call_context(grpc: GrpcSettings) -> ssl.SSLContext | None:
    """Return how engines are called; None: in plaintext.

    Raises:
        ConfigError: a file is not what it should be.
    """
    if not _wanted(grpc):
        return None
    context = _context(ssl.PROTOCOL_TLS_CLIENT, GRPC_PROTOCOLS)
    if grpc.ca is None:
        context.load_default_certs()
    else:
        _trust(context, "grpc.ca", grpc.ca)
    if grpc.cert is not None:
        _show(context, "grpc", grpc.cert, grpc.key)
    return context


def serve_context(grpc: GrpcSettings) -> ssl.SSLContext | None:
    """Return how an engine is served; None: in plaintext. With a CA, callers have to show a certificate of its.

    Raises:
        ConfigError: a file is not what it should be.
    """
    if not _wanted(grpc):
        return None
    if grpc.cert is None:
        raise ConfigError("grpc.cert: an engine that serves TLS needs a certificate")
    context = _context(ssl.PROTOCOL_TLS_SERVER, GRPC_PROTOCOLS)
    _show(context, "grpc", grpc.cert, grpc.key)
    if grpc.ca is not None:
        _trust(context, "grpc.ca", grpc.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def door_context(http: HttpSettings) -> ssl.SSLContext | None:
    """Return how clients are served; None: in plaintext.

    Raises:
        ConfigError: a file is not what it should be.
    """
    if http.tls_cert is None:
        if http.tls_key is not None:
            raise ConfigError("http.tls_cert: a key without its certificate")
        return None
    context = _context(ssl.PROTOCOL_TLS_SERVER, HTTP_PROTOCOLS)
    _show(context, "http.tls", http.tls_cert, http.tls_key)
    return context


def renew_door(context: ssl.SSLContext | None, http: HttpSettings) -> None:
    """Have the door's context show the certificate as its file is now. Whether there is TLS at all takes a restart.

    Raises:
        ConfigError: a file is not what it should be; nothing has changed.
    """
    door_context(http)
    if context is not None and http.tls_cert is not None:
        _show(context, "http.tls", http.tls_cert, http.tls_key)


def require_certificates(settings: Settings, role: Role) -> None:
    """Refuse what TLS can't be served or called with, before anything is opened.

    Raises:
        ConfigError: one line that says what to change.
    """
    call_context(settings.grpc)
    if role == "proxy":
        door_context(settings.http)
    elif settings.grpc.tls and settings.engine.driver == "xllm":
        raise ConfigError("grpc.tls: the private engine speaks plaintext")
    else:
        serve_context(settings.grpc)


def _wanted(grpc: GrpcSettings) -> bool:
    if grpc.cert is None and grpc.key is not None:
        raise ConfigError("grpc.cert: a key without its certificate")
    if not grpc.tls and (grpc.ca or grpc.cert):
        raise ConfigError("grpc.tls: certificates are named, but TLS is off; set grpc.tls = true")
    return grpc.tls


def _context(side: int, protocols: tuple[str, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(list(protocols))
    return context


def _show(context: ssl.SSLContext, section: str, cert: Path, key: Path | None) -> None:
    """Have the context show a certificate; the key may stand in the same file."""
    joint = "_" if section == "http.tls" else "."
    for name, path in (("cert", cert), ("key", key)):
        if path is not None:
            _require_readable(f"{section}{joint}{name}", path)
    try:
        # An empty password: OpenSSL would ask on the terminal for that of an encrypted key.
        context.load_cert_chain(cert, key, password="")
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ConfigError(
            f"{section}{joint}cert: {cert}: no certificate with its key: {reason}"
        ) from error


def _trust(context: ssl.SSLContext, name: str, path: Path) -> None:
    _require_readable(name, path)
    try:
        context.load_verify_locations(path)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"{name}: {path}: not certificates in PEM form") from error


def _require_readable(name: str, path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{name}: {path}: can't be read: {error.strerror}") from error
