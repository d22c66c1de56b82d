"""How each parameter is read: under llama.cpp's name, if llama.cpp does it, or for what is done here."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from ark_trio.engine.llama.readers import Json, expect_object, number, number_between, switch, whole
from ark_trio.errors import InvalidRequest

Read = Callable[[str, Any], Json]

MAX_CHOICES = 128
MAX_STOPS = 32
MAX_STOP_CHARS = 1024
MAX_STOP_TOKENS = 256
_INT32 = 2**31 - 1
"""llama.cpp's whole numbers wrap beyond it."""


def _repetition_penalty(key: str, value: Any) -> Json:
    if number(key, value)[key] <= 0:
        raise InvalidRequest(f"{key} must be above 0.", param=key)
    return {"repeat_penalty": value}


def _top_k(key: str, value: Any) -> Json:
    # Beyond the vocabulary it changes nothing.
    return {key: min(max(0, whole(key, value, low=-1)), _INT32)}


def _logit_bias(key: str, value: Any) -> Json:
    if not isinstance(value, dict) or not all(map(_is_token, value)):
        raise InvalidRequest("logit_bias must map token ids to numbers.", param=key)
    return {key: {str(token): number(key, bias)[key] for token, bias in value.items()}}


def _max_tokens(key: str, value: Any) -> Json:
    # 0 is for the prompt alone: what echo says, and what it cost.
    wanted = whole("max_tokens" if key == "max_new_tokens" else key, value, low=0)
    return {"max_tokens": min(wanted, _INT32)}  # more than any context holds in any case


def _count(name: str, *, low: int | None = None, high: int | None = None) -> Read:
    def read(key: str, value: Any) -> Json:
        return {name: whole(key, value, low=low, high=high)}

    return read


def _text(name: str) -> Read:
    def read(key: str, value: Any) -> Json:
        if not isinstance(value, str):
            raise InvalidRequest(f"{key} must be text.", param=key)
        return {name: value}

    return read


def _stop(key: str, value: Any) -> Json:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise InvalidRequest("stop must be text or a list of texts, none empty.", param=key)
    if len(stops) > MAX_STOPS or any(len(stop) > MAX_STOP_CHARS for stop in stops):
        bounds = f"at most {MAX_STOPS} texts of at most {MAX_STOP_CHARS} characters"
        raise InvalidRequest(f"stop must be {bounds}.", param=key)
    return {"stops": tuple(stops)}


def _stop_tokens(key: str, value: Any) -> Json:
    if not isinstance(value, list) or not all(map(_is_token, value)):
        raise InvalidRequest(f"{key} must be a list of token ids.", param=key)
    if len(value) > MAX_STOP_TOKENS:
        raise InvalidRequest(f"{key} must be at most {MAX_STOP_TOKENS} token ids.", param=key)
    return {"stop_tokens": frozenset(value)}


def _include_stop(key: str, value: Any) -> Json:
    return {"include_stop": switch(key, value)[key]}


def _template_kwargs(key: str, value: Any) -> Json:
    for name, setting in expect_object(key, value).items():
        place = f"{key}.{name}"
        if name in _TEMPLATES_OWN:
            raise InvalidRequest(f"{place} is given by the request itself.", param=place)
        if name == "enable_thinking":
            switch(place, setting)
    return {key: value}


def _continue(key: str, value: Any) -> Json:
    return {key: True, "add_generation_prompt": False} if switch(key, value)[key] else {}


def _is_token(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _INT32


_TEMPLATES_OWN = frozenset({"messages", "tools", "add_generation_prompt", "bos_token", "eos_token"})
"""What llama.cpp itself gives to a template, before it lets `chat_template_kwargs` replace it."""

SAMPLING: Mapping[str, Read] = {
    "temperature": number_between(0, math.inf),
    "top_p": number_between(0, 1),
    "top_k": _top_k,
    "min_p": number_between(0, 1),
    "presence_penalty": number,
    "frequency_penalty": number,
    "repetition_penalty": _repetition_penalty,
    "logit_bias": _logit_bias,
    "ignore_eos": switch,
    "max_new_tokens": _max_tokens,
}
"""What llama.cpp does, under its names."""

HELD_HERE: Mapping[str, Read] = {
    "n": _count("n", low=1, high=MAX_CHOICES),
    "seed": _count("seed"),
    "min_tokens": _count("min_tokens", low=0, high=_INT32),
    "max_prompt_tokens": _count("max_prompt_tokens", low=1),
    "logprobs": _count("logprobs", low=1, high=20),
    "stop": _stop,
    "stop_token_ids": _stop_tokens,
    "include_stop_str_in_output": _include_stop,
    "cache_salt": _text("salt"),
}
"""What is done here, under the names of `Wanted`."""

FOR_TEMPLATE: Mapping[str, Read] = {
    "chat_template_kwargs": _template_kwargs,
    "add_generation_prompt": switch,
    "continue_final_message": _continue,
    "reasoning_effort": _text("reasoning_effort"),
}
"""What the chat template gets."""

WITHOUT_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "length_penalty": (1, 1.0),
    "skip_special_tokens": (True,),
    "priority": (0,),
    "verbosity": ("medium",),
    "echo": (False,),
    "suffix": ("",),
}
"""Values that ask for nothing, of parameters that can't be done here."""
