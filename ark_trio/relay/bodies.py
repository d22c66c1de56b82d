"""What the bodies of all requests together hold, from their arrival until their answers begin; beyond a limit they are refused.

Connections times the size of a body is more than any host has.
"""

from attrs import define


@define(eq=False)
class Share:
    """One request's part."""

    _bodies: "Bodies"
    _held: int = 0
    _closed: bool = False

    def take(self, size: int, limit: int) -> bool:
        """Hold `size` bytes more, if that leaves all together within `limit`; else give back what is held."""
        if self._closed:
            return True
        if self._bodies.held + size > limit:
            self.close()
            return False
        self._held += size
        self._bodies.held += size
        return True

    def close(self) -> None:
        """Give it back. Again does no harm."""
        self._bodies.held -= self._held
        self._held = 0
        self._closed = True


@define(eq=False)
class Bodies:
    """All of them."""

    held: int = 0
    """Bytes."""

    def share(self) -> Share:
        """Lend a share, to be closed."""
        return Share(self)
