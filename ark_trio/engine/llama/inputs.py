"""A request's inputs as the body that llama.cpp's server takes: everything is passed on, or refused by name."""

from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from ark_trio.errors import InvalidRequest

Json = dict[str, Any]

MAX_CHOICES = 128
_RANDOM_SEED = 0xFFFFFFFF


@frozen(kw_only=True)
class Wanted:
    """What is asked for, apart from the prompt."""

    body: Json
    """Parameters under llama.cpp's names."""
    n: int
    max_prompt_tokens: int | None
    seed: int | None

    def choice(self, index: int) -> Json:
        """Return the parameters of one choice; with a seed, each choice has its own that follows from it."""
        return self.body if self.seed is None else {**self.body, "seed": _seed(self.seed + index)}


def read_parameters(inputs: Mapping[str, Any], *, beside: frozenset[str]) -> Wanted:
    """Read all inputs but those in `beside`.

    Raises:
        InvalidRequest: a parameter is ill-typed, or this engine can't do what it asks; `param` names it.
    """
    body: Json = {}
    for key, value in inputs.items():
        if key in beside or key in _HELD_HERE or value is None:
            continue
        passed_on = _PASSED_ON.get(key)
        if passed_on is not None:
            body.update(passed_on(key, value))
        elif value not in _WITHOUT_EFFECT.get(key, ()):
            raise InvalidRequest(f"This engine does not support {key}.", param=key)
    return Wanted(
        body=body,
        n=_whole("n", inputs.get("n", 1), low=1, high=MAX_CHOICES),
        max_prompt_tokens=inputs.get("max_prompt_tokens"),
        seed=None if inputs.get("seed") is None else _whole("seed", inputs["seed"]),
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
        content = message["content"]
        for part in content if isinstance(content, list) else ():
            if not isinstance(part, dict) or part.get("type") != "text":
                place = f"messages[{position}].content"
                raise InvalidRequest("This model reads text only.", param=place)
    if inputs.get("tools") and not tools and inputs.get("tool_choice") != "none":
        raise InvalidRequest("This model's chat template has no place for tools.", param="tools")
    return list(messages)


def _as_is(key: str, value: Any) -> Json:
    return {key: value}


def _number(key: str, value: Any) -> Json:
    if type(value) not in (int, float):
        raise InvalidRequest(f"{key} must be a number.", param=key)
    return {key: value}


def _under(name: str) -> Callable[[str, Any], Json]:
    def read(key: str, value: Any) -> Json:
        return {name: _number(key, value)[key]}

    return read


def _max_tokens(key: str, value: Any) -> Json:
    return {"max_tokens": _whole("max_tokens" if key == "max_new_tokens" else key, value, low=1)}


def _top_k(key: str, value: Any) -> Json:
    return {key: max(0, _whole(key, value, low=-1))}


def _logprobs(key: str, value: Any) -> Json:
    return {key: True, "top_logprobs": _whole(key, value, low=1, high=20)}


def _logit_bias(key: str, value: Any) -> Json:
    if not isinstance(value, dict) or not all(type(token) is int for token in value):
        raise InvalidRequest("logit_bias must map token ids to numbers.", param=key)
    return {key: {str(token): _number(key, bias)[key] for token, bias in value.items()}}


def _stop(key: str, value: Any) -> Json:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise InvalidRequest("stop must be text or a list of texts, none empty.", param=key)
    return {key: stops}


def _grammar(key: str, value: Any) -> Json:
    if not isinstance(value, str):
        raise InvalidRequest(f"{key} must be a grammar.", param=key)
    return {"grammar": value}


def _json_schema(_key: str, value: Any) -> Json:
    return {"json_schema": value}


def _continue(key: str, value: Any) -> Json:
    return {key: True, "add_generation_prompt": False} if value else {}


def _whole(key: str, value: Any, *, low: int | None = None, high: int | None = None) -> int:
    if (
        type(value) is not int
        or (low is not None and value < low)
        or (high is not None and value > high)
    ):
        bounds = "" if low is None else f" from {low}" if high is None else f" from {low} to {high}"
        raise InvalidRequest(f"{key} must be a whole number{bounds}.", param=key)
    return value


def _seed(seed: int) -> int:
    """Fold a seed into llama.cpp's 32 bits, past the value that means "random"."""
    folded = seed & _RANDOM_SEED
    return 0 if folded == _RANDOM_SEED else folded


_HELD_HERE = frozenset({"n", "seed", "max_prompt_tokens"})

_PASSED_ON: Mapping[str, Callable[[str, Any], Json]] = {
    "max_new_tokens": _max_tokens,
    "temperature": _number,
    "top_p": _number,
    "top_k": _top_k,
    "min_p": _number,
    "presence_penalty": _number,
    "frequency_penalty": _number,
    "repetition_penalty": _under("repeat_penalty"),
    "stop": _stop,
    "logprobs": _logprobs,
    "logit_bias": _logit_bias,
    "response_format": _as_is,
    "tools": _as_is,
    "tool_choice": _as_is,
    "parallel_tool_calls": _as_is,
    "guided_grammar": _grammar,
    "guided_json": _json_schema,
    "ignore_eos": _as_is,
    "chat_template_kwargs": _as_is,
    "add_generation_prompt": _as_is,
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
