"""The lean way to a response is quart-trio's own, told by what an application sees and answers."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
import trio
from attrs import define, field
from quart import Request, Response, has_app_context, has_request_context, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, NotFound

from ark_trio.api.dispatch import LeanQuart

BOTH = [QuartTrio, LeanQuart]


class Known(Exception):
    """One with a handler."""


@define
class Trace:
    """What an application has seen of one request, and what came out."""

    seen: list[str] = field(factory=list)
    came: Any = None


async def asked(kind: type[QuartTrio], path: str, method: str = "GET", host: str = "here") -> Trace:
    """Ask an application whose hooks and handlers tell what they see, and fail as the path says."""
    trace = Trace()
    web = kind("t", static_folder=None)
    web.config["PROPAGATE_EXCEPTIONS"] = False
    web.logger.disabled = True
    _furnish(web, trace.seen)
    try:
        response = await web.handle_request(to(web, path, method, host))
        body = await cast(Response, response).get_data(as_text=False)
        trace.came = (response.status_code, sorted(response.headers), body)
    except BaseException as error:  # noqa: BLE001 (it is what came)
        trace.came = _shape(error)
    trace.seen.append(f"bound afterwards: {has_request_context()}")
    return trace


def to(web: QuartTrio, path: str = "/", method: str = "GET", host: str = "here") -> Request:
    """Return a request as the server would have it made."""
    scope: dict[str, Any] = {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": path,
        "query_string": b"", "root_path": "", "headers": [(b"host", host.encode())],
    }  # fmt: skip
    connection = web.asgi_http_class(web, scope)  # type: ignore[arg-type]
    return connection._create_request_from_scope(_drop)


async def _drop(_message: Any) -> None:
    """Send nothing."""


def _shape(error: BaseException) -> Any:
    if isinstance(error, BaseExceptionGroup):
        return [type(error), sorted(map(str, map(_shape, error.exceptions)))]
    return (type(error), str(error))


FAULTS: dict[str, BaseException] = {
    "known": Known("k"),
    "bug": ValueError("b"),
    "http": NotFound(),
    "group": ExceptionGroup("g", [ValueError("x"), Known("k")]),
    "bugs": ExceptionGroup("g", [ValueError("x"), KeyError("y")]),
    "exit": BaseExceptionGroup("g", [SystemExit(3), ValueError("x")]),
    "known exit": BaseExceptionGroup("g", [SystemExit(3), Known("k")]),
    "interrupt": KeyboardInterrupt(),
}


def _furnish(web: QuartTrio, seen: list[str]) -> None:
    def fail(where: str) -> None:
        seen.append(where)
        _, _, rest = request.path.partition(f"/{where}/")
        if rest:
            raise FAULTS[rest]

    @web.get("/whole")
    async def whole() -> Response:
        seen.append(f"bound in the handler: {has_request_context()}, {request.path}")
        return Response(b"whole", headers={"x-a": "1"})

    @web.get("/pair")
    async def pair() -> Any:
        return {"a": 1}, 201, {"x-b": "2"}

    @web.get("/none")
    async def none() -> Any:
        return None

    @web.get("/<any(first,second,handler,after,late):where>/<fault>")
    async def handler(where: str, fault: str) -> Response:
        seen.append(f"{where} {fault}")
        fail("handler")
        return Response(b"late")

    _hook(web, seen, fail)


def _hook(web: QuartTrio, seen: list[str], fail: Callable[[str], None]) -> None:
    async def first() -> None:
        fail("first")

    async def second() -> Response | None:
        fail("second")
        return Response(b"early") if request.path == "/early" else None

    async def last_but_one(response: Response) -> Response:
        seen.append("last but one")
        response.headers["x-last"] = "1"
        return response

    async def after(response: Response) -> Response:
        fail("after")
        return response

    async def on_known(error: Known) -> Response:
        seen.append(f"on_known {error}")
        return Response(b"known", status=418)

    async def on_http(error: HTTPException) -> Response:
        seen.append(f"on_http {error.code} {type(getattr(error, 'original_exception', None))}")
        return Response(b"http", status=error.code)

    web.before_request(first)
    web.before_request(second)
    web.after_request(last_but_one)
    web.after_request(after)
    web.register_error_handler(Known, on_known)
    web.register_error_handler(HTTPException, on_http)


PLAIN = [
    ("/whole", "GET", "here"),
    ("/whole", "HEAD", "here"),
    ("/whole", "OPTIONS", "here"),
    ("/whole", "POST", "here"),
    ("/pair", "GET", "here"),
    ("/none", "GET", "here"),
    ("/early", "GET", "here"),
    ("/nowhere", "GET", "here"),
    ("/whole", "GET", "he re\\"),
]
FAULTY = [
    (f"/{where}/{fault}", "GET", "here")
    for where in ("first", "second", "handler", "after")
    for fault in FAULTS
]


@pytest.mark.parametrize("ask", PLAIN + FAULTY, ids=lambda ask: f"{ask[1]} {ask[0]} {ask[2]}")
async def test_requests_are_answered_and_fail_as_by_quart_trio(ask: Sequence[str]):
    theirs, ours = [await asked(kind, *ask) for kind in BOTH]
    assert ours == theirs


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("beside", [None, ValueError])
async def test_a_cancelled_handler_is_cancelled_not_answered(
    kind: type[QuartTrio], beside: type[Exception] | None
):
    """Also where its nursery has met a fault in the same breath: nobody is there to be told."""
    web = kind("t", static_folder=None)
    answered: list[Any] = []

    async def fail_late() -> None:
        try:
            await trio.sleep_forever()
        finally:
            if beside is not None:
                raise beside

    @web.get("/")
    async def handler() -> Response:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_late)
            nursery.start_soon(trio.sleep_forever)
        return Response(b"")

    with trio.move_on_after(0.01) as scope_of_request:
        answered.append(await web.handle_request(to(web)))
    assert scope_of_request.cancelled_caught
    assert not answered
    assert not has_request_context()


async def test_an_answer_is_sent_with_nothing_bound():
    web = LeanQuart("t", static_folder=None)
    bound: list[tuple[bool, bool]] = []

    @web.get("/")
    async def handler() -> Response:
        bound.append((has_request_context(), has_app_context()))
        return Response(b"")

    await web.handle_request(to(web))
    bound.append((has_request_context(), has_app_context()))
    assert bound == [(True, False), (False, False)]
