"""One request, as handlers and hooks see it, whichever way it has come to them."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio
from attrs import define

from ark_trio.access.key import Key
from ark_trio.api.arrival import Body
from ark_trio.api.headers import RequestHeaders
from ark_trio.relay.gateway import Gateway
from ark_trio.relay.push import Outlet
from ark_trio.relay.record import Record
from ark_trio.relay.tab import Tab


@define(kw_only=True, eq=False)
class Exchange:
    """What a handler may use of the request it serves. It goes when there is a reply: a stream may last for minutes."""

    nursery: trio.Nursery
    """Ends with the request, however it ends."""
    record: Record
    gateway: Gateway
    tab: Tab
    scope: Mapping[str, Any]
    """ASGI's."""
    method: str
    path: str
    """Under the root path."""
    headers: RequestHeaders
    body: Body
    outlet: Outlet | None = None
    """The short way to the client, if there is one."""
    key: Key | None = None
    """Whose request it is; None: nobody has been asked to say."""
    large: bool = False
    """Its body is large: what is done with all of it is done in a thread."""
    names: Callable[[], Mapping[str, str]] = dict
    """Tells what the caller calls the engine's inputs, where it is not the same."""

    def start(self, run: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Start a task in the nursery."""
        self.nursery.start_soon(run, *args)
