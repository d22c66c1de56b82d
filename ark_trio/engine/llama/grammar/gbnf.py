"""What is wrong with a client's own grammar, before llama.cpp sees it.

llama.cpp refuses a bad one too, but tells the reason, and the grammar with it, to the standard error instead of the caller.
What is not judged here (marks for tokens, other notations, very long grammars) is left to it.
Source: llama.cpp, src/llama-grammar.cpp and grammars/README.md.
"""

import re
from collections.abc import Mapping

from attrs import define

from ark_trio.engine.llama.grammar.bounds import TIMES, is_inverted
from ark_trio.engine.llama.grammar.chars import ANY
from ark_trio.engine.llama.grammar.expression import (
    Char,
    Choice,
    Expression,
    Ref,
    Repeat,
    Row,
    Rules,
    Text,
)
from ark_trio.engine.llama.grammar.left_recursion import left_recursive
from ark_trio.engine.llama.grammar.writer import Unsupported

_MAX_JUDGED = 32 << 10
_OTHER_NOTATION = "%llguidance"
_NAME = re.compile(r"[a-zA-Z0-9-]+")
_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_CHAR = re.compile(
    r'\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\U[0-9a-fA-F]{8}|\\[trn"\\\[\]]|[^\\]', re.DOTALL
)
_SHORT: Mapping[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_VOCABULARY_MARKS = "<!"


class _NotJudged(Exception):
    """It has something that is not known here."""


def check_gbnf(text: str) -> None:
    """Check a grammar in llama.cpp's notation.

    Raises:
        Unsupported: it can't be used; the text says why and where.
    """
    rules = None if len(text) > _MAX_JUDGED else _rules(text)
    if rules is None:
        # {3,1} keeps llama.cpp busy until the memory is used up, wherever it stands.
        if any(map(is_inverted, TIMES.finditer(text))):
            raise Unsupported("it repeats something more often than it may")
        return
    if "root" not in rules:
        raise Unsupported("it has no rule called root")
    if (name := left_recursive(rules)) is not None:
        raise Unsupported(f"its rule {name} begins with itself")


def _rules(text: str) -> Rules | None:
    """Return a grammar's rules; None: it has something that is not known here."""
    if text.startswith(_OTHER_NOTATION):
        return None
    try:
        return _Reader(text).rules()
    except _NotJudged:
        return None


@define
class _Reader:
    text: str
    at: int = 0

    def rules(self) -> Rules:
        """Return the rules. What characters stand for does not matter here."""
        rules: dict[str, Expression] = {}
        used: dict[str, int] = {}
        self._skip(_LINES)
        while self.at < len(self.text):
            name = self._name()
            self._skip(_SPACE)
            self._expect("::=")
            self._skip(_LINES)
            rules[name] = self._alternatives(used, inner=False)
            if self.at < len(self.text) and self.text[self.at] not in "\r\n":
                raise self._wrong("expected the end of a line")
            self._skip(_LINES)
        for name, at in used.items():
            if name not in rules:
                self.at = at
                raise self._wrong(f"there is no rule {name}")
        return rules

    def _alternatives(self, used: dict[str, int], *, inner: bool) -> Expression:
        found = [self._sequence(used, inner=inner)]
        while self.text.startswith("|", self.at):
            self.at += 1
            self._skip(_LINES)
            found.append(self._sequence(used, inner=inner))
        return Choice(tuple(found))

    def _sequence(self, used: dict[str, int], *, inner: bool) -> Expression:
        """Read items in a row. Within parentheses, lines may end between them."""
        items: list[Expression] = []
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in _SHORT or char == "{":
                if not items:
                    raise self._wrong(f"expected something to repeat before {char}")
                items[-1] = Repeat(items[-1], *self._times(char))
            elif char == "(":
                begin = self.at
                self.at += 1
                self._skip(_LINES)
                items.append(self._alternatives(used, inner=True))
                if not self.text.startswith(")", self.at):
                    self.at = begin if self.at >= len(self.text) else self.at
                    raise self._wrong("expected ) to what was opened")
                self.at += 1
            elif (item := self._item(char, used)) is not None:
                items.append(item)
            else:
                break
            self._skip(_LINES if inner else _SPACE)
        return Row(tuple(items))

    def _item(self, char: str, used: dict[str, int]) -> Expression | None:
        if char in _VOCABULARY_MARKS:
            raise _NotJudged
        if char == '"':
            return Text("x" if self._quoted('"', "text") else "")
        if char == "[":
            self._quoted("]", "characters")
            return Char(ANY)
        if char == ".":
            self.at += 1
            return Char(ANY)
        if _NAME.match(char):
            at = self.at
            name = self._name()
            used.setdefault(name, at)
            return Ref(name)
        return None

    def _quoted(self, end: str, what: str) -> int:
        """Read past the mark that ends what begins here; return how many characters there are in between."""
        begin, count = self.at, 0
        self.at += 1
        while not self.text.startswith(end, self.at):
            match = _CHAR.match(self.text, self.at)
            if match is None and self.at < len(self.text):
                raise self._wrong("expected an escape that is known")
            if match is None:
                self.at = begin
                raise self._wrong(f"expected {end} at the end of the {what}")
            self.at, count = match.end(), count + 1
        self.at += 1
        return count

    def _times(self, char: str) -> tuple[int, int | None]:
        if char in _SHORT:
            self.at += 1
            return _SHORT[char]
        match = TIMES.match(self.text, self.at)
        if match is None:
            raise self._wrong("expected a number of times, as in {2,5}")
        if is_inverted(match):
            raise self._wrong("expected the higher number of times last")
        self.at = match.end()
        least, more, most = match.groups()
        return int(least), (int(most) if most else None) if more else int(least)

    def _name(self) -> str:
        match = _NAME.match(self.text, self.at)
        if match is None:
            raise self._wrong("expected the name of a rule")
        self.at = match.end()
        return match[0]

    def _expect(self, mark: str) -> None:
        if not self.text.startswith(mark, self.at):
            raise self._wrong(f"expected {mark}")
        self.at += len(mark)

    def _skip(self, space: re.Pattern[str]) -> None:
        match = space.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def _wrong(self, what: str) -> Unsupported:
        before = self.text[: self.at]
        line, column = before.count("\n") + 1, self.at - (before.rfind("\n") + 1) + 1
        return Unsupported(f"{what} at line {line}, column {column}")
