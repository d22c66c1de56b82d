"""The addresses behind a decoder's name, followed as they change.

Every address of a name is a decoder. A name is looked up in the hosts file, then by DNS with the search list of resolv.conf,
again when its records have expired. While that fails, the addresses known before stay: a name server that is away, or that
has lost a name, must not take decoders away that are well.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from pathlib import Path

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.resolver
import structlog
import trio
from attrs import field, frozen

from ark_trio.config import DnsFamily
from ark_trio.settings.address import Address

log = structlog.get_logger()

SHORTEST_S = 1.0
"""Records may say 0: look again at once."""
LONGEST_S = 300.0
"""However long records say that they hold."""
RETRY_S = 1.0
"""After a failure; doubled after each further one, up to `RETRY_LONGEST_S`."""
RETRY_LONGEST_S = 30.0
LOOKUP_S = 5.0
MOST_ADDRESSES = 1000
"""Of one name: each is connected to and looked at. A record that has gone wrong must not cost more than that."""
HOSTS = Path("/etc/hosts")
_HOSTS_HOLD_S = 30.0


class LookupFailed(Exception):
    """The name has no address now, or nobody could say."""


@frozen(kw_only=True)
class Found:
    """What a lookup brought."""

    addresses: tuple[str, ...]
    """Sorted."""
    holds_s: float


Lookup = Callable[[str], Awaitable[Found]]


def is_name(address: Address) -> bool:
    """Whether it has to be looked up."""
    try:
        ip_address(address.host.partition("%")[0])
    except ValueError:
        return True
    return False


async def follow(name: str, lookup: Lookup, tell: Callable[[tuple[str, ...]], None]) -> None:
    """Tell the addresses of `name`, first and whenever they have changed, for ever."""
    known: tuple[str, ...] | None = None
    failures = 0
    while True:
        try:
            found = await lookup(name)
        except LookupFailed as error:
            if not failures:
                log.warning("name_lookup_failed", name=name, reason=str(error), kept=known or ())
            pause_s = min(RETRY_LONGEST_S, RETRY_S * 2.0 ** min(failures, 10))
            failures += 1
        else:
            failures = 0
            if found.addresses[:MOST_ADDRESSES] != known:
                known = found.addresses[:MOST_ADDRESSES]
                log.info("name_resolved", name=name, addresses=known)
                if left_out := len(found.addresses) - len(known):
                    log.warning("name_has_too_many_addresses", name=name, left_out=left_out)
                tell(known)
            pause_s = min(LONGEST_S, max(SHORTEST_S, found.holds_s))
        await trio.sleep(pause_s * random.uniform(1.0, 1.1))  # noqa: S311 (spreads gateways)


@frozen(kw_only=True)
class Resolver:
    """Looks names up."""

    family: DnsFamily = "auto"
    servers: tuple[Address, ...] = ()
    """Name servers; none: those of resolv.conf."""
    hosts: Path = field(default=HOSTS)

    async def lookup(self, name: str) -> Found:
        """Return the addresses of `name`.

        Raises:
            LookupFailed: there are none, or nobody could say within `LOOKUP_S`.
        """
        if listed := self._wanted(self._listed(name)):
            await trio.lowlevel.checkpoint()
            return Found(addresses=listed, holds_s=_HOSTS_HOLD_S)
        with trio.move_on_after(LOOKUP_S):
            return await self._ask(name)
        raise LookupFailed("no answer in time")

    async def _ask(self, name: str) -> Found:
        answers = []
        for kind in _RECORDS[self.family]:
            if answer := await self._records(name, kind):
                answers.append(answer)
                if self.family == "auto":
                    break
        if not answers:
            raise LookupFailed("no address")
        return Found(
            addresses=tuple(sorted({record.address for answer in answers for record in answer})),
            holds_s=min(answer.chaining_result.minimum_ttl for answer in answers),
        )

    async def _records(self, name: str, kind: str) -> dns.resolver.Answer | None:
        """Return the records of one kind; None: the name exists, but has none."""
        try:
            # Made anew each time, since resolv.conf may have changed.
            resolver = dns.asyncresolver.Resolver(configure=not self.servers)
            if self.servers:
                resolver.nameservers = [
                    dns.nameserver.Do53Nameserver(server.host, server.port)
                    for server in self.servers
                ]
            backend = dns.asyncbackend.get_backend("trio")
            return await resolver.resolve(
                name, kind, search=True, lifetime=LOOKUP_S, backend=backend
            )
        except dns.resolver.NoAnswer:
            return None
        except (dns.exception.DNSException, OSError) as error:
            raise LookupFailed(type(error).__name__) from error

    def _listed(self, name: str) -> list[str]:
        """Return what the hosts file says."""
        try:
            lines = self.hosts.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []
        fields = [line.partition("#")[0].split() for line in lines]
        wanted = name.rstrip(".").lower()
        return [first for first, *names in filter(None, fields) if wanted in map(str.lower, names)]

    def _wanted(self, addresses: Sequence[str]) -> tuple[str, ...]:
        """Return those of the family that is wanted, each once."""
        by_version: dict[int, set[str]] = {4: set(), 6: set()}
        for text in addresses:
            try:
                by_version[ip_address(text).version].add(text)
            except ValueError:
                continue  # a hosts file may hold anything
        chosen = {
            "auto": by_version[4] or by_version[6],
            "ipv4": by_version[4],
            "ipv6": by_version[6],
            "both": by_version[4] | by_version[6],
        }
        return tuple(sorted(chosen[self.family]))


_RECORDS: dict[DnsFamily, tuple[str, ...]] = {
    "auto": ("A", "AAAA"),
    "ipv4": ("A",),
    "ipv6": ("AAAA",),
    "both": ("A", "AAAA"),
}
