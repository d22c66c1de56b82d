from pathlib import Path

import pytest

from ark_trio.settings.address import Address, Bind, parse_address, parse_bind, parse_target


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:18080", "127.0.0.1", 18080),
        ("[::1]:18080", "::1", 18080),
        ("decoder-1.example:1", "decoder-1.example", 1),
        ("0.0.0.0:65535", "0.0.0.0", 65535),
    ],
)
def test_an_address_survives_being_read_and_written(text, host, port):
    address = parse_address(text)
    assert (address.host, address.port) == (host, port)
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        ":80",
        "host:",
        "host:0",
        "host:65536",
        "host:-1",
        "host:8 0",
        "host:٣",
        "a b:1",
        "::1:80",
        "[::1",
        "[::1]x",
        "[127.0.0.1]:80",
        "[x]:1",
        "http://host:1",
        "host:62000/generate",
    ],
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        parse_address(text)


def test_a_lone_host_takes_the_default_port():
    assert parse_address("decoder", default_port=62000) == Address(host="decoder", port=62000)
    assert parse_address("[::1]", default_port=62000) == Address(host="::1", port=62000)


def test_the_any_address_as_a_target_means_this_host():
    assert parse_target("0.0.0.0:62000") == Address(host="127.0.0.1", port=62000)
    assert parse_target("[::]:62000") == Address(host="::1", port=62000)


@pytest.mark.parametrize("text", ["127.0.0.1:18080", "[::1]:0", "unix:/run/ark/http.sock"])
def test_a_bind_survives_being_read_and_written(text):
    assert str(parse_bind(text)) == text


@pytest.mark.parametrize("text", ["unix:", "unix:relative", "unix:/" + "x" * 107])
def test_a_socket_path_that_the_kernel_would_refuse_is_refused_at_once(text):
    with pytest.raises(ValueError, match="path"):
        parse_bind(text)


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.8.0.1:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/run/x", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("gateway:1", False),
    ],
)
def test_only_what_this_host_alone_can_reach_counts_as_loopback(text, loopback):
    assert parse_bind(text).is_loopback is loopback


def test_a_socket_path_is_a_path():
    assert Bind(path=Path("/run/x")).path == Path("/run/x")
