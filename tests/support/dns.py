"""A real name server on loopback: dnsmasq, whose names the test changes while it runs."""

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import define

from tests.support.processes import Process, free_port, running, wait_until


@define(eq=False)
class NameServer:
    """Answers for what `say` was told last; TTL 1."""

    port: int
    process: Process
    _hosts: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def say(self, **names: list[str]) -> None:
        """Know these names, and no others. In them _ stands for a dash."""
        lines = [
            f"{address} {name.replace('_', '-')}.test\n"
            for name, addresses in names.items()
            for address in addresses
        ]
        self._hosts.write_text("".join(lines))
        read = self.process.log.count(" read ")
        self.process.signal(signal.SIGHUP)
        wait_until(lambda: self.process.log.count(" read ") > read, within_s=5, what="the names")


@contextmanager
def name_server(folder: Path, port: int | None = None) -> Iterator[NameServer]:
    """Run one until the block ends. It knows nothing of other zones and asks nobody."""
    program = shutil.which("dnsmasq") or "/usr/sbin/dnsmasq"
    if not Path(program).exists():
        pytest.fail("this machine lacks: dnsmasq (apt-get install -y dnsmasq-base)")
    hosts = folder / "hosts"
    hosts.touch()
    chosen = port or free_port()
    command = [
        program,
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--log-facility=-",
        "--log-queries",
        "--user=",
        "--pid-file=",
        f"--port={chosen}",
        "--listen-address=127.0.0.1",
        "--bind-interfaces",
        "--no-resolv",
        "--no-hosts",
        f"--addn-hosts={hosts}",
        "--local=/test/",
        "--local-ttl=1",
    ]
    with running(command) as process:
        wait_until(lambda: "started" in process.log, within_s=10, what="dnsmasq")
        yield NameServer(chosen, process, hosts)
