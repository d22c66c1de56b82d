"""`app`, for `hypercorn ark_trio.app:app`: the gateway as one ASGI application.

The lifespan task owns everything process-wide: it opens the gateway, tells the server that it may serve, and closes the
gateway when the server is done.
"""

import os
import sys
from typing import Any

import orjson
import structlog

from ark_trio.access.key_file import open_keyring
from ark_trio.api.web import Web, build_web
from ark_trio.config import Settings, load_settings
from ark_trio.errors import ConfigError, Unavailable
from ark_trio.hyper.patch import mend_command
from ark_trio.log import configure_logging
from ark_trio.protocol.error_body import error_body
from ark_trio.relay.gateway import Gateway, open_gateway
from ark_trio.rpc.asyncio_host import AsyncioHost, in_trio, leave_asyncio_plain
from ark_trio.tls import require_certificates

log = structlog.get_logger()


class Application:
    """The ASGI application. Native under a Trio server; under an asyncio one it runs in a Trio thread of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._web: Web | None = None
        self._host = AsyncioHost(self._serve)

    @property
    def gateway(self) -> Gateway | None:
        """The open gateway; None before start-up and after shutdown."""
        return self._web.gateway if self._web else None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one ASGI scope."""
        if in_trio():
            await self._serve(scope, receive, send)
        else:
            await self._host.serve(scope, receive, send)

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        match scope["type"]:
            case "lifespan":
                await self._live(receive, send)
            case "http" if self._web is not None:
                await self._web(scope, receive, send)
            case "http":
                await _refuse(send)
            case "websocket":
                await send({"type": "websocket.close"})

    async def _live(self, receive: Any, send: Any) -> None:
        """Open the gateway, serve until told to stop, close it."""
        await receive()
        configure_logging(self._settings)
        if self._host.hosting:
            log.warning(
                "asyncio_worker", advice="hypercorn -k trio serves this natively, and faster"
            )
        if not (self._settings.keys_file or self._settings.insecure):
            # Where hypercorn listens is not told to applications, so this is said wherever it is.
            log.warning("no_api_keys", advice="set ARK_KEYS_FILE before other hosts can reach this")
        if self._settings.admin_bind is not None:
            log.warning("admin_bind_ignored", advice="ark-trio proxy opens it; hypercorn does not")
        async with open_gateway(self._settings) as gateway:
            self._web = build_web(gateway)
            try:
                await send({"type": "lifespan.startup.complete"})
                await receive()
            finally:
                self._web = None
        await send({"type": "lifespan.shutdown.complete"})


async def _refuse(send: Any) -> None:
    """Answer while the gateway is not open: before it is, or after it has crashed."""
    error = Unavailable("The gateway is not running.")
    headers = [(b"content-type", b"application/json"), (b"retry-after", b"1")]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": orjson.dumps(error_body(error))})


def _settings_or_exit() -> Settings:
    """Read the settings. hypercorn has no way to report a bad one in a line, so the process ends here, with 2."""
    try:
        settings = load_settings({}, os.environ)
        open_keyring(settings.keys_file)
        require_certificates(settings, "proxy")
    except ConfigError as error:
        sys.stderr.write(f"ark-trio: {error}\n")
        raise SystemExit(2) from error
    return settings


leave_asyncio_plain()
_settings = _settings_or_exit()
mend_command(_settings.limits)
app = Application(_settings)
