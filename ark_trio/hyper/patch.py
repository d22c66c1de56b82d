"""What hypercorn makes is ours: its protocols where we embed it, its connections and limits under its own command too.

hypercorn makes its classes by their names in its own modules; here these names get ours. Its command imports the application
before it serves, so what the application does then is in time.
"""

from importlib.metadata import version

import hypercorn.asyncio.run
import hypercorn.config
import hypercorn.protocol
import hypercorn.protocol.h2
import hypercorn.protocol.h11
import hypercorn.trio.run
import structlog

from ark_trio.config import Limits
from ark_trio.hyper.asyncio_connection import AsyncioConnection
from ark_trio.hyper.config import set_limits
from ark_trio.hyper.connection import Connection
from ark_trio.hyper.descriptors import quiet_accept, raise_descriptor_limit
from ark_trio.hyper.h1 import CarefulH11Protocol
from ark_trio.hyper.h2 import BoundedBuffer, EndingH2Protocol
from ark_trio.hyper.idle import EndingContext
from ark_trio.hyper.stream import EndingStream

log = structlog.get_logger()

MADE_FOR = {"hypercorn": "0.18.0", "h11": "0.16.0"}
"""The versions whose insides we reach into, and are tested with."""


def unexpected_versions() -> list[str]:
    """Return what is installed in another version than the one that this was made for, as `name found, not made-for`."""
    found = {name: version(name) for name in MADE_FOR}
    return [
        f"{name} {found[name]}, not {wanted}"
        for name, wanted in MADE_FOR.items()
        if found[name] != wanted
    ]


def warn_of_versions() -> bool:
    """Say so in the log if hypercorn is not the one that this was made for; whether it is."""
    unexpected = unexpected_versions()
    if unexpected:
        log.warning("server_not_as_tested", found=unexpected)
    return not unexpected


def mend_protocols() -> None:
    """Have hypercorn's connections, and so ours, speak HTTP by our protocols."""
    setattr(hypercorn.protocol, "H11Protocol", CarefulH11Protocol)  # noqa: B010 (not a name that it exports)
    setattr(hypercorn.protocol, "H2Protocol", EndingH2Protocol)  # noqa: B010
    setattr(hypercorn.protocol.h2, "StreamBuffer", BoundedBuffer)  # noqa: B010
    for module in (hypercorn.protocol.h11, hypercorn.protocol.h2):
        setattr(module, "HTTPStream", EndingStream)  # noqa: B010


def mend_command(limits: Limits) -> bool:
    """Have hypercorn's own command use our connections and limits. False: it is another hypercorn, left as it is."""
    if not warn_of_versions():
        return False
    raise_descriptor_limit()
    quiet_accept()
    set_limits(hypercorn.config.Config, limits)
    mend_protocols()
    setattr(hypercorn.trio.run, "TCPServer", Connection)  # noqa: B010
    setattr(hypercorn.trio.run, "WorkerContext", EndingContext)  # noqa: B010
    setattr(hypercorn.asyncio.run, "TCPServer", AsyncioConnection)  # noqa: B010
    return True
