"""The headers that tell how a key's rates stand, on answers and refusals. Source: OpenAI's guide to rate limits."""

from typing import Final

from ark_trio.access.quota import Rate
from ark_trio.api.exchange import Exchange
from ark_trio.api.replies import Reply

_SECOND_MS: Final = 1000
_MINUTE_MS: Final = 60 * _SECOND_MS
_HOUR_MS: Final = 60 * _MINUTE_MS


def tell_rates(here: Exchange, reply: Reply) -> None:
    """Add the headers, where the key has rates."""
    verdict = here.tab.verdict
    if verdict is not None:
        for what, rate in (("requests", verdict.requests), ("tokens", verdict.tokens)):
            if rate is not None:
                for name, value in headers_of(what, rate).items():
                    reply.tell(name, value)


def headers_of(what: str, rate: Rate) -> dict[str, str]:
    """Return the headers of one rate."""
    return {
        f"x-ratelimit-limit-{what}": str(rate.limit),
        f"x-ratelimit-remaining-{what}": str(rate.remaining),
        f"x-ratelimit-reset-{what}": spell_duration(rate.reset_s),
    }


def spell_duration(seconds: float) -> str:
    """Return a duration as OpenAI spells it: 17ms, 1.5s, 6m0s, 1h0m0s. Source: Go's time.Duration."""
    total = max(0, round(seconds * _SECOND_MS))
    if 0 < total < _SECOND_MS:
        return f"{total}ms"
    hours, rest = divmod(total, _HOUR_MS)
    minutes, rest = divmod(rest, _MINUTE_MS)
    text = f"{rest / _SECOND_MS:.3f}".rstrip("0").rstrip(".") + "s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text
