"""A request's inputs as the body that llama.cpp's server takes: everything is passed on, or refused by name."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from ark_trio.engine.llama.messages import check_message
from ark_trio.engine.llama.readers import (
    Json,
    expect_object,
    is_function,
    number,
    number_between,
    optional_whole,
    switch,
    whole,
)
from ark_trio.errors import InvalidRequest

MAX_CHOICES = 128
_RANDOM_SEED = 0xFFFFFFFF
_INT32 = 2**31 - 1
"""llama.cpp's whole numbers wrap beyond it."""


@frozen(kw_only=True)
class Wanted:
    """What is asked for, apart from the prompt."""

    body: Json
    """Parameters under llama.cpp's names."""
    n: int
    max_prompt_tokens: int | None
    seed: int | None
    constraint: str | None = None
    """The parameter that says what the text must look like."""

    def blame(self, error: InvalidRequest, otherwise: str | None = None) -> InvalidRequest:
        """Return llama.cpp's refusal, naming the parameter that it is about; `otherwise`: if it is about none of ours."""
        reason = error.message
        for prefix in _LLAMA_PREFIXES:
            reason = reason.removeprefix(prefix)
        param = error.param or otherwise
        if error.param is None and any(word in reason for word in ("schema", "grammar")):
            param = self.constraint or ("tools" if "tools" in self.body else param)
        return InvalidRequest(reason, param=param, code=error.code)

    def choice(self, index: int) -> Json:
        """Return the parameters of one choice; with a seed, each choice has its own that follows from it."""
        return self.body if self.seed is None else {**self.body, "seed": _seed(self.seed + index)}


def read_parameters(
    inputs: Mapping[str, Any],
    *,
    beside: frozenset[str],
    refused: frozenset[str] = frozenset(),
) -> Wanted:
    """Read all inputs but those in `beside`; those in `refused` have no meaning for the method that is asked.

    Raises:
        InvalidRequest: a parameter is ill-typed, or this engine can't do what it asks; `param` names it.
    """
    body: Json = {}
    for key, value in inputs.items():
        if key in beside or key in _HELD_HERE or value is None:
            continue
        if key in refused:
            raise InvalidRequest(f"{key} is for conversations only.", param=key)
        passed_on = _PASSED_ON.get(key)
        if passed_on is not None:
            body.update(passed_on(key, value))
        elif value not in _WITHOUT_EFFECT.get(key, ()):
            raise InvalidRequest(f"This engine does not support {key}.", param=key)
    return Wanted(
        body=body,
        n=optional_whole("n", inputs, low=1, high=MAX_CHOICES) or 1,
        max_prompt_tokens=optional_whole("max_prompt_tokens", inputs, low=1),
        seed=optional_whole("seed", inputs),
        constraint=_constraint(inputs),
    )


def check_messages(inputs: Mapping[str, Any], *, tools: bool) -> list[Json]:
    """Return the conversation, which must be text; `tools`: the model's template knows tools.

    Raises:
        InvalidRequest: there is none, or the model can't take all of it.
    """
    messages = inputs.get("messages")
    if not messages:
        raise InvalidRequest("messages are missing.", param="messages")
    for position, message in enumerate(messages):
        check_message(f"messages[{position}]", message)
    if inputs.get("continue_final_message"):
        _check_continued(messages[-1], inputs)
    if inputs.get("tools") and not tools and inputs.get("tool_choice") != "none":
        raise InvalidRequest("This model's chat template has no place for tools.", param="tools")
    return list(messages)


def _check_continued(last: Json, inputs: Mapping[str, Any]) -> None:
    key = "continue_final_message"
    if last["role"] != "assistant":  # llama.cpp would cut the conversation off before it
        raise InvalidRequest(f"{key} needs a last message of the assistant's.", param=key)
    if inputs.get("add_generation_prompt"):
        raise InvalidRequest(f"{key} can't be combined with add_generation_prompt.", param=key)


def _constraint(inputs: Mapping[str, Any]) -> str | None:
    """Return the parameter that constrains the text, of which there may be one: llama.cpp would heed any of several."""
    given = [key for key in _CONSTRAINTS if inputs.get(key) is not None]
    if (inputs.get("response_format") or {}).get("type") == "text":
        given.remove("response_format")
    if len(given) > 1:
        raise InvalidRequest(f"{given[1]} can't be combined with {given[0]}.", param=given[1])
    return given[0] if given else None


def _response_format(key: str, value: Any) -> Json:
    kind = expect_object(key, value).get("type")
    if kind not in ("text", "json_object", "json_schema"):
        raise InvalidRequest(f"{key}.type must be text, json_object or json_schema.", param=key)
    if kind == "json_schema":
        place = f"{key}.json_schema"
        given = expect_object(place, value.get("json_schema"))
        expect_object(f"{place}.schema", given.get("schema"))
    return {key: value}


def _tools(key: str, value: Any) -> Json:
    if not isinstance(value, list) or not all(
        isinstance(tool, dict)
        and tool.get("type") == "function"
        and is_function(tool.get("function"))
        for tool in value
    ):
        raise InvalidRequest(f"{key} must be a list of functions.", param=key)
    return {key: value}


def _tool_choice(key: str, value: Any) -> Json:
    named = isinstance(value, dict) and is_function(value.get("function"))
    if not named and value not in ("none", "auto", "required"):
        raise InvalidRequest(f"{key} must be none, auto, required or a function.", param=key)
    return {key: value}


def _template_kwargs(key: str, value: Any) -> Json:
    for name, setting in expect_object(key, value).items():
        place = f"{key}.{name}"
        if name in _TEMPLATES_OWN:
            raise InvalidRequest(f"{place} is given by the request itself.", param=place)
        if name == "enable_thinking":
            switch(place, setting)
    return {key: value}


def _repetition_penalty(key: str, value: Any) -> Json:
    if number(key, value)[key] <= 0:
        raise InvalidRequest(f"{key} must be above 0.", param=key)
    return {"repeat_penalty": value}


def _max_tokens(key: str, value: Any) -> Json:
    wanted = whole("max_tokens" if key == "max_new_tokens" else key, value, low=1)
    return {"max_tokens": min(wanted, _INT32)}  # more than any context holds in any case


def _top_k(key: str, value: Any) -> Json:
    # Beyond the vocabulary it changes nothing.
    return {key: min(max(0, whole(key, value, low=-1)), _INT32)}


def _logprobs(key: str, value: Any) -> Json:
    return {key: True, "top_logprobs": whole(key, value, low=1, high=20)}


def _logit_bias(key: str, value: Any) -> Json:
    if not isinstance(value, dict) or not all(
        type(token) is int and 0 <= token <= _INT32 for token in value
    ):
        raise InvalidRequest("logit_bias must map token ids to numbers.", param=key)
    return {key: {str(token): number(key, bias)[key] for token, bias in value.items()}}


def _stop(key: str, value: Any) -> Json:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise InvalidRequest("stop must be text or a list of texts, none empty.", param=key)
    return {key: stops}


def _grammar(key: str, value: Any) -> Json:
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{key} must be a grammar.", param=key)
    return {"grammar": value}


def _json_schema(key: str, value: Any) -> Json:
    return {"json_schema": expect_object(key, value)}


def _continue(key: str, value: Any) -> Json:
    return {key: True, "add_generation_prompt": False} if switch(key, value)[key] else {}


def _seed(seed: int) -> int:
    """Fold a seed into llama.cpp's 32 bits, past the value that means "random"."""
    folded = seed & _RANDOM_SEED
    return 0 if folded == _RANDOM_SEED else folded


CHAT_ONLY = frozenset(
    {
        "response_format",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "chat_template_kwargs",
        "add_generation_prompt",
        "continue_final_message",
    }
)
"""Parameters that llama.cpp does not read beside a plain prompt."""

_CONSTRAINTS = ("response_format", "guided_json", "guided_grammar")
_TEMPLATES_OWN = frozenset({"messages", "tools", "add_generation_prompt", "bos_token", "eos_token"})
"""What llama.cpp itself gives to a template, before it lets `chat_template_kwargs` replace it."""
_LLAMA_PREFIXES = (
    "Unable to generate parser for this template. Automatic parser generation failed: ",
    "Failed to initialize samplers: ",
)
"""How llama.cpp introduces reasons, which are about the request, with what it was about to do."""
_HELD_HERE = frozenset({"n", "seed", "max_prompt_tokens"})

_PASSED_ON: Mapping[str, Callable[[str, Any], Json]] = {
    "max_new_tokens": _max_tokens,
    "temperature": number_between(0, math.inf),
    "top_p": number_between(0, 1),
    "top_k": _top_k,
    "min_p": number_between(0, 1),
    "presence_penalty": number,
    "frequency_penalty": number,
    "repetition_penalty": _repetition_penalty,
    "stop": _stop,
    "logprobs": _logprobs,
    "logit_bias": _logit_bias,
    "response_format": _response_format,
    "tools": _tools,
    "tool_choice": _tool_choice,
    "parallel_tool_calls": switch,
    "guided_grammar": _grammar,
    "guided_json": _json_schema,
    "ignore_eos": switch,
    "chat_template_kwargs": _template_kwargs,
    "add_generation_prompt": switch,
    "continue_final_message": _continue,
}

_WITHOUT_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "min_tokens": (0,),
    "length_penalty": (1, 1.0),
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "stop_token_ids": ([],),
    "priority": (0,),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "echo": (False,),
    "suffix": ("",),
}
"""Values of parameters that llama.cpp lacks which ask for nothing."""
