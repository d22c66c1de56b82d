"""`app`, for `hypercorn ark_trio.app:app` and for serve.py: the gateway as one ASGI application.

The lifespan task owns everything process-wide: it opens the gateway, tells the server that it may serve, and closes the
gateway when the server is done.
"""

import os
from collections.abc import Callable
from typing import Any

import structlog

from ark_trio.api.web import Web, build_web
from ark_trio.config import Settings, load_settings
from ark_trio.errors import ConfigError
from ark_trio.log import configure_logging
from ark_trio.relay.gateway import Gateway, open_gateway
from ark_trio.rpc.asyncio_host import AsyncioHost, in_trio, leave_asyncio_plain

log = structlog.get_logger()


class Application:
    """The ASGI application. Native under a Trio server; under an asyncio one it runs in a Trio thread of its own."""

    def __init__(self, load: Callable[[], Settings]) -> None:
        self._load = load
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
            case _:
                log.warning("scope_refused", type=scope["type"])

    async def _live(self, receive: Any, send: Any) -> None:
        """Open the gateway, serve until told to stop, close it."""
        await receive()
        try:
            settings = self._load()
        except ConfigError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        configure_logging(settings)
        if self._host.hosting:
            log.warning(
                "asyncio_worker", advice="hypercorn -k trio serves this natively, and faster"
            )
        async with open_gateway(settings) as gateway:
            self._web = build_web(gateway)
            try:
                await send({"type": "lifespan.startup.complete"})
                await receive()
            finally:
                self._web = None
        await send({"type": "lifespan.shutdown.complete"})


leave_asyncio_plain()
app = Application(lambda: load_settings({}, os.environ))
