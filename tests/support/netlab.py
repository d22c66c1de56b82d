"""Two network namespaces joined by a link that can be slow, lossy or cut: two hosts on one machine.

The link is a pair of TUN devices whose packets a thread of ours carries (the kernel here has no netem), keeping their order.
"""

import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import Factory, define

from tests.support.netns import ip, own_name, run_in, sweep

NAMESPACES = Path("/run/netns")
PREFIX = "ark-lab-"
MTU = 1400

_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_DEVICE = b"ark0"
_POLL_S = 0.05
_BATCH = 64


@define(eq=False)
class Link:
    """The link between the two; its fields may be changed while it carries."""

    names: tuple[str, str]
    """The namespaces."""
    devices: tuple[int, int]
    delay_s: float = 0.0
    """One way."""
    loss: float = 0.0
    """Share of packets that are lost, from 0 to 1."""
    up: bool = True
    """False: a partition; everything is lost."""
    carried: list[int] = Factory(lambda: [0, 0])
    _stopping: threading.Event = Factory(threading.Event)
    _waiting: list[tuple[float, int, int, bytes]] = Factory(list)
    _order: "itertools.count[int]" = Factory(itertools.count)

    def carry(self) -> None:
        """Move packets until stopped; the work of its thread."""
        while not self._stopping.is_set():
            until_due = self._waiting[0][0] - time.monotonic() if self._waiting else _POLL_S
            readable, _, _ = select.select(self.devices, [], [], min(max(until_due, 0), _POLL_S))
            for device in readable:
                self._take(device)
            self._deliver()

    def stop(self) -> None:
        self._stopping.set()

    def _take(self, device: int) -> None:
        side = self.devices.index(device)
        for _ in range(_BATCH):
            try:
                packet = os.read(device, 65535)
            except BlockingIOError:
                return
            self.carried[side] += 1
            if self.up and random.random() >= self.loss:
                due = time.monotonic() + self.delay_s
                entry = (due, next(self._order), self.devices[1 - side], packet)
                heapq.heappush(self._waiting, entry)

    def _deliver(self) -> None:
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            _, _, device, packet = heapq.heappop(self._waiting)
            with suppress(OSError):
                os.write(device, packet)


@contextmanager
def linked(addresses: tuple[str, str]) -> Iterator[Link]:
    """Two namespaces, each with one address, that reach each other; gone when the block ends."""
    for left in sweep(NAMESPACES, PREFIX) if NAMESPACES.is_dir() else ():
        ip("netns", "delete", left.name)
    base = own_name(PREFIX)
    names = (f"{base}-a", f"{base}-b")
    made: list[str] = []
    devices: list[int] = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
            devices.append(run_in(NAMESPACES / name, _open_device))
        for name, own, peer in zip(names, addresses, reversed(addresses), strict=True):
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "address", "add", own, "peer", peer, "dev", _DEVICE.decode())
            ip("-n", name, "link", "set", _DEVICE.decode(), "mtu", str(MTU), "up")
        with _carried(Link(names, (devices[0], devices[1]))) as link:
            yield link
    finally:
        for device in devices:
            os.close(device)
        for name in made:
            ip("netns", "delete", name)


@contextmanager
def _carried(link: Link) -> Iterator[Link]:
    thread = threading.Thread(target=link.carry)
    thread.start()
    try:
        yield link
    finally:
        link.stop()
        thread.join()


def _open_device() -> int:
    """A TUN device of the namespace that this thread is in."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", _DEVICE, _IFF_TUN | _IFF_NO_PI))
    return device
