"""Clients hear what an engine has to say about their request, and nothing of where and how it runs."""

import time
from ipaddress import IPv4Address, IPv6Address

import pytest
from grpclib.const import Status
from hypothesis import given
from hypothesis import strategies as st

from ark_trio.rpc.hearsay import HIDDEN, told
from ark_trio.rpc.status import error_from_status

BLAMING = (
    Status.INVALID_ARGUMENT,
    Status.FAILED_PRECONDITION,
    Status.OUT_OF_RANGE,
    Status.NOT_FOUND,
    Status.ABORTED,
    Status.ALREADY_EXISTS,
)
WORDS = st.text(alphabet="abcdefgh ,", max_size=12)
NAMES = st.text(alphabet="abcxyz09_-", min_size=1, max_size=8)
INSIDE = (
    st.ip_addresses().map(lambda ip: f"[{ip}]" if isinstance(ip, IPv6Address) else str(ip))
    | st.ip_addresses(v=6).filter(lambda ip: not ip.is_unspecified).map(str)
    | st.builds("{}:{}".format, st.ip_addresses(v=4), st.integers(1, 65535))
    | st.builds(
        "{}.{}".format,
        NAMES.map(lambda n: f"n{n.strip('-_')}"),
        st.sampled_from(["local", "svc.cluster.local", "com"]),
    )
    | st.builds("n{}:{}".format, NAMES, st.integers(1024, 65535))
    | st.builds("http://{}/{}".format, NAMES, NAMES)
    | st.builds("unix:///run/{}".format, NAMES)
    | st.builds("/{}/{}".format, st.sampled_from(["opt", "home", "data", "var"]), NAMES)
    | st.builds("~/{}".format, NAMES.map(lambda n: f"n{n}"))
    | st.sampled_from(["ValueError: ", "torch.cuda.OutOfMemoryError: ", "grpc.RpcError("])
    | st.sampled_from(["<class 'dict'>", "<object object>"])
)


@given(WORDS, INSIDE, WORDS)
def test_what_tells_of_the_inside_is_taken_out(before, inside, after):
    heard = told(f"{before} {inside} {after}")
    assert inside.strip() not in (heard or "")
    for part in (before, after):
        assert heard is None or " ".join(part.split()) in heard


@pytest.mark.parametrize(
    "message",
    [
        "The context is 8192 tokens, the prompt has 9000.",
        "messages[0].content: expected text, got a list.",
        "response_format.json_schema.schema.$ref: #/definitions/a is not known.",
        "Grammar error: unexpected } in tokens[0:10], at 0x1f.",
        "#/properties/error: the pattern is no regular expression.",
        "guided_grammar: expected ::= at line 1, column 4.",
        "tools[0]: the schema at #/properties/x has minLength above its maxLength.",
        "max_tokens/n must be at most 4096; it is 5000 (and/or less).",
        "temperature: 2.5 is above 2.0; see top_p: 0.25.",
        "Between 12:30 and 14:00, 3.5 tokens/s.",
        "tools[0].function.name: größe",
    ],
)
def test_what_is_about_the_request_passes_as_it_stands(message):
    assert told(message) == message
    for status in BLAMING:
        assert error_from_status(status, message, {}).message == message


@pytest.mark.parametrize(
    "message",
    [
        'Traceback (most recent call last):\n  File "/opt/x.py", line 3, in f\nValueError: 5',
        "engine.cc:412 check failed",
        "<Session object at 0x7f00> is closed",
        "10.0.0.1:62000",
        "",
        None,
    ],
)
def test_a_message_with_nothing_to_tell_is_replaced(message):
    for status in BLAMING:
        error = error_from_status(status, message, {})
        assert error.message == "The engine refused the request."


def test_names_of_parameters_and_codes_are_names():
    def of(**metadata: str):
        error = error_from_status(Status.INVALID_ARGUMENT, "no", metadata)
        return error.param, error.code

    key, code = "ark-error-param", "ark-error-code"
    assert of(**{key: "messages[0].content", code: "too_long"}) == (
        "messages[0].content",
        "too_long",
    )
    assert of(**{key: "/opt/model", code: "at node7.local"}) == (None, None)
    assert of(**{key: "10.1.2.3:62000", code: "ValueError: x"}) == (None, None)


@pytest.mark.parametrize("piece", ["a.", "a", ":", "1.", "f:", "/a", "a-", "~/", "<class "])
def test_no_message_takes_long_to_read(piece):
    began = time.process_time()
    told(piece * 100_000)
    assert time.process_time() - began < 0.5


def test_addresses_of_both_kinds_were_tried():
    assert told(f"peer {IPv4Address('10.1.2.3')} gone") == "peer … gone"
    assert told(f"peer {IPv6Address('fe80::1')} gone") == "peer … gone"
    assert told("at [fe80::1%eth0]:62000.") == "at …."


@pytest.mark.parametrize(
    "unit", ["a.", "1.", "a.b-", "a-", ":", "f:", "a:", "../", "aError", "\\\\", "x.so"]
)
def test_no_words_hold_the_loop_for_long(unit: str):
    began = time.thread_time()
    for tail in ("", "!", "g"):
        told(unit * (1000 // len(unit)) + tail)
    assert time.thread_time() - began < 0.05


@pytest.mark.parametrize(
    "inside",
    [
        "./models/secret.gguf",
        "../etc/llama/x.gguf",
        "models/prod/x.gguf",
        "/0data/x",
        r"\\srv\share\m.bin",
        "gpu-node:443",
        "gpu7:80",
        "engine.example.ai",
    ],
)
def test_short_ways_of_naming_the_inside_are_taken_out_too(inside: str):
    assert told(f"can't load {inside} now") == f"can't load {HIDDEN} now"
