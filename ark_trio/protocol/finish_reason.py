"""Why a choice ended, in OpenAI's four words.

Engines have words of their own. Those that mean one of the four are translated; anything else, and a generation that was
aborted, is a fault of the engine: no client may take it for a normal end.
"""

from typing import Final

from ark_trio.errors import BadBackend

_MEANING: Final = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "stop_token": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_length": "length",
    "max_new_tokens": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    # The word from before `tool_calls`; the calls themselves come as tool calls here.
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


def text_finish(reason: str | None) -> str | None:
    """Return how a completion's caller is told that a choice has ended: plain text has no calls, and OpenAI no word for them there."""
    return "stop" if reason == "tool_calls" else reason


def legal_finish_reason(word: str) -> str:
    """Return stop, length, tool_calls or content_filter.

    Raises:
        BadBackend: the word means none of them.
    """
    meaning = _MEANING.get(word)
    if meaning is None:
        raise BadBackend("The engine ended the answer in a way that is no regular end.")
    return meaning
