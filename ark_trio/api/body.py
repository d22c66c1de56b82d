"""The request body: JSON, whole, within the limits that Quart enforces for us."""

from quart import request

from ark_trio.errors import InvalidRequest


async def read_json_body() -> bytes:
    """Return the body's bytes.

    Raises:
        InvalidRequest: the client says that it is something else than JSON.
        HTTPException: 413 over the size limit, 408 when it does not arrive in time.
    """
    if request.content_length != 0 and request.mimetype not in ("", "application/json"):
        raise InvalidRequest("Content-Type must be application/json.")
    return await request.get_data(cache=False, as_text=False, parse_form_data=False)
