"""quart-trio's way from a request to its response, without the parts that nothing here uses.

quart 0.20 gives each request an application context and a session, sends six signals that nobody hears, and looks for hooks of
blueprints and for functions that are to run in a thread. What is left does the same in the same order, by the same methods, so
whatever a handler or a hook raises is answered as there. Hooks and handlers are coroutine functions, and hooks the application's.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import trio
from quart import Request, Response
from quart.ctx import RequestContext
from quart.globals import _cv_request
from quart.sessions import NullSession
from quart_trio import QuartTrio

_NO_SESSION: Final = NullSession()


class LeanQuart(QuartTrio):
    """See the module's docstring."""

    async def handle_request(self, request: Request) -> Any:
        """Answer a request. `quart.request` is bound meanwhile, `current_app`, `g` and `session` are not."""
        context = RequestContext(self, request, _NO_SESSION)
        token = _cv_request.set(context)
        try:
            context.match_request()
            return await self._respond(context)
        except trio.Cancelled:
            raise
        except BaseExceptionGroup as group:
            cancelled, _ = group.split(trio.Cancelled)
            if cancelled is not None:
                raise cancelled from group
            return await self.handle_exception(cast(Exception, group))
        except Exception as error:  # noqa: BLE001 (it is logged, and answered with 500)
            return await self.handle_exception(error)
        finally:
            _cv_request.reset(token)

    async def _respond(self, context: RequestContext) -> Any:
        """Have hooks and handler make a response, and the hooks behind it have their say."""
        try:
            result = await self._ask_hooks()
            if result is None:
                result = await self.dispatch_request(context)
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 (raised again if it has no handler)
            result = await self.handle_user_exception(error)
        return await self.finalize_request(result, context)

    async def _ask_hooks(self) -> Any:
        """Return what the first hook says that says anything."""
        for hook in cast(list[Callable[[], Awaitable[Any]]], self.before_request_funcs[None]):
            result = await hook()
            if result is not None:
                return result
        return None

    async def dispatch_request(self, context: RequestContext | None = None) -> Any:
        """Have the route's handler answer."""
        request = cast(RequestContext, context).request
        rule = request.url_rule
        if rule is None:
            self.raise_routing_exception(request)
        if request.method == "OPTIONS" and rule.provide_automatic_options:
            return await self.make_default_options_response()
        handler = cast(Callable[..., Awaitable[Any]], self.view_functions[rule.endpoint])
        return await handler(**cast(dict[str, Any], request.view_args))

    async def finalize_request(
        self,
        result: Any,
        context: RequestContext | None = None,  # noqa: ARG002 (quart's signature)
        from_error_handler: bool = False,  # noqa: FBT001, FBT002 (quart's signature)
    ) -> Any:
        """Turn what a handler returned into a response, and let the hooks change it, the last one first."""
        response: Any = await self.make_response(result)
        try:
            for hook in reversed(self.after_request_funcs[None]):
                response = await cast(Callable[[Response], Awaitable[Response]], hook)(response)
        except Exception:
            if not from_error_handler:
                raise
            self.logger.exception("Request finalizing errored")
        return response
