"""What one client that does not read costs 50 others on the same connection to the engine: the gaps between their tokens.

`python bench/stalled.py` runs both cases several times in turn and prints the difference of the medians of the 99th percentiles.
"""

import socket
import statistics
import sys
import time
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.processes import engine, gateway
from tests.support.wire import chat, post

LIVE = 50
TOKENS = 100
GAP_S = 0.05
ROUNDS = 5


async def gaps_of_one(port: int, gaps: list[float]) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.send_all(post(chat(f"count={TOKENS} gap_s={GAP_S}")))
    last, data = 0.0, b""
    while b"[DONE]" not in data[-64:]:
        data = await stream.receive_some(65536)
        now = time.perf_counter()
        if last and b'"content":"' in data:
            gaps.append(now - last)
        last = now
    await stream.aclose()


async def gaps_of_all(port: int) -> list[float]:
    gaps: list[float] = []
    async with trio.open_nursery() as nursery:
        for _ in range(LIVE):
            nursery.start_soon(gaps_of_one, port, gaps)
    return gaps


def p99_ms(port: int, *, stalled: bool) -> float:
    with socket.socket() as sock:
        if stalled:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", port))
            sock.sendall(post(chat("count=1000000 size=2000 burst=4 gap_s=0.05")))
            time.sleep(2)
        return statistics.quantiles(trio.run(gaps_of_all, port), n=100)[98] * 1000


def main() -> None:
    with engine("decoder", "--served-names", "echo") as decoder:
        with gateway("proxy", [decoder.port]) as door:
            p99_ms(door.port, stalled=False)  # warm
            rounds = [
                (p99_ms(door.port, stalled=False), p99_ms(door.port, stalled=True))
                for _ in range(ROUNDS)
            ]
    alone, beside = (statistics.median(case) for case in zip(*rounds, strict=True))
    print(f"p99 gap of {LIVE} live streams, {GAP_S * 1000:.0f} ms apart: alone {alone:.1f} ms,")
    print(f"beside a stalled one {beside:.1f} ms: {beside - alone:+.1f} ms")


if __name__ == "__main__":
    main()
