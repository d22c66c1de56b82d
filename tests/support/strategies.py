"""What engines and clients can say, as hypothesis strategies."""

from hypothesis import strategies as st

from ark_trio.protocol.float32 import shortest_float
from ark_trio.protocol.step import ChoiceDelta, Step, ToolCallDelta, Usage

INT64 = st.integers(-(2**63), 2**63 - 1)
FLOAT32 = st.floats(width=32, allow_nan=False).map(shortest_float)
TEXT = st.text(max_size=12)
SCALARS = st.none() | st.booleans() | INT64 | FLOAT32 | TEXT | st.binary(max_size=6)


def _containers(inner):
    return (
        st.lists(inner, max_size=4)
        | st.lists(st.floats(allow_nan=False), min_size=1, max_size=4)
        | st.dictionaries(TEXT, inner, max_size=4)
        | st.dictionaries(INT64, inner, min_size=1, max_size=4)
    )


VALUES = st.recursive(SCALARS, _containers, max_leaves=12)
"""Everything that a Value carries without loss."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)

COUNTS = st.integers(0, 2**40)
USAGES = st.builds(
    Usage,
    prompt_tokens=COUNTS,
    completion_tokens=COUNTS,
    reasoning_tokens=st.none() | COUNTS,
    cached_tokens=st.none(),
)

LOGPROBS = st.floats(-9999.0, 0.0, width=32).map(shortest_float)
BYTES = st.none() | st.lists(st.integers(0, 255), max_size=4)
ENTRIES = st.fixed_dictionaries({"token": TEXT, "logprob": LOGPROBS, "bytes": BYTES})
TOKENS = st.builds(
    lambda entry, top: {**entry, "top_logprobs": top}, ENTRIES, st.lists(ENTRIES, max_size=2)
)

CALLS = st.builds(
    ToolCallDelta,
    index=st.integers(0, 3),
    id=st.none() | st.text(min_size=1, max_size=6),
    name=st.none() | st.text(min_size=1, max_size=6),
    arguments=TEXT,
)
REASONS = st.sampled_from(["stop", "length", "tool_calls", "content_filter"])
DELTAS = st.builds(
    ChoiceDelta,
    index=st.integers(0, 5),
    content=TEXT,
    reasoning=TEXT,
    tool_calls=st.lists(CALLS, max_size=2).map(tuple),
    logprobs=st.lists(TOKENS, max_size=2).map(tuple),
    finish_reason=st.none() | REASONS,
)
STEPS = st.builds(Step, choices=st.lists(DELTAS, max_size=3).map(tuple), usage=st.none() | USAGES)
