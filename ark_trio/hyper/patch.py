"""The same connection under hypercorn's own command, which makes its own.

`hypercorn -k trio ark_trio.app:app` imports the application first; here it puts our connection in the place of hypercorn's.
Its asyncio worker has a connection of its own, which stays as it is: docs/operations.md says what that means.
"""

from importlib.metadata import version

import hypercorn.trio.run
import structlog

from ark_trio.hyper.connection import Connection

log = structlog.get_logger()

MADE_FOR = "0.18.0"
"""The hypercorn that `Connection` was written against and tested with."""


def mend_hypercorn() -> bool:
    """Have hypercorn's Trio worker use `Connection`. False: it is another hypercorn, left as it is."""
    found = version("hypercorn")
    if found != MADE_FOR:
        log.warning("hypercorn_not_mended", found=found, made_for=MADE_FOR)
        return False
    setattr(hypercorn.trio.run, "TCPServer", Connection)  # noqa: B010 (not a name that it exports)
    return True
