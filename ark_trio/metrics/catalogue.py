"""Every metric, declared once: /metrics, docs/metrics.md, the dashboard's test and the rules' test read this list.

Names follow vLLM's (https://docs.vllm.ai/en/latest/usage/metrics/), with `ark_` for `vllm:`, so that its dashboards need one
replacement; what OpenTelemetry's GenAI conventions call the same is told beside each. Every label's values are few: what
clients send becomes one only where the gateway knows it (labels.py).
"""

from typing import Final, Literal

from attrs import frozen

_FIRST_TOKEN_S = (
    *(0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0),
)
_BETWEEN_TOKENS_S = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0),
    *(10.0, 20.0, 40.0, 80.0),
)
_WHOLE_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
_OWN_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_PROMPT = "gen_ai.client.token.usage (gen_ai.token.type: input)"
_OUTPUT = "gen_ai.client.token.usage (gen_ai.token.type: output)"
_MODEL = ("model_name",)
_DECODER = ("decoder",)
_KEY = ("key", "model_name")


@frozen(kw_only=True)
class Metric:
    """One metric, as it is exposed."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    """Beside `worker`, which all have."""
    bounds: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, without +Inf."""
    vllm: str = ""
    """What vLLM calls it."""
    otel: str = ""
    """What OpenTelemetry calls it."""


REQUESTS: Final = Metric(
    name="ark_requests_total",
    kind="counter",
    help="Requests that ended, by how: completed, client_gone, or the error's outcome.",
    labels=("endpoint", "model_name", "outcome"),
    vllm="vllm:request_success_total",
    otel="error.type of gen_ai.server.request.duration",
)
RUNNING: Final = Metric(
    name="ark_num_requests_running",
    kind="gauge",
    help="Requests that hold a place.",
    vllm="vllm:num_requests_running",
)
WAITING: Final = Metric(
    name="ark_num_requests_waiting",
    kind="gauge",
    help="Requests in line for a place.",
    vllm="vllm:num_requests_waiting",
)
MAX_RUNNING: Final = Metric(
    name="ark_max_requests_running", kind="gauge", help="Places that there are."
)
MAX_WAITING: Final = Metric(
    name="ark_max_requests_waiting",
    kind="gauge",
    help="Length of the line beyond which 429 is the answer.",
)
QUEUE_TIME: Final = Metric(
    name="ark_request_queue_time_seconds",
    kind="histogram",
    help="Time in line for a place, of requests that got one.",
    bounds=_WHOLE_S,
    vllm="vllm:request_queue_time_seconds",
)
OVERHEAD: Final = Metric(
    name="ark_gateway_overhead_seconds",
    kind="histogram",
    help="The gateway's own part: from the request's last byte until an engine was asked, without the line,"
    " and from the engine's first message until the answer's first byte.",
    bounds=_OWN_S,
)
FIRST_TOKEN: Final = Metric(
    name="ark_time_to_first_token_seconds",
    kind="histogram",
    help="From a request's arrival until the engine's first token; reasoning counts.",
    labels=_MODEL,
    bounds=_FIRST_TOKEN_S,
    vllm="vllm:time_to_first_token_seconds",
    otel="gen_ai.server.time_to_first_token",
)
BETWEEN_TOKENS: Final = Metric(
    name="ark_inter_token_latency_seconds",
    kind="histogram",
    help="Time between two arrivals of tokens on a stream; tokens that arrive together count once.",
    labels=_MODEL,
    bounds=_BETWEEN_TOKENS_S,
    vllm="vllm:inter_token_latency_seconds",
    otel="gen_ai.server.time_per_output_token",
)
WHOLE: Final = Metric(
    name="ark_e2e_request_latency_seconds",
    kind="histogram",
    help="From a request's arrival until its end, of answers that were completed by an engine.",
    labels=_MODEL,
    bounds=_WHOLE_S,
    vllm="vllm:e2e_request_latency_seconds",
    otel="gen_ai.server.request.duration",
)
PROMPT_TOKENS: Final = Metric(
    name="ark_prompt_tokens_total",
    kind="counter",
    help="Prompt tokens, by the engines' word.",
    labels=_MODEL,
    vllm="vllm:prompt_tokens_total",
    otel=_PROMPT,
)
CACHED_TOKENS: Final = Metric(
    name="ark_prompt_tokens_cached_total",
    kind="counter",
    help="Prompt tokens that engines found in their prefix cache.",
    labels=_MODEL,
    vllm="vllm:prompt_tokens_cached_total",
)
GENERATED_TOKENS: Final = Metric(
    name="ark_generation_tokens_total",
    kind="counter",
    help="Tokens generated, by the engines' word; of an answer that ended before it, the messages that came.",
    labels=_MODEL,
    vllm="vllm:generation_tokens_total",
    otel=_OUTPUT,
)
REASONING_TOKENS: Final = Metric(
    name="ark_reasoning_tokens_total",
    kind="counter",
    help="Tokens generated that were reasoning, by the engines' word.",
    labels=_MODEL,
)
KEY_REQUESTS: Final = Metric(
    name="ark_key_requests_total",
    kind="counter",
    help="Requests that ended, by the name of the API key that they came with.",
    labels=(*_KEY, "outcome"),
)
KEY_PROMPT_TOKENS: Final = Metric(
    name="ark_key_prompt_tokens_total",
    kind="counter",
    help="Prompt tokens by key, cached ones among them.",
    labels=_KEY,
)
KEY_CACHED_TOKENS: Final = Metric(
    name="ark_key_prompt_tokens_cached_total",
    kind="counter",
    help="Prompt tokens by key that engines found in their prefix cache.",
    labels=_KEY,
)
KEY_GENERATED_TOKENS: Final = Metric(
    name="ark_key_generation_tokens_total",
    kind="counter",
    help="Tokens generated by key, reasoning among them.",
    labels=_KEY,
)
DISCONNECTS: Final = Metric(
    name="ark_client_disconnects_total",
    kind="counter",
    help="Clients that left (client_gone) or stopped reading (client_stalled), by how far the request had come:"
    " received, queued, prefill (asked, no token yet), decode.",
    labels=("phase", "outcome"),
)
RETRIES: Final = Metric(
    name="ark_retries_total",
    kind="counter",
    help="Calls made again on another decoder, before the first byte.",
)
DECODER_READY: Final = Metric(
    name="ark_decoder_ready",
    kind="gauge",
    help="1: this worker sends requests there; 0: it is away, ejected or leaving.",
    labels=_DECODER,
)
DECODER_EJECTED: Final = Metric(
    name="ark_decoder_ejected",
    kind="gauge",
    help="1: it looks well but has failed requests, so this worker leaves it out for a while.",
    labels=_DECODER,
)
EJECTIONS: Final = Metric(
    name="ark_decoder_ejections_total",
    kind="counter",
    help="Times that a decoder was left out for its faults.",
    labels=_DECODER,
)
DECODER_RUNNING: Final = Metric(
    name="ark_decoder_requests_running",
    kind="gauge",
    help="Our requests that a decoder serves now.",
    labels=_DECODER,
)
CONNECTIONS: Final = Metric(
    name="ark_connections", kind="gauge", help="Clients' connections that are open."
)
MAX_CONNECTIONS: Final = Metric(
    name="ark_max_connections", kind="gauge", help="Connections that there may be."
)
CONNECTED: Final = Metric(
    name="ark_connections_total",
    kind="counter",
    help="Connections that came, by what became of them: accepted; shed (idle, and then made room for others);"
    " turned_away.",
    labels=("outcome",),
)
READY: Final = Metric(
    name="ark_ready",
    kind="gauge",
    help="1: /readyz says 200, so a decoder is ready and no drain is on.",
)
DRAINING: Final = Metric(
    name="ark_draining", kind="gauge", help="1: SIGTERM has come, and requests may finish."
)
LOOP_LAG: Final = Metric(
    name="ark_event_loop_lag_seconds",
    kind="histogram",
    help="How late the event loop woke a task that sleeps a quarter of a second at a time.",
    bounds=_OWN_S,
)
GATHERING: Final = Metric(
    name="ark_gather_seconds",
    kind="gauge",
    help="How long engines' tokens gather now, for want of processor time (grpc.gather_s); 0: not at all.",
)
GC_PAUSE: Final = Metric(
    name="ark_gc_pause_seconds",
    kind="histogram",
    help="Pauses for Python's garbage collection.",
    labels=("generation",),
    bounds=_OWN_S,
)
TASKS: Final = Metric(name="ark_tasks", kind="gauge", help="Trio's tasks.")
WORKER_UP: Final = Metric(
    name="ark_worker_up",
    kind="gauge",
    help="1: the worker has answered this scrape; 0: it did not within a second.",
)
BUILD: Final = Metric(
    name="ark_build_info", kind="gauge", help="Always 1.", labels=("version", "python")
)
CPU: Final = Metric(
    name="process_cpu_seconds_total",
    kind="counter",
    help="Processor time used, in user and system mode.",
)
MEMORY: Final = Metric(name="process_resident_memory_bytes", kind="gauge", help="Memory in use.")
OPEN_FDS: Final = Metric(name="process_open_fds", kind="gauge", help="Open descriptors.")
MAX_FDS: Final = Metric(name="process_max_fds", kind="gauge", help="Descriptors that may be open.")
START_TIME: Final = Metric(
    name="process_start_time_seconds",
    kind="gauge",
    help="Unix time at which the worker began to serve.",
)

CATALOGUE: Final = {
    value.name: value for value in tuple(globals().values()) if isinstance(value, Metric)
}
"""All of them by name, in the order above."""


def catalogue_markdown() -> str:
    """Return all of them as a table."""
    lines = ["| metric | | labels | vLLM | OpenTelemetry |", "| --- | --- | --- | --- | --- |"]
    for metric in CATALOGUE.values():
        bounds = f" Buckets up to {metric.bounds[-1]:g} s." if metric.bounds else ""
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        cells = (f"`{metric.name}`", metric.help + bounds, labels, metric.vllm, metric.otel)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
