"""What goes out are the bytes that Quart would send."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from quart import Response
from quart.utils import encode_headers

from ark_trio.api.replies import json_reply, length_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
ADDED = st.lists(
    st.tuples(
        st.sampled_from(["retry-after", "WWW-Authenticate", "allow", "x-ratelimit-limit-requests"]),
        st.text(max_size=8).filter(lambda value: not set(value) & set("\r\n")),
    ),
    max_size=4,
    unique_by=lambda pair: pair[0],
)


@given(body=JSON, status=st.sampled_from([200, 400, 429, 503]), added=ADDED)
def test_json_has_the_headers_that_quart_gives_it(
    body: Any, status: int, added: list[tuple[str, str]]
):
    ours = json_reply(body, status)
    assert isinstance(ours.body, bytes)
    theirs = Response(ours.body, status=status, content_type="application/json")
    for name, value in added:
        ours.tell(name.lower(), value)
        theirs.headers[name] = value
    assert (ours.status, ours.headers) == (theirs.status_code, encode_headers(theirs.headers))


@given(st.binary(max_size=300))
def test_a_body_is_as_long_as_quart_tells(body: bytes):
    assert length_of(body) in encode_headers(Response(body).headers)
