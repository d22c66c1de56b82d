"""Our way to a reply is quart-trio's own, told by what hooks and handlers see and what comes out."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
import structlog
import trio
from attrs import define, field
from quart import Request, Response
from quart.utils import encode_headers
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, NotFound

from ark_trio.api.arrival import Body
from ark_trio.api.dispatch import Dispatch
from ark_trio.api.exchange import Exchange
from ark_trio.api.headers import RequestHeaders
from ark_trio.api.replies import Reply, reply_to_ark_error, reply_to_http_exception
from ark_trio.errors import ArkError, Conflict
from ark_trio.relay.record import Record

Way = Callable[["Case"], Awaitable[None]]


@define
class Case:
    """One request, at which something fails, and what was seen of it."""

    where: str
    fault: BaseException | None
    seen: list[str] = field(factory=list)
    came: Any = None

    def pass_by(self, where: str) -> None:
        self.seen.append(where)
        if where == self.where and self.fault is not None:
            raise self.fault


def exchange(nursery: trio.Nursery | None = None) -> Exchange:
    """An exchange that nobody looks at closely."""
    nothing = cast(Any, None)
    return Exchange(
        nursery=cast(trio.Nursery, nursery),
        record=Record(request_id="r", method="GET", path="/"),
        gateway=nothing,
        tab=nothing,
        scope={},
        method="GET",
        path="/",
        headers=RequestHeaders([]),
        body=Body(None, 0),
    )


async def by_us(case: Case) -> None:
    """Ask our dispatch."""

    def first(_: Exchange) -> None:
        case.pass_by("first")

    def second(_: Exchange) -> Reply | None:
        case.pass_by("second")
        return Reply(202, [], b"early") if case.where == "early" else None

    async def handler(_: Exchange) -> Reply:
        case.pass_by("handler")
        return Reply(200, [(b"x-a", b"1")], b"whole")

    def after(_: Exchange, __: Reply) -> None:
        case.pass_by("after")

    def last(_: Exchange, reply: Reply) -> None:
        case.seen.append("last")
        reply.tell("x-last", "1")

    reply = await Dispatch(before=(first, second), behind=(after, last)).answer(exchange(), handler)
    case.came = (reply.status, reply.headers, reply.body)


async def by_quart(case: Case) -> None:
    """Ask an application of quart-trio's with the same hooks, the same handler and our word for errors."""
    web = QuartTrio("t", static_folder=None)
    web.config["PROPAGATE_EXCEPTIONS"] = False
    web.logger.disabled = True
    here = exchange()

    async def first() -> None:
        case.pass_by("first")

    async def second() -> Response | None:
        case.pass_by("second")
        return bare(202, b"early") if case.where == "early" else None

    @web.get("/")
    async def handler() -> Response:
        case.pass_by("handler")
        response = bare(200, b"whole")
        response.headers["x-a"] = "1"
        return response

    async def last(response: Response) -> Response:
        case.seen.append("last")
        response.headers["x-last"] = "1"
        return response

    async def after(response: Response) -> Response:
        case.pass_by("after")
        return response

    async def on_ark(error: ArkError) -> Response:
        return as_response(reply_to_ark_error(here, error))

    async def on_http(error: HTTPException) -> Response:
        return as_response(reply_to_http_exception(here, error))

    web.before_request(first)
    web.before_request(second)
    web.after_request(last)  # quart asks the last one first
    web.after_request(after)
    web.register_error_handler(ArkError, on_ark)
    web.register_error_handler(HTTPException, on_http)
    response = cast(Response, await web.handle_request(to(web)))
    case.came = (
        response.status_code,
        encode_headers(response.headers),
        await response.get_data(as_text=False),
    )


def bare(status: int, body: bytes) -> Response:
    response = Response(body, status=status)
    del response.headers["content-type"], response.headers["content-length"]
    return response


def as_response(reply: Reply) -> Response:
    response = bare(reply.status, cast(bytes, reply.body))
    for name, value in reply.headers:
        response.headers.add(name.decode(), value.decode())
    return response


def to(web: QuartTrio) -> Request:
    """Return a request as the server would have it made."""
    scope: dict[str, Any] = {
        "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": "/",
        "query_string": b"", "root_path": "", "headers": [(b"host", b"here")],
    }  # fmt: skip
    return web.asgi_http_class(web, scope)._create_request_from_scope(_drop)  # type: ignore[arg-type]


async def _drop(_message: Any) -> None:
    """Send nothing."""


async def outcome(way: Way, where: str, fault: BaseException | None) -> Case:
    case = Case(where, fault)
    try:
        await way(case)
    except trio.Cancelled:
        raise
    except BaseException as error:  # noqa: BLE001 (it is what came)
        case.came = _shape(error)
    return case


def _shape(error: BaseException) -> Any:
    if isinstance(error, BaseExceptionGroup):
        return [type(error), sorted(map(str, map(_shape, error.exceptions)))]
    return (type(error), str(error))


FAULTS: dict[str, BaseException] = {
    "known": Conflict("k"),
    "bug": ValueError("b"),
    "http": NotFound(),
    "group": ExceptionGroup("g", [ValueError("x"), Conflict("k")]),
    "two": ExceptionGroup("g", [NotFound(), Conflict("k")]),
    "deep": ExceptionGroup("g", [ExceptionGroup("h", [KeyError("y"), Conflict("k")])]),
    "bugs": ExceptionGroup("g", [ValueError("x"), KeyError("y")]),
    "exit": BaseExceptionGroup("g", [SystemExit(3), ValueError("x")]),
    "late exit": BaseExceptionGroup("g", [ValueError("x"), SystemExit(3)]),
    "known exit": BaseExceptionGroup("g", [SystemExit(3), Conflict("k")]),
    "exit known": BaseExceptionGroup("g", [Conflict("k"), SystemExit(3)]),
    "interrupt": KeyboardInterrupt(),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("where", ["first", "second", "handler", "after"])
async def test_failures_are_answered_or_raised_as_by_quart_trio(where: str, fault: str):
    with structlog.testing.capture_logs():
        theirs, ours = [await outcome(way, where, FAULTS[fault]) for way in (by_quart, by_us)]
    assert (ours.seen, ours.came) == (theirs.seen, theirs.came)


@pytest.mark.parametrize("where", ["early", "nowhere"])
async def test_replies_are_made_and_added_to_as_by_quart_trio(where: str):
    theirs, ours = [await outcome(way, where, None) for way in (by_quart, by_us)]
    assert (ours.seen, ours.came) == (theirs.seen, theirs.came)


async def test_a_bug_is_logged_with_its_traceback_and_the_requests_id():
    with structlog.testing.capture_logs() as lines:
        case = await outcome(by_us, "handler", ValueError("secret"))
    assert case.came[0] == 500
    assert b"secret" not in case.came[2]
    (line,) = [line for line in lines if line["log_level"] == "error"]
    assert (line["event"], line["request_id"], line["exc_info"]) == ("request_crashed", "r", True)


@pytest.mark.parametrize("beside", [None, ValueError])
async def test_a_cancelled_handler_is_cancelled_not_answered(beside: type[Exception] | None):
    """Also where its nursery has met a fault in the same breath: nobody is there to be told."""
    answered: list[Any] = []

    async def fail_late() -> None:
        try:
            await trio.sleep_forever()
        finally:
            if beside is not None:
                raise beside

    async def handler(_: Exchange) -> Reply:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_late)
            nursery.start_soon(trio.sleep_forever)
        return Reply(200, [], b"")

    with trio.move_on_after(0.01) as scope_of_request:
        answered.append(await Dispatch().answer(exchange(), handler))
    assert scope_of_request.cancelled_caught
    assert not answered
