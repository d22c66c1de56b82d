"""New connections go to the worker that has the fewest, where several accept at one socket.

The kernel wakes all of them, in the same order each time, and whoever is there first takes what waits: of two idle workers one
took all of a hundred streams, which last. So who has more than another leaves it a moment.
"""

import trio

from ark_trio.relay.crowd import Crowd

_TURN_S = 0.001


class FairListener(trio.abc.Listener[trio.SocketStream]):
    """One worker's end of the socket."""

    def __init__(self, listener: trio.SocketListener, crowd: Crowd, worker: int) -> None:
        self._listener = listener
        self._crowd = crowd
        self._worker = worker

    async def accept(self) -> trio.SocketStream:
        """Accept a connection, once nobody who has fewer has taken it."""
        while True:
            await trio.lowlevel.wait_readable(self._listener.socket)
            if self._crowd.is_fuller(self._worker):
                await trio.sleep(_TURN_S)
            with trio.move_on_after(_TURN_S):
                return await self._listener.accept()

    async def aclose(self) -> None:
        """Close it."""
        await self._listener.aclose()
