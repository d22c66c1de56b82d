"""The addresses behind a name, and what becomes of them when they change or nobody can say."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from attrs import define, field
from structlog.testing import capture_logs

from ark_trio.fleet.names import MOST_ADDRESSES, Found, LookupFailed, Resolver, follow, is_name
from ark_trio.settings.address import Address
from tests.support.dns import name_server
from tests.support.processes import free_port


@define
class Names:
    """Lookups as scripted; when each came, and what was told of them."""

    answers: list[Found | LookupFailed]
    at: list[float] = field(factory=list)
    told: list[tuple[str, ...]] = field(factory=list)

    async def lookup(self, name: str) -> Found:
        await trio.lowlevel.checkpoint()
        self.at.append(trio.current_time())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, LookupFailed):
            raise answer
        return answer

    async def run(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await follow("d.test", self.lookup, self.told.append)

    @property
    def pauses(self) -> list[float]:
        return [after - before for before, after in zip(self.at, self.at[1:], strict=False)]


def found(*addresses: str, holds_s: float = 10) -> Found:
    return Found(addresses=addresses, holds_s=holds_s)


async def test_a_name_is_looked_up_again_when_its_records_have_expired(autojump_clock):
    names = Names([found("10.0.0.1"), found("10.0.0.1"), found("10.0.0.1", "10.0.0.2")])
    await names.run(35)
    assert names.told == [("10.0.0.1",), ("10.0.0.1", "10.0.0.2")]
    assert all(10 <= pause <= 11 for pause in names.pauses)


@pytest.mark.parametrize(("holds_s", "least", "most"), [(0, 1, 1.1), (9e9, 300, 330)])
async def test_how_long_records_hold_has_bounds(holds_s, least, most, autojump_clock):
    names = Names([found("10.0.0.1", holds_s=holds_s)])
    await names.run(400)
    assert all(least <= pause <= most for pause in names.pauses)


async def test_a_name_with_addresses_without_end_has_as_many_decoders_as_are_borne(autojump_clock):
    addresses = tuple(f"10.0.{number // 256}.{number % 256}" for number in range(4000))
    names = Names([found(*addresses)])
    with capture_logs() as logs:
        await names.run(30)
    assert names.told == [addresses[:MOST_ADDRESSES]]
    assert [
        line["left_out"] for line in logs if line["event"] == "name_has_too_many_addresses"
    ] == [4000 - MOST_ADDRESSES]


async def test_while_nobody_can_say_what_was_known_stays(autojump_clock):
    names = Names([found("10.0.0.1"), LookupFailed("x"), LookupFailed("x"), found("10.0.0.2")])
    await names.run(60)
    assert names.told == [("10.0.0.1",), ("10.0.0.2",)]


async def test_failures_are_repeated_at_growing_pauses(autojump_clock):
    names = Names([LookupFailed("x")])
    await names.run(300)
    for pause, least in zip(names.pauses, [1, 2, 4, 8, 16, 30, 30, 30], strict=False):
        assert least <= pause <= 1.1 * least


@pytest.mark.parametrize(
    ("family", "addresses"),
    [
        ("auto", ("10.0.0.1", "10.0.0.2")),
        ("ipv4", ("10.0.0.1", "10.0.0.2")),
        ("ipv6", ("fd00::1",)),
        ("both", ("10.0.0.1", "10.0.0.2", "fd00::1")),
    ],
)
async def test_the_hosts_file_comes_first(family, addresses, tmp_path: Path):
    hosts = tmp_path / "hosts"
    hosts.write_text(
        "10.0.0.1 d D.test # one\n\nnonsense d.test\nfd00::1 d.test\n10.0.0.2 d.test x\n"
    )
    answer = await Resolver(family=family, hosts=hosts).lookup("d.TEST.")
    assert answer.addresses == addresses


def resolver(port: int, **more) -> Resolver:
    return Resolver(
        servers=(Address(host="127.0.0.1", port=port),), hosts=Path("/dev/null"), **more
    )


@pytest.mark.e2e
async def test_a_real_name_server_is_asked(tmp_path: Path):
    with name_server(tmp_path) as server:
        server.say(three=["127.0.0.3", "127.0.0.1", "127.0.0.2"], six=["fd00::1"])
        ask: Callable[[str], Awaitable[Found]] = resolver(server.port).lookup
        assert await ask("three.test") == found("127.0.0.1", "127.0.0.2", "127.0.0.3", holds_s=1)
        assert (await ask("six.test")).addresses == ("fd00::1",)
        with pytest.raises(LookupFailed, match="NXDOMAIN"):
            await ask("none.test")
        with pytest.raises(LookupFailed, match="no address"):
            await resolver(server.port, family="ipv6").lookup("three.test")


@pytest.mark.e2e
async def test_more_addresses_than_a_datagram_holds_all_come(tmp_path: Path):
    many = sorted(f"127.0.{n // 200}.{n % 200 + 1}" for n in range(300))
    with name_server(tmp_path) as server:
        server.say(many=many)
        assert (await resolver(server.port).lookup("many.test")).addresses == tuple(many)


async def test_a_name_server_that_is_not_there_is_a_failure_within_the_limit(autojump_clock):
    with pytest.raises(LookupFailed):
        await resolver(free_port()).lookup("d.test")
    assert trio.current_time() < 10


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("10.0.0.1", False),
        ("fd00::1", False),
        ("fe80::1%eth0", False),
        ("d.test", True),
        ("d", True),
    ],
)
def test_what_is_looked_up(host: str, name: bool):
    assert is_name(Address(host=host, port=1)) is name
