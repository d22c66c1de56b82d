"""What answers look like, as classes: they are never made, only described. `tests` hold the encoders to them.

A field with a default may be missing. Source: OpenAI's API description 2.3.0.
"""

from typing import Any, Literal

from attrs import frozen

FinishReason = Literal["stop", "length", "content_filter"]
ChatFinishReason = FinishReason | Literal["tool_calls", "function_call"]


@frozen(kw_only=True)
class PromptTokensDetails:
    """Of the prompt's tokens."""

    cached_tokens: int


@frozen(kw_only=True)
class CompletionTokensDetails:
    """Of the answer's tokens."""

    reasoning_tokens: int


@frozen(kw_only=True)
class Usage:
    """Token totals; details only where the engine tells them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails | None = None
    completion_tokens_details: CompletionTokensDetails | None = None
    prompt_cache_hit_tokens: int = 0
    prompt_cache_miss_tokens: int = 0


@frozen(kw_only=True)
class TopLogprob:
    """An alternative to a token."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None


@frozen(kw_only=True)
class TokenLogprob:
    """A token's log probability; minus infinity is -9999."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None
    top_logprobs: tuple[TopLogprob, ...]


@frozen(kw_only=True)
class ChatLogprobs:
    """Log probabilities of a choice's tokens."""

    content: tuple[TokenLogprob, ...]
    refusal: None


@frozen(kw_only=True)
class CalledFunction:
    """A function's name and its arguments, as the model wrote them: they need not be valid JSON."""

    name: str
    arguments: str


@frozen(kw_only=True)
class MessageToolCall:
    """A tool call of an answer."""

    id: str
    type: Literal["function"]
    function: CalledFunction


@frozen(kw_only=True)
class AssistantMessage:
    """What the model said; reasoning under both names that clients read."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    reasoning_content: str = ""
    reasoning: str = ""
    tool_calls: tuple[MessageToolCall, ...] = ()
    function_call: CalledFunction | None = None
    """Where the request has functions, which are deprecated."""


@frozen(kw_only=True)
class ChatChoice:
    """One of the n answers."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: ChatFinishReason


@frozen(kw_only=True)
class ChatCompletion:
    """An answer in one piece."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: tuple[ChatChoice, ...]
    usage: Usage | None


@frozen(kw_only=True)
class FunctionDelta:
    """An increment of a call: its name first, then arguments."""

    arguments: str
    name: str = ""


@frozen(kw_only=True)
class ToolCallDelta:
    """An increment of a tool call; the first of a call has id and type."""

    index: int
    function: FunctionDelta
    id: str = ""
    type: Literal["function"] = "function"


@frozen(kw_only=True)
class ChatDelta:
    """What a chunk adds to a message; only what changes is there."""

    role: Literal["assistant"] = "assistant"
    content: str = ""
    reasoning_content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    function_call: FunctionDelta | None = None
    """Where the request has functions, which are deprecated."""


@frozen(kw_only=True)
class ChatChunkChoice:
    """An increment of one of the n answers."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: ChatFinishReason | None


@frozen(kw_only=True)
class ChatCompletionChunk:
    """The data of one event of a stream. The last event's data is [DONE], or before it an Error."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: tuple[ChatChunkChoice, ...]
    usage: Usage | None = None


@frozen(kw_only=True)
class CompletionLogprobs:
    """Log probabilities of a completion's tokens, an entry a token in each list."""

    tokens: tuple[str, ...]
    token_logprobs: tuple[float, ...]
    top_logprobs: tuple[dict[str, Any], ...] | None
    text_offset: tuple[int, ...]


@frozen(kw_only=True)
class CompletionChoice:
    """One completion of one prompt, or an increment of it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None


@frozen(kw_only=True)
class Completion:
    """A completion, in one piece or as the data of one event."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: tuple[CompletionChoice, ...]
    usage: Usage | None = None


@frozen(kw_only=True)
class Tokens:
    """The tokens of a text or a conversation."""

    count: int
    max_model_len: int | None
    tokens: tuple[int, ...]
    token_strs: tuple[str, ...] | None


@frozen(kw_only=True)
class Text:
    """What tokens spell."""

    prompt: str


@frozen(kw_only=True)
class Model:
    """A model that some decoder serves."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: str | None
    max_model_len: int | None
    permission: tuple[Any, ...]


@frozen(kw_only=True)
class ModelList:
    """All models."""

    object: Literal["list"]
    data: tuple[Model, ...]


@frozen(kw_only=True)
class Status:
    """How the gateway is."""

    status: str


@frozen(kw_only=True)
class Version:
    """The gateway's version."""

    version: str


@frozen(kw_only=True)
class ErrorDetail:
    """What went wrong; for the caller."""

    message: str
    type: str
    param: str | None
    code: str | None


@frozen(kw_only=True)
class Error:
    """Every error, as a body or as an event's data."""

    error: ErrorDetail
