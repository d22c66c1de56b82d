"""A decoder that is not what it seems, as a process: `python odd_decoder.py PORT KIND MODEL`.

It says that it is well and serves; then it answers `slow`ly, is `refusing` each request, or `breaking` off each answer.
"""

import sys

import trio

from ark_trio.errors import Unavailable
from ark_trio.rpc.outbox import Outbox
from tests.support.fake_engine import Call, Script, failing, open_fake_decoder, saying, text

SLOW_S = 0.5


async def break_off(call: Call, outbox: Outbox) -> None:
    """End without a finish reason, and with status OK."""
    await outbox.put(call.say(text("a")))


KINDS: dict[str, Script] = {
    "slow": saying("a", gap_s=SLOW_S),
    "refusing": failing(Unavailable("not now")),
    "breaking": break_off,
}


async def main(port: int, kind: str, model: str) -> None:
    status = {"models": [model], "role": "decoder"}
    async with open_fake_decoder(KINDS[kind], port, status=status):
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), sys.argv[2], sys.argv[3])
