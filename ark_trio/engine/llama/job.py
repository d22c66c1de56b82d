"""A request, understood: the prompt's tokens, and what llama.cpp is to be sent."""

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from ark_trio.engine.llama.client import context_exceeded
from ark_trio.engine.llama.fill_in import fill_in_prompt
from ark_trio.engine.llama.inputs import CHAT_ONLY, Wanted, check_messages, read_parameters
from ark_trio.engine.llama.readers import Json, switch
from ark_trio.engine.llama.service import Loaded
from ark_trio.engine.llama.tool_prompt import with_tools
from ark_trio.engine.llama.wish import read_tokens
from ark_trio.errors import InvalidRequest

CHAT = "/v1/chat/completions"
COMPLETION = "/completion"


@frozen(kw_only=True)
class Job:
    """What is to be done."""

    path: str
    """The chat endpoint parses what a template's own markup means (reasoning, calls); the other gives plain text."""
    prompt: list[int]
    body: Json
    """What llama.cpp is sent beside the parameters of sampling."""
    wanted: Wanted
    tool_names: frozenset[str] | None = None
    """Where calls come as text: what may be called."""
    echo: str = ""
    """Text that the answer begins with."""
    prompt_param: str = "messages"
    """The input that the prompt came in."""


async def understand(loaded: Loaded, method: str, inputs: Mapping[str, Any]) -> Job:
    """Return what a request asks for.

    Raises:
        InvalidRequest: it can't be done; `param` names what.
    """
    understood = _chat if method in ("", "chat") else _completion
    job = await understood(loaded, inputs)
    _check_fit(job, loaded.context_tokens)
    await _check_stop_tokens(loaded, job.wanted.stop_tokens)
    _check_bias(loaded, job.wanted.body.get("logit_bias", {}))
    return job


async def _chat(loaded: Loaded, inputs: Mapping[str, Any]) -> Job:
    messages = check_messages(inputs)
    wanted = read_parameters(inputs, beside=frozenset({"messages"}))
    template = _template(loaded, wanted)
    knows_tools = loaded.template_can("supports_tools")
    body: Json = {"messages": messages, **template}
    if not knows_tools:
        system = loaded.template_can("supports_system_role")
        told = wanted.tools.given if wanted.tools and wanted.tools.choice != "none" else ()
        body["messages"] = with_tools(messages, told, system_role=system)
    elif wanted.tools is not None:
        body |= wanted.tools.for_llama()
    try:
        prompt = await loaded.client.apply_template(body)
    except InvalidRequest as error:
        raise wanted.blame(error, "messages") from error
    tokens = await loaded.client.tokenize(prompt, special=True)
    choice = None if wanted.tools is None else wanted.tools.choice
    if wanted.tools is not None and (
        choice == "required" or (choice == "auto" and not knows_tools)
    ):
        # What must be called is held to our form in any case: llama.cpp's grammars let the model talk on before a call.
        held = wanted.tools.grammar(wanted.constraint)
        return _plain(tokens, wanted, held, tool_names=wanted.tools.names)
    if choice == "auto":
        return Job(path=CHAT, prompt=tokens, body=_native_tools(wanted, body), wanted=wanted)
    if wanted.min_tokens or wanted.stop_tokens:
        return _plain(tokens, wanted, _held(wanted))
    return Job(
        path=CHAT,
        prompt=tokens,
        body={**body, **_held(wanted), **_chat_logprobs(wanted)},
        wanted=wanted,
    )


async def _completion(loaded: Loaded, inputs: Mapping[str, Any]) -> Job:
    beside = frozenset({"prompt", "echo", "suffix"})
    wanted = read_parameters(inputs, beside=beside, refused=CHAT_ONLY)
    text, suffix = inputs.get("prompt"), inputs.get("suffix") or ""
    echo = _echo(inputs, wanted)
    if not isinstance(suffix, str):
        raise InvalidRequest("suffix must be text.", param="suffix")
    if suffix:
        if not isinstance(text, str):
            raise InvalidRequest("suffix needs a prompt of text.", param="suffix")
        tokens = await fill_in_prompt(loaded.client, text, suffix)
    elif isinstance(text, str):
        tokens = await loaded.client.tokenize(text, special=True)
    else:
        tokens = read_tokens(inputs, loaded.vocabulary, "prompt")
        text = await loaded.client.detokenize(tokens) if echo else ""
    if not tokens:
        raise InvalidRequest("The prompt is empty.", param="prompt")
    return _plain(tokens, wanted, _held(wanted), echo=text if echo else "", prompt_param="prompt")


def _echo(inputs: Mapping[str, Any], wanted: Wanted) -> bool:
    echo = inputs.get("echo")
    if echo is None or not switch("echo", echo)["echo"]:
        return False
    if wanted.logprobs is not None:
        raise InvalidRequest("This engine does not support echo beside logprobs.", param="echo")
    return True


def _template(loaded: Loaded, wanted: Wanted) -> Json:
    """Return the template's parameters. An effort goes to a template that knows the word; none of it needs no place."""
    template = dict(wanted.template)
    effort = template.pop("reasoning_effort", None)
    if effort is None:
        return template
    if "reasoning_effort" in loaded.properties["chat_template"]:
        given = template.get("chat_template_kwargs") or {}
        template["chat_template_kwargs"] = {"reasoning_effort": effort, **given}
    elif effort != "none":
        text = "This model's chat template has no place for reasoning_effort."
        raise InvalidRequest(text, param="reasoning_effort")
    return template


def _native_tools(wanted: Wanted, body: Json) -> Json:
    """Return what the chat endpoint is sent, which brings its own grammar and reads the calls itself."""
    others = {
        "stop_token_ids": bool(wanted.stop_tokens),
        wanted.constraint.param if wanted.constraint else "": wanted.constraint is not None,
    }
    for name, given in others.items():
        if given:
            text = (
                f"{name} can't be combined with tools on this model, unless tool_choice says more."
            )
            raise InvalidRequest(text, param=name)
    return {**body, **_chat_logprobs(wanted)}


def _plain(tokens: list[int], wanted: Wanted, held: Json, **more: Any) -> Job:
    body: Json = {"prompt": tokens, "return_tokens": True, **held}
    if wanted.logprobs is not None:
        body["n_probs"] = wanted.logprobs
    return Job(path=COMPLETION, prompt=tokens, body=body, wanted=wanted, **more)


def _held(wanted: Wanted) -> Json:
    return {} if wanted.constraint is None else {"grammar": wanted.constraint.gbnf()}


def _chat_logprobs(wanted: Wanted) -> Json:
    return {} if wanted.logprobs is None else {"logprobs": True, "top_logprobs": wanted.logprobs}


def _check_fit(job: Job, context_tokens: int) -> None:
    limit = job.wanted.max_prompt_tokens
    if limit is not None and len(job.prompt) > limit:
        text = f"The prompt has {len(job.prompt)} tokens; max_prompt_tokens is {limit}."
        raise InvalidRequest(text, param="max_prompt_tokens")
    if len(job.prompt) >= context_tokens:
        raise context_exceeded(len(job.prompt), context_tokens, param=job.prompt_param)
    room = context_tokens - len(job.prompt)
    if job.wanted.min_tokens > room:
        text = f"The prompt leaves room for {room} tokens; min_tokens is {job.wanted.min_tokens}."
        raise InvalidRequest(text, param="min_tokens")


async def _check_stop_tokens(loaded: Loaded, tokens: frozenset[int]) -> None:
    """Refuse ids that llama.cpp never tells of: those outside the vocabulary, and parts of characters."""
    for token in sorted(tokens):
        if token >= loaded.vocabulary or "\ufffd" in await loaded.client.detokenize([token]):
            text = f"stop_token_ids: {token} is no token, or only a part of a character."
            raise InvalidRequest(text, param="stop_token_ids")


def _check_bias(loaded: Loaded, bias: Mapping[str, float]) -> None:
    """Refuse ids outside the vocabulary, of which llama.cpp says nothing."""
    for token in bias:
        if int(token) >= loaded.vocabulary:
            text = f"logit_bias: {token} is no token; ids are below {loaded.vocabulary}."
            raise InvalidRequest(text, param="logit_bias")
