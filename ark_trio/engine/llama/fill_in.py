"""Prompts for filling in between a prefix and a suffix, for models that were trained on it."""

from collections.abc import Sequence

from ark_trio.engine.llama.client import LlamaClient
from ark_trio.errors import InvalidRequest

_SPELLINGS: Sequence[tuple[str, str, str]] = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("<PRE>", "<SUF>", "<MID>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
)
"""How models' vocabularies call the marks: Qwen and Granite, StarCoder, its variants, Code Llama, DeepSeek."""


async def fill_in_prompt(client: LlamaClient, prefix: str, suffix: str) -> list[int]:
    """Return the prompt whose answer goes between `prefix` and `suffix`.

    Raises:
        InvalidRequest: the model has no marks for it.
    """
    before = await client.tokenize(prefix, special=False)
    after = await client.tokenize(suffix, special=False)
    for marks in _SPELLINGS:
        tokens = [await client.tokenize(mark, special=True, bos=False) for mark in marks]
        if all(len(token) == 1 for token in tokens):
            begin, hole, end = (token[0] for token in tokens)
            return [begin, *before, hole, *after, end]
    raise InvalidRequest("This model was not trained to fill in before a suffix.", param="suffix")
