"""A request's body on its way in. Who hands pieces over never waits, who wants the whole does."""

from typing import Final

from ark_trio.bell import Bell
from ark_trio.errors import ArkError, BodyTooLarge

_TOO_LARGE: Final = "The request body is larger than is allowed."


class Body:
    """One request's body. `announced`: how many bytes the client says it has, if it does; `most`: how many it may have."""

    __slots__ = ("_bell", "_complete", "_data", "_failure", "_most", "announced")

    def __init__(self, announced: int | None, most: int) -> None:
        self.announced = announced
        self._most = most
        self._data: bytes | bytearray = b""
        self._complete = False
        self._failure: ArkError | None = None
        self._bell = Bell()
        if announced is not None and announced > most:
            self._failure = BodyTooLarge(_TOO_LARGE)

    @property
    def arrived(self) -> bool:
        """Whether `whole` need not wait."""
        return self._complete or self._failure is not None

    def feed(self, data: bytes) -> None:
        """Take a piece. Beyond the limit it is the last one."""
        if not data or self._failure is not None:
            return
        if len(self._data) + len(data) > self._most:
            self.fail(BodyTooLarge(_TOO_LARGE))
        elif not self._data:
            self._data = bytes(data)  # most bodies come in one piece, and that is not copied
        elif isinstance(self._data, bytearray):
            self._data += data
        else:
            self._data = bytearray(
                self._data
            )  # no list of pieces: a small one costs ten times its size
            self._data += data

    def end(self) -> None:
        """There are no more pieces."""
        self._complete = True
        self._bell.ring()

    def fail(self, error: ArkError) -> None:
        """Have it refused. What has come of it is let go of, and what comes is not kept."""
        self._failure = error
        self._data = b""
        self.end()

    async def whole(self) -> bytes:
        """Return all of it once it is there; it is the caller's then.

        Raises:
            ArkError: it is refused.
        """
        while not self.arrived:
            await self._bell.heard()
        if self._failure is not None:
            raise self._failure
        data, self._data = bytes(self._data), b""
        return data
