"""Clients that ask for short streams, one after the other, each over a connection of its own, and miss nothing."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import Factory, define

from tests.support.netns import connect, enter
from tests.support.wire import chat, post, read_until

DONE = b"data: [DONE]\n\n"
STOP = b'"finish_reason":"stop"'


@define(eq=False)
class Load:
    """What the clients have seen."""

    completed: int = 0
    failures: list[str] = Factory(list)
    stopping: threading.Event = Factory(threading.Event)


@contextmanager
def under_load(
    network: Path, *, port: int = 18080, clients: int = 6, script: str = "count=8 gap_s=0.03"
) -> Iterator[Load]:
    """Have `clients` of them at work while the block runs; every answer has ended when it has."""
    load = Load()
    threads = [
        threading.Thread(target=_ask_again_and_again, args=(load, network, port, script))
        for _ in range(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.stopping.set()
        for thread in threads:
            thread.join(60)


def _ask_again_and_again(load: Load, network: Path, port: int, script: str) -> None:
    enter(network)
    while not load.stopping.is_set():
        try:
            with connect(network, "127.0.0.1", port) as sock:
                sock.sendall(post(chat(script)))
                answer = read_until(sock, DONE, within_s=40)
        except OSError as error:
            load.failures.append(repr(error))
        else:
            if STOP in answer and b"HTTP/1.1 200" in answer:
                load.completed += 1
            else:
                load.failures.append(answer[-400:].decode(errors="replace"))
