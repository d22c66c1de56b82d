"""POST /v1/completions, streaming and not."""

import time
from functools import partial

from ark_trio.api.body import read_json
from ark_trio.api.calls import (
    ask_for,
    note_request,
    open_several_steps,
    reply_with_several,
    reply_with_stream,
)
from ark_trio.api.exchange import Exchange
from ark_trio.api.replies import Reply
from ark_trio.api.routes import Routes
from ark_trio.ids import new_id
from ark_trio.protocol.ark_request import encode_completion
from ark_trio.protocol.callers_words import callers_names
from ark_trio.protocol.completion_body import PARAMETERS
from ark_trio.protocol.completion_fold import CompletionFold
from ark_trio.protocol.completion_request import parse_completion
from ark_trio.protocol.completion_stream import CompletionStream
from ark_trio.protocol.prefix import prompt_key, prompt_tokens
from ark_trio.protocol.reading import Reading
from ark_trio.protocol.several import SeveralAnswers
from ark_trio.relay.whole import Whole

routes = Routes()


@routes.post("/completions", "/v1/completions")
async def create_completion(here: Exchange) -> Reply:
    """Complete one or several prompts, each by a call of its own."""
    asked = await read_json(here, parse_completion)
    names = partial(callers_names, asked.params, PARAMETERS)
    note_request(here, asked.model, asked.unknown, stream=asked.stream, names=names)
    prompts = len(asked.prompts)
    reading = Reading(
        reasoning="off",
        separate_reasoning=False,
        top_logprobs=asked.shown_logprobs,
    )
    asks = [
        ask_for(
            here,
            asked.model,
            partial(encode_completion, asked, prompt),
            batch=asked.batch,
            key=prompt_key(prompt),
            prompt_tokens=prompt_tokens(prompt),
            max_tokens=asked.max_tokens,
        )
        for prompt in asked.prompts
    ]
    decoder = SeveralAnswers(reading, prompts=prompts, choices=asked.best_of)
    answer_id, created = f"cmpl-{new_id()}", int(time.time())
    if not asked.stream:
        fold = CompletionFold(
            id=answer_id,
            created=created,
            model=asked.model,
            prompts=prompts,
            n=asked.n,
            generated=asked.best_of,
            alternatives=asked.alternatives,
        )
        whole = Whole(decoder, fold, here.gateway.settings.limits, here.record)
        return await reply_with_several(here, asks, whole)
    steps = await open_several_steps(here, asks, decoder)
    answer = CompletionStream(
        id=answer_id,
        created=created,
        model=asked.model,
        choices=prompts * asked.n,
        alternatives=asked.alternatives,
        include_usage=asked.include_usage,
        continuous_usage=asked.continuous_usage,
    )
    return await reply_with_stream(here, steps, answer)
