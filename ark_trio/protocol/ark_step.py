"""A step as ARK messages, on the engine's side: nested keys, and flat copies for older readers.

`ResponseDecoder` gives the step back, floats rounded to the wire's 32 bits. Source: docs/engine.md, "Response outputs".
"""

from ark_trio.protocol.ark_tool_calls import write_tool_calls
from ark_trio.protocol.step import ChoiceDelta, Step, Usage
from ark_trio.protocol.value import fill_value
from ark_wire import ark_pb2


def encode_step(
    step: Step, *, req_id: str, model: str, first: bool = False
) -> list[ark_pb2.InferenceResponse]:
    """Return one message a choice; usage rides on the last of them, or alone if the step has no choice.

    `first` writes the role, which belongs to a choice's first message.
    """
    responses = []
    for delta in step.choices:
        response = ark_pb2.InferenceResponse(req_id=req_id, model_name=model)
        _write_choice(response, delta, first=first)
        responses.append(response)
    if step.usage is not None:
        if not responses:
            responses.append(ark_pb2.InferenceResponse(req_id=req_id, model_name=model))
        _write_usage(responses[-1], step.usage)
    return responses


def _write_choice(response: ark_pb2.InferenceResponse, delta: ChoiceDelta, *, first: bool) -> None:
    outputs = response.outputs
    choice = outputs["choice"].struct_.fields
    message = choice["message"].struct_.fields
    choice["index"].int64_ = outputs["choice.index"].int64_ = delta.index
    message["content"].string_ = delta.content
    outputs["choice.message.content"].bytes_ = delta.content.encode()
    if first:
        message["role"].string_ = "assistant"
        outputs["choice.message.role"].bytes_ = b"assistant"
    if delta.reasoning:
        message["reasoning_content"].string_ = delta.reasoning
    if delta.tool_calls:
        fill_value(message["tool_calls"], write_tool_calls(delta.tool_calls))
    if delta.logprobs:
        fill_value(choice["logprobs"], {"content": [dict(entry) for entry in delta.logprobs]})
    if delta.finish_reason is not None:
        choice["finish_reason"].string_ = delta.finish_reason
        outputs["choice.finish_reason"].bytes_ = delta.finish_reason.encode()


def _write_usage(response: ark_pb2.InferenceResponse, usage: Usage) -> None:
    totals = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    _write_counts(response, "usage", totals)
    if usage.reasoning_tokens is not None:
        details = response.outputs["usage"].struct_.fields["completion_tokens_details"]
        details.struct_.fields["reasoning_tokens"].int64_ = usage.reasoning_tokens
    if usage.cached_tokens is not None:
        cache = {
            "prompt_cache_hit_tokens": usage.cached_tokens,
            "prompt_cache_miss_tokens": max(0, usage.prompt_tokens - usage.cached_tokens),
        }
        _write_counts(response, "cache", cache)


def _write_counts(response: ark_pb2.InferenceResponse, group: str, counts: dict[str, int]) -> None:
    outputs = response.outputs
    nested = outputs[group].struct_.fields
    for name, count in counts.items():
        nested[name].int64_ = outputs[f"{group}.{name}"].int64_ = count
