"""What the readers of tool-call syntaxes share: the text to read, and what it was understood to be so far."""

from typing import Final, Protocol

from attrs import define, field

from ark_trio.protocol.step import ToolCallDelta

SPACE: Final = " \t\r\n"


@define
class Cursor:
    """One choice's text."""

    held: str = ""
    """Not read yet."""
    raw: str = ""
    """Read, but not understood: text again, if no call comes of it."""
    calls: list[ToolCallDelta] = field(factory=list)
    """Understood, and not yet handed out."""
    in_call: bool = False
    """A call has begun, with its name, and has not ended: what is read is understood."""
    _next: int = 0
    _has_arguments: bool = False

    def read(self, size: int) -> str:
        """Take `size` characters."""
        text, self.held = self.held[:size], self.held[size:]
        if not self.in_call:
            self.raw += text
        return text

    def skip(self, chars: str) -> str:
        """Take all of `chars` that stand here, and return what follows."""
        self.read(len(self.held) - len(self.held.lstrip(chars)))
        return self.held

    def drop(self, size: int) -> None:
        """Take `size` characters that only belong to the syntax."""
        self.held = self.held[size:]

    @property
    def called(self) -> bool:
        """There has been a call."""
        return self._next > 0 or self.in_call

    def begin(self, name: str) -> None:
        """Open a call."""
        self.calls.append(ToolCallDelta(index=self._next, name=name))
        self.raw, self.in_call, self._has_arguments = "", True, False

    def add(self, arguments: str) -> None:
        """Go on with the call's arguments."""
        if arguments:
            self._has_arguments = True
            self.calls.append(ToolCallDelta(index=self._next, arguments=arguments))

    def end(self) -> None:
        """Close the call. Arguments that were never written are none."""
        if not self._has_arguments:
            self.add("{}")
        self._next += 1
        self.in_call = False


class Block(Protocol):
    """Reads calls in one syntax."""

    @property
    def over(self) -> bool:
        """What follows is text again, and so is what the cursor holds as `raw`."""

    def step(self) -> bool:
        """Read on; False: not without more text."""

    def cut_off(self) -> None:
        """Make what can be made of the held text, for no more will come."""
