"""A completion request, from the bytes of its body to values that are safe to act on."""

from collections.abc import Mapping
from typing import Any, Final

from attrs import field, frozen

from ark_trio.protocol.completion_body import PARAMETERS, CompletionBody, Prompt
from ark_trio.protocol.json_body import MAX_DEPTH, parse_body, unknown_fields
from ark_trio.protocol.parameter import values_to_forward
from ark_trio.protocol.sampling_body import StreamOptions

_forwarded: Final = values_to_forward(PARAMETERS)


@frozen(kw_only=True)
class CompletionRequest:
    """What the client asks, checked."""

    model: str
    prompts: tuple[Prompt, ...]
    stream: bool = False
    include_usage: bool = False
    """One more chunk at the end of a stream, with the totals."""
    continuous_usage: bool = False
    """The totals so far on every chunk of a stream."""
    n: int = 1
    """Choices of each prompt in the answer."""
    best_of: int = 1
    """Choices of each prompt to generate."""
    alternatives: int | None = None
    """Alternatives shown of each token; None: no log probabilities were asked for."""
    batch: bool = False
    """Others may go first."""
    params: Mapping[str, Any] = field(factory=dict)
    """Parameters to forward, under OpenAI's names."""
    max_tokens: int | None = None
    """The most that may be generated of one prompt, all choices together."""
    unknown: tuple[str, ...] = ()
    """Fields that nobody here knows, for a debug log."""

    @property
    def shown_logprobs(self) -> int | None:
        """Alternatives to read of each token: choosing among choices takes the tokens' own, whoever asked."""
        return 0 if self.alternatives is None and self.best_of > self.n else self.alternatives


def parse_completion(body: bytes, max_depth: int = MAX_DEPTH) -> CompletionRequest:
    """Parse and check a request body.

    Raises:
        InvalidRequest: and nothing else, whatever the bytes are.
    """
    parsed, raw = parse_body(body, CompletionBody, max_depth)
    options = (parsed.stream and parsed.stream_options) or StreamOptions()
    n = parsed.n or 1
    return CompletionRequest(
        model=parsed.model,
        prompts=parsed.prompt,
        stream=bool(parsed.stream),
        include_usage=bool(options.include_usage),
        continuous_usage=bool(options.continuous_usage_stats),
        n=n,
        best_of=parsed.best_of or n,
        max_tokens=parsed.max_tokens and parsed.max_tokens * (parsed.best_of or n),
        batch=parsed.batch,
        alternatives=parsed.logprobs,
        params=_params(parsed),
        unknown=unknown_fields(raw.keys() - PARAMETERS.keys()),
    )


def _params(parsed: CompletionBody) -> dict[str, Any]:
    params = _forwarded(parsed)
    choosing = (parsed.best_of or 1) > (parsed.n or 1)
    if parsed.logprobs is not None or choosing:
        # 0 would read as "none"; without them there is nothing to choose by.
        params["logprobs"] = max(1, parsed.logprobs or 0)
    if choosing:
        params["n"] = parsed.best_of
    return params
