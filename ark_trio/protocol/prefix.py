"""The beginning of a conversation, by which its turns are known to belong together, and how long it is.

An engine that has answered a turn likely still has its KV cache, so the next turn is best sent there. What is hashed must
stay the same as a conversation grows, and tell apart conversations under one long system prompt: the messages up to the
first user's, or the first `MIN_CHARS` of all where those are shorter. What is shorter yet is computed as quickly anywhere.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import takewhile
from typing import Final

from ark_trio.protocol.completion_body import Prompt
from ark_trio.protocol.message import ImagePart, Message

MIN_CHARS: Final = 256
_CHARS_A_TOKEN: Final = 4
_MIN_TOKENS: Final = MIN_CHARS // _CHARS_A_TOKEN
_END_CHARS: Final = 4096
"""Of a long text both ends are hashed: 20 µs, where the whole may be megabytes."""
_IMAGE_TOKENS: Final = 1000
_TURN_TOKENS: Final = 4
"""What a template writes around a turn."""


def conversation_key(messages: Sequence[Message]) -> bytes | None:
    """Return what the turns of this conversation share; None: it is too short to matter."""
    before = [*takewhile(lambda message: message.role != "user", messages)]
    beginning = _spelled(messages[: len(before) + 1])
    if len(beginning) >= MIN_CHARS:
        return _hashed(beginning)
    return _hashed_start(_spelled(messages))


def prompt_key(prompt: Prompt) -> bytes | None:
    """Return what prompts that begin alike share; None: it is too short to matter."""
    if isinstance(prompt, str):
        return _hashed_start(prompt)
    return _hashed(repr(prompt[:_MIN_TOKENS])) if len(prompt) >= _MIN_TOKENS else None


def conversation_tokens(messages: Sequence[Message]) -> int:
    """Return about how many tokens a conversation has."""
    return sum(map(_turn_tokens, messages))


def prompt_tokens(prompt: Prompt) -> int:
    """Return about how many tokens a prompt has."""
    return len(prompt) // _CHARS_A_TOKEN if isinstance(prompt, str) else len(prompt)


def _turn_tokens(message: Message) -> int:
    if isinstance(message.content, str) and not message.tool_calls:  # its one piece
        return _TURN_TOKENS + len(message.content) // _CHARS_A_TOKEN
    return _TURN_TOKENS + sum(tokens for _, tokens in _pieces(message))


def _pieces(message: Message) -> Iterator[tuple[str, int]]:
    """Yield what a message is made of: how it is told from others, and about how many tokens it has."""
    content = message.content
    if isinstance(content, str):
        yield content, len(content) // _CHARS_A_TOKEN
    for part in content if isinstance(content, tuple) else ():
        if isinstance(part, ImagePart):
            yield part.image_url.url, _IMAGE_TOKENS
        else:
            yield part.text, len(part.text) // _CHARS_A_TOKEN
    for call in message.tool_calls:
        yield call.function.arguments, len(call.function.arguments) // _CHARS_A_TOKEN


def _spelled(messages: Sequence[Message]) -> str:
    return "\n".join(
        f"{message.role}\n{_ends(piece)}" for message in messages for piece, _ in _pieces(message)
    )


def _ends(text: str) -> str:
    """Return a text without what is between its ends; the ends of a whole are those of its parts."""
    return text if len(text) <= 2 * _END_CHARS else text[:_END_CHARS] + text[-_END_CHARS:]


def _hashed_start(text: str) -> bytes | None:
    return _hashed(text[:MIN_CHARS]) if len(text) >= MIN_CHARS else None


def _hashed(text: str) -> bytes:
    # A lone surrogate can be in JSON; here it only has to be told from others.
    return blake2b(_ends(text).encode("utf-8", "surrogatepass"), digest_size=16).digest()
