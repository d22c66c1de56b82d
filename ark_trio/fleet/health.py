"""Is a decoder well, by what looking at it has shown so far? Pure.

One look that contradicts the others proves little, so it takes some in a row, either way.
"""

from attrs import define


@define(kw_only=True)
class Health:
    """What the looks have come to."""

    rise: int
    """Good looks in a row until it is well."""
    fall: int
    """Bad ones until it is not."""
    well: bool = False
    _contrary: int = 0
    """Looks in a row that contradict `well`."""
    _was_well: bool = False

    def saw(self, *, good: bool) -> None:
        """Take one look's result. Its first good look ever is enough: a gateway that starts is to serve soon."""
        if good == self.well:
            self._contrary = 0
            return
        self._contrary += 1
        needed = self.fall if self.well else self.rise if self._was_well else 1
        if self._contrary >= needed:
            self.well, self._contrary = good, 0
            self._was_well |= good

    def lost(self) -> None:
        """A request could not reach it: not well until a look shows the contrary, and one look is enough for that."""
        if self.well:
            self.well, self._contrary = False, self.rise - 1

    @property
    def doubtful(self) -> bool:
        """The last look contradicts: look again soon."""
        return self._contrary > 0
