"""GET /metrics and GET /admin/status: for those who run the gateway, whichever worker is asked.

Behind a proxy on this host every caller's address is a loopback one, so the address alone says little. A caller is let in

- with a key that has the admin flag, or
- at the door that `admin_bind` opens, from this host or through a unix socket, or from anywhere if the settings are
  `insecure`, or
- at the only door there is, from this host and directly. What looks forwarded (a header says so, or `root_path` tells of a
  proxy) is not believed to come from here, and what a header says of where it comes from is not believed either. Nor is a
  page in a browser here, which may act for anybody: it sends Origin, or has this host under another name.
"""

from collections.abc import AsyncIterator, Mapping
from ipaddress import IPv6Address, ip_address
from typing import Any

import trio

from ark_trio.api.exchange import Exchange
from ark_trio.api.replies import Reply, json_reply, length_of
from ark_trio.api.routes import Routes
from ark_trio.config import Settings
from ark_trio.errors import PermissionDenied
from ark_trio.metrics import exposition
from ark_trio.metrics.catalogue import WORKER_UP
from ark_trio.metrics.tally import Reading
from ark_trio.relay.reading import take_reading
from ark_trio.relay.status import all_status, take_status

routes = Routes()

_FORWARDED = ("forwarded", "via", "x-real-ip", "cf-connecting-ip", "true-client-ip")
_NO_STORE = (b"cache-control", b"no-store")
_METRICS = (b"content-type", exposition.CONTENT_TYPE.encode())


@routes.get("/metrics")
async def tell_metrics(here: Exchange) -> Reply:
    """The numbers of all workers, as Prometheus reads them."""
    require_operator(here)
    gateway = here.gateway
    said = await gateway.siblings.gather("reading", take_reading(gateway))
    readings: dict[str, Reading] = {
        str(number): {**(reading or {}), WORKER_UP.name: [((), float(reading is not None))]}
        for number, reading in said.items()
    }
    body = "".join([text async for text in _exposed(readings)]).encode()
    return Reply(200, [_NO_STORE, _METRICS, length_of(body)], body)


@routes.get("/admin/status")
async def tell_status(here: Exchange) -> Reply:
    """What goes on in all workers."""
    require_operator(here)
    gateway = here.gateway
    said = await gateway.siblings.gather("status", take_status(gateway))
    reply = json_reply(all_status(said))
    reply.headers.append(_NO_STORE)
    return reply


async def _exposed(readings: Mapping[str, Reading]) -> AsyncIterator[str]:  # noqa: ASYNC900 (yields data and holds nothing)
    for text in exposition.expose(readings):
        yield text
        await trio.lowlevel.checkpoint()  # streams go on in between


def require_operator(here: Exchange) -> None:
    """Refuse callers that the module's docstring does not let in.

    Raises:
        PermissionDenied: this is one.
    """
    if here.key is not None and not here.key.admin:
        raise PermissionDenied("This API key is not an administrator's.", code="not_admin")
    if here.key is None and not may_ask(here.scope, here.gateway.settings):
        raise PermissionDenied("This is for those who run the gateway.")


def may_ask(scope: Mapping[str, Any], settings: Settings) -> bool:
    """Whether a caller without a key is let in."""
    client = scope.get("client")  # none at a unix socket
    from_here = client is not None and _is_loopback(client[0])
    if settings.admin_bind is not None:
        return from_here or client is None or settings.insecure
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    forwarded = any(name in _FORWARDED or name.startswith("x-forwarded-") for name in headers)
    return (
        from_here
        and not forwarded
        and not settings.http.root_path
        and "origin" not in headers
        and _is_loopback(_host(headers.get("host", "")))
    )


def _host(header: str) -> str:
    """Return a Host header without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
