"""Reading a streamed answer as a client does."""

import orjson


def events(stream):
    """The data of each event of an SSE body, parsed; [DONE] as it is."""
    assert stream == b"" or stream.endswith(b"\n\n")
    for event in stream.split(b"\n\n")[:-1]:
        assert event.startswith(b"data: "), event
        assert b"\n" not in event
        data = event.removeprefix(b"data: ")
        yield "[DONE]" if data == b"[DONE]" else orjson.loads(data)


def chunks(stream):
    """The chunks of an SSE body, without [DONE]."""
    return [event for event in events(stream) if event != "[DONE]"]


def deltas(stream):
    """The (index, delta, finish_reason) of each chunk that has a choice."""
    return [
        (c["index"], c["delta"], c["finish_reason"])
        for chunk in chunks(stream)
        for c in chunk["choices"]
    ]
