"""From a request to its reply: the hooks before its handler, the handler, the word for what failed, the hooks behind it.

There is one such way for all requests, whether their handler was looked up or found by Quart's routing (web.py). It does what
quart-trio's own would do in the same order, so that whatever a handler or a hook raises is answered as there.
"""

from collections.abc import Callable

import structlog
import trio
from attrs import frozen
from werkzeug.exceptions import InternalServerError

from ark_trio.api.exchange import Exchange
from ark_trio.api.replies import Reply, reply_to, reply_to_http_exception
from ark_trio.api.routes import Handler

log = structlog.get_logger()

Before = Callable[[Exchange], Reply | None]
"""May answer in the handler's place, or raise what a handler may."""
Behind = Callable[[Exchange, Reply], None]
"""May add to the reply."""


@frozen(kw_only=True)
class Dispatch:
    """See the module's docstring."""

    before: tuple[Before, ...] = ()
    behind: tuple[Behind, ...] = ()

    async def answer(self, here: Exchange, handler: Handler) -> Reply:
        """Have `handler` answer, if no hook does."""
        try:
            try:
                reply = self._early(here) or await handler(here)
            except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 (raised again if it has no reply)
                reply = reply_to(here, error)
            for hook in self.behind:
                hook(here, reply)
        except BaseExceptionGroup as group:
            cancelled, _ = group.split(trio.Cancelled)
            if cancelled is not None:
                raise cancelled from group
            log.exception("request_crashed", request_id=here.record.request_id)
            return self._excuse(here)
        except Exception:
            log.exception("request_crashed", request_id=here.record.request_id)
            return self._excuse(here)
        return reply

    def _early(self, here: Exchange) -> Reply | None:
        for hook in self.before:
            reply = hook(here)
            if reply is not None:
                return reply
        return None

    def _excuse(self, here: Exchange) -> Reply:
        """Reply to what has been logged, with as much as works."""
        reply = reply_to_http_exception(here, InternalServerError())
        try:
            for hook in self.behind:
                hook(here, reply)
        except Exception:
            log.exception("reply_crashed", request_id=here.record.request_id)
        return reply
