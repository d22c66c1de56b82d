"""Every setting of the three services, with its default, and how they are loaded.

Each is declared here and only here; its TOML key is its field's name in its section, its variable and its flag
come from its short name: `limits.max_waiting`, `ARK_MAX_WAITING`, `--max-waiting`. A file is overridden by the
environment, the environment by the command line.
"""

# ruff: noqa: RUF009 (`setting` makes a field, as attrs.field does)

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from attrs import frozen

from ark_trio.errors import ConfigError
from ark_trio.settings.address import Address as Address  # noqa: PLC0414 (part of this module's face)
from ark_trio.settings.address import Bind as Bind  # noqa: PLC0414
from ark_trio.settings.declare import Role, setting
from ark_trio.settings.inherited import CREDENTIALS, HOST, HOST_LIST, PORT, PREFILL
from ark_trio.settings.load import Loaded, load
from ark_trio.settings.parse import ByteCount, ModelAliases, ReasoningMarks, Seconds, ToolSyntaxes
from ark_trio.settings.render import markdown_table

Driver = Literal["llama", "echo", "xllm", "openai"]
Policy = Literal["affinity", "session", "power_of_two", "round_robin"]
DnsFamily = Literal["auto", "ipv4", "ipv6", "both"]
LogFormat = Literal["auto", "json", "text"]
LogLevel = Literal["debug", "info", "warning", "error"]

_PROXY: tuple[Role, ...] = ("proxy",)
_ENGINES: tuple[Role, ...] = ("prefiller", "decoder")
_DECODER: tuple[Role, ...] = ("decoder",)
_BUILT_DRIVERS: tuple[Driver, ...] = ("llama", "echo", "xllm")


@frozen(kw_only=True)
class Limits:
    """How much and how long: every wait and every queue has its bound here."""

    max_requests: int = setting(
        4096, "Requests served at once.", at_least=1, at_most=1_000_000, roles=_PROXY
    )
    max_waiting: int = setting(
        256,
        "Requests that wait for a place; more get 429.",
        at_least=0,
        at_most=1_000_000,
        roles=_PROXY,
    )
    # Under keep_alive_s: a stream's first comment line makes a 200 of it, and clients try again only after a 429.
    max_wait_s: Seconds = setting(
        10.0,
        "Time that a request may wait for a place; then it gets 429.",
        at_least=0,
        roles=_PROXY,
    )
    connect_s: Seconds = setting(5.0, "Time to connect to a decoder or prefiller.", at_least=0.01)
    first_token_s: Seconds = setting(300.0, "Time until an answer's first token.", at_least=0.01)
    between_tokens_s: Seconds = setting(
        120.0, "Time between two tokens of an answer.", at_least=0.01
    )
    total_s: Seconds | None = setting(None, "Time for a whole answer.", at_least=0.01, roles=_PROXY)
    stalled_write_s: Seconds = setting(
        30.0, "Time that a client may go without reading.", at_least=0.01, roles=_PROXY
    )
    max_body_bytes: ByteCount = setting(
        32 * 2**20,
        "Size of a request's body, over HTTP and over gRPC.",
        at_least=1024,
        at_most=2**31 - 1,
    )
    max_bodies_bytes: ByteCount = setting(
        256 * 2**20,
        "Size of all bodies together whose answers have not begun, in one process; more get 503.",
        at_least=1024,
        at_most=2**40,
        roles=_PROXY,
    )
    max_connections: int = setting(
        16384,
        "Connections of clients that one process holds; when all are taken, the one idle longest makes room.",
        at_least=1,
        at_most=10_000_000,
        roles=_PROXY,
    )
    max_connections_per_address: int = setting(
        4096,
        "Of these, from one address. A proxy in front is one address; clients on a Unix socket have none.",
        at_least=1,
        at_most=10_000_000,
        roles=_PROXY,
    )
    max_connection_requests: int = setting(
        10_000,
        "Requests over one connection, after which it is closed.",
        at_least=1,
        roles=_PROXY,
    )
    idle_s: Seconds = setting(
        75.0, "Time that a connection may be open without a request.", at_least=0.01, roles=_PROXY
    )
    head_s: Seconds = setting(
        15.0,
        "Time for a request's head to arrive, from its first byte; then 408.",
        at_least=0.01,
        roles=_PROXY,
    )
    body_s: Seconds = setting(
        60.0, "Time for a request's body to arrive; then 408.", at_least=0.01, roles=_PROXY
    )
    max_request_line_bytes: ByteCount = setting(
        8192, "Size of a request's first line; more gets 414.", at_least=64, roles=_PROXY
    )
    max_header_bytes: ByteCount = setting(
        32 * 2**10, "Size of a request's head; more gets 431.", at_least=1024, roles=_PROXY
    )
    max_headers: int = setting(
        100, "Headers of a request; more get 431.", at_least=8, at_most=10_000, roles=_PROXY
    )
    max_pipelined_bytes: ByteCount = setting(
        64 * 2**10,
        "What a client may send ahead of the answer that it waits for.",
        at_least=1024,
        roles=_PROXY,
    )
    max_json_depth: int = setting(
        64, "Levels of arrays and objects in a body.", at_least=8, at_most=512, roles=_PROXY
    )
    max_json_values: int = setting(
        2**18,
        "Values in a body; they cost more than its bytes: about 4 µs each.",
        at_least=1024,
        at_most=2**31 - 1,
        roles=_PROXY,
    )
    max_http2_streams: int = setting(
        100,
        "Requests at once over one HTTP/2 connection.",
        at_least=1,
        at_most=10_000,
        roles=_PROXY,
    )
    max_http2_resets_per_s: int = setting(
        100,
        "Streams that an HTTP/2 client may reset a second, on average over five; then its connection is ended.",
        at_least=1,
        roles=_PROXY,
    )
    max_http2_control_per_s: int = setting(
        1000,
        "Frames a second that carry no request (PING, SETTINGS, PRIORITY, empty DATA, WINDOW_UPDATE that no answer has asked for), on average over five.",
        at_least=10,
        roles=_PROXY,
    )
    settle_s: Seconds = setting(
        5.0,
        "Time after SIGTERM in which new requests are still served, while /readyz says 503.",
        at_least=0,
        roles=_PROXY,
    )
    drain_s: Seconds = setting(
        60.0, "Time that running requests have to finish after SIGTERM.", at_least=0
    )
    keep_alive_s: Seconds = setting(
        15.0, "Silence after which a stream gets a comment line.", at_least=0.01, roles=_PROXY
    )
    max_message_bytes: ByteCount = setting(
        4 * 2**20, "Size of one gRPC message, either way.", at_least=1024, at_most=2**31 - 1
    )


@frozen(kw_only=True)
class GrpcSettings:
    """HTTP/2 between gateway, decoder and prefiller."""

    stream_window_bytes: ByteCount = setting(
        256 * 2**10,
        "Flow-control window of one stream.",
        name="grpc_stream_window_bytes",
        at_least=65535,
        at_most=2**31 - 1,
    )
    # Wide against the stream's, or a few clients that don't read hold up all streams of the connection.
    connection_window_bytes: ByteCount = setting(
        64 * 2**20,
        "Flow-control window of a connection.",
        name="grpc_connection_window_bytes",
        at_least=65535,
        at_most=2**31 - 1,
    )
    gather_s: Seconds = setting(
        0.02,
        "The longest that engines' tokens may gather where the gateway is short of processor time; 0: never.",
        name="grpc_gather_s",
        at_least=0,
        at_most=0.02,
        roles=_PROXY,
    )
    ping_s: Seconds = setting(
        30.0,
        "Time between two pings of a connection.",
        name="grpc_ping_s",
        at_least=1,
        at_most=3600,
    )
    ping_timeout_s: Seconds = setting(
        10.0, "Time for a ping's answer.", name="grpc_ping_timeout_s", at_least=0.1, at_most=3600
    )
    tls: bool = setting(
        default=False, help="TLS between gateway, decoder and prefiller.", name="grpc_tls"
    )
    ca: Path | None = setting(
        None,
        "PEM file of the CAs that the other side's certificate must come from.",
        name="grpc_ca",
        default_text="the system's, when calling; an engine asks callers for none",
    )
    cert: Path | None = setting(
        None,
        "PEM file of the certificate that this service shows; an engine needs one.",
        name="grpc_cert",
        default_text="none",
    )
    key: Path | None = setting(
        None, "PEM file of its key.", name="grpc_key", default_text="in the certificate's file"
    )
    server_name: str | None = setting(
        None,
        "Name that engines' certificates must be for.",
        name="grpc_server_name",
        default_text="the host that is called",
    )


@frozen(kw_only=True)
class FleetSettings:
    """Decoders: which takes a request, which are left out, what is tried again."""

    policy: Policy = setting(
        "affinity",
        "What a decoder is chosen by: the conversation's beginning, the session header, load alone, or turns.",
        name="fleet_policy",
        roles=_PROXY,
    )
    session_header: str = setting(
        "x-session-id",
        "Header that names a request's session, for the policy session.",
        roles=_PROXY,
    )
    aliases: ModelAliases = setting(
        (), "Other names of models.", name="model_aliases", roles=_PROXY
    )
    dns_servers: tuple[Address, ...] = setting(
        (),
        "Name servers that decoders' names are looked up at.",
        default_port=53,
        default_text="those of /etc/resolv.conf",
        roles=_PROXY,
    )
    dns_family: DnsFamily = setting(
        "auto",
        "Addresses of decoders' names to use; auto is IPv6 only where there are no others.",
        roles=_PROXY,
    )
    probe_s: Seconds = setting(
        5.0, "Time between two looks at a decoder that is well.", at_least=0.1, roles=_PROXY
    )
    probe_timeout_s: Seconds = setting(
        5.0, "Time that a look may take.", at_least=0.1, roles=_PROXY
    )
    rise: int = setting(
        2,
        "Good looks in a row until a decoder that was away is well.",
        name="probe_rise",
        at_least=1,
        at_most=100,
        roles=_PROXY,
    )
    fall: int = setting(
        2,
        "Bad looks in a row until a decoder that was well is away.",
        name="probe_fall",
        at_least=1,
        at_most=100,
        roles=_PROXY,
    )
    eject_faults: int = setting(
        5,
        "Faults in a row until a decoder is left out for a while; 0: never.",
        at_least=0,
        at_most=10_000,
        roles=_PROXY,
    )
    eject_s: Seconds = setting(
        5.0, "How long it is left out at first; doubled each time.", at_least=0.1, roles=_PROXY
    )
    eject_longest_s: Seconds = setting(
        300.0, "How long it is left out at most.", at_least=0.1, roles=_PROXY
    )
    panic_percent: int = setting(
        30,
        "If fewer of a model's decoders are not left out, all of them are asked.",
        at_least=0,
        at_most=100,
        roles=_PROXY,
    )
    retries: int = setting(
        2,
        "Other decoders that a request is tried on, before the first byte of its answer.",
        at_least=0,
        at_most=100,
        roles=_PROXY,
    )
    retry_percent: int = setting(
        20, "Share of all requests that may be tried again.", at_least=0, at_most=100, roles=_PROXY
    )
    retries_per_s: int = setting(
        10,
        "So many a second may be tried again in any case.",
        at_least=0,
        at_most=1_000_000,
        roles=_PROXY,
    )


@frozen(kw_only=True)
class EngineSettings:
    """The decoder and the prefiller."""

    driver: Driver = setting("llama", "What generates.", name="engine", roles=_ENGINES)
    model: Path | None = setting(
        None,
        "GGUF file.",
        default_text="the small model that `ark-trio model fetch` gets",
        roles=_ENGINES,
    )
    chat_template: Path | None = setting(
        None,
        "Jinja chat template, in place of the model's own.",
        default_text="the model's own",
        roles=_ENGINES,
    )
    model_dir: Path | None = setting(
        None,
        "Where `ark-trio model fetch` puts the model.",
        default_text="`$XDG_DATA_HOME/ark-trio`",
        roles=_ENGINES,
    )
    served_names: tuple[str, ...] = setting(
        (),
        "Model names that the engine answers for.",
        default_text="the model's own",
        roles=_ENGINES,
    )
    slots: int = setting(
        4, "Requests that are generated at once.", at_least=1, at_most=1024, roles=_ENGINES
    )
    context_tokens: int = setting(
        4096,
        "Tokens of one request, prompt and answer.",
        at_least=64,
        at_most=2**24,
        roles=_ENGINES,
    )
    threads: int | None = setting(
        None,
        "Threads that compute.",
        at_least=1,
        at_most=1024,
        default_text="half of the cores",
        roles=_ENGINES,
    )
    ubatch: int = setting(
        128, "Prompt tokens computed in one go.", at_least=1, at_most=65536, roles=_ENGINES
    )
    max_waiting: int = setting(
        256,
        "Requests that wait for a slot; more get RESOURCE_EXHAUSTED.",
        name="engine_max_waiting",
        at_least=0,
        at_most=1_000_000,
        roles=_ENGINES,
    )
    local_prefill: bool = setting(
        default=False, help="Prefill in the decoder while no prefiller answers.", roles=_DECODER
    )
    prefiller_wait_s: Seconds = setting(
        0.0,
        "Time that a decoder waits at its start until a prefiller is healthy; 0: it does not wait.",
        at_least=0,
        roles=_DECODER,
    )
    run_dir: Path = setting(
        Path("/dev/shm"),  # noqa: S108 (each process makes its own private folder in it)
        "Folder in memory for KV states on the move.",
        roles=_ENGINES,
    )
    metrics_bind: Address | None = setting(
        None,
        "Where an engine serves `/metrics` for Prometheus.",
        name="engine_metrics_bind",
        default_text="none",
        roles=_ENGINES,
    )


@frozen(kw_only=True)
class XllmSettings:
    """The private engine: where it is, and what it is told."""

    home: Path = setting(
        Path("/app/xllm"), "Folder that it runs in.", name="xllm_home", roles=_ENGINES
    )
    binary: str = setting(
        "private_xllm.bin", "Its name in that folder.", name="xllm_binary", roles=_ENGINES
    )
    model_dir: Path = setting(
        Path("/data/models/DeepSeek-R1-ENC-xLLM"),
        "The model's folder.",
        name="xllm_model_dir",
        roles=_ENGINES,
    )
    draft_model_dir: Path = setting(
        Path("/data/models/DeepSeek-R1-DRAFT-ENC-xLLM"),
        "The draft model's folder.",
        name="xllm_draft_model_dir",
        roles=_ENGINES,
    )
    license: Path | None = setting(
        None,
        "The licence; it is linked to where the engine looks for it.",
        name="xllm_license",
        default_text="`license.lic` in its folder",
        roles=_ENGINES,
    )
    env_file: Path | None = setting(
        None,
        "The role's environment file, which the engine reads itself.",
        name="xllm_env_file",
        default_text="`prefill_enc.env` or `decode_enc.env` in its folder",
        roles=_ENGINES,
    )
    model_name: str = setting(
        "deepseek-r1", "The model's name.", name="xllm_model_name", roles=_ENGINES
    )
    model_version: str = setting(
        "250120", "The model's version.", name="xllm_model_version", roles=_ENGINES
    )
    gpus: int | None = setting(
        None,
        "GPUs to use.",
        name="xllm_gpus",
        at_least=1,
        at_most=1024,
        default_text="all that `nvidia-smi -L` lists",
        roles=_ENGINES,
    )
    server_procs: int = setting(
        4, "Server processes.", name="xllm_server_procs", at_least=1, at_most=256, roles=_ENGINES
    )
    interface: str = setting(
        "eth0",
        "Network interface of the traffic between prefiller and decoder.",
        name="xllm_interface",
        roles=_ENGINES,
    )
    local_addr: str | None = setting(
        None,
        "This host's IPv4 address for that traffic.",
        name="xllm_local_addr",
        default_text="the interface's",
        roles=_ENGINES,
    )
    driver_port: int = setting(
        62001,
        "Port of the decoder's driver.",
        name="xllm_driver_port",
        at_least=1,
        at_most=65535,
        roles=_DECODER,
    )
    kv_port: int = setting(
        62002,
        "Port on which the decoder receives KV cache.",
        name="xllm_kv_port",
        at_least=1,
        at_most=65535,
        roles=_DECODER,
    )
    pick_n: int = setting(
        3,
        "Prefillers that the decoder compares for a request.",
        name="xllm_pick_n",
        at_least=1,
        at_most=1024,
        roles=_DECODER,
    )
    min_shm_bytes: ByteCount = setting(
        128 * 2**30,
        "Size that /dev/shm must have.",
        name="xllm_min_shm_bytes",
        at_least=0,
        roles=_ENGINES,
    )
    min_memlock_bytes: ByteCount | None = setting(
        None,
        "Memory that the engine must be allowed to pin.",
        name="xllm_min_memlock_bytes",
        at_least=0,
        default_text="without limit",
        roles=_ENGINES,
    )
    min_open_files: int = setting(
        65536,
        "Files that the engine must be allowed to open.",
        name="xllm_min_open_files",
        at_least=0,
        at_most=2**31 - 1,
        roles=_ENGINES,
    )
    start_s: Seconds | None = setting(
        None,
        "Time that it has until it is healthy.",
        name="xllm_start_s",
        at_least=1,
        default_text="150 seconds for a prefiller, 210 for a decoder",
        roles=_ENGINES,
    )


@frozen(kw_only=True)
class HttpSettings:
    """The HTTP door."""

    cors_origins: tuple[str, ...] = setting(
        (), "Origins whose web pages may call, as https://host; * is any.", roles=_PROXY
    )
    tls_cert: Path | None = setting(
        None,
        "PEM file of the certificate that clients are shown; with one, HTTPS is served.",
        default_text="none",
        roles=_PROXY,
    )
    tls_key: Path | None = setting(
        None,
        "PEM file of its key.",
        default_text="in the certificate's file",
        roles=_PROXY,
    )
    root_path: str | None = setting(
        None, "Path under which a proxy in front serves all of this, as /ai.", roles=_PROXY
    )


@frozen(kw_only=True)
class TextSettings:
    """How engines' text is read, where they leave reasoning or tool calls in it."""

    reasoning: ReasoningMarks = setting(
        (),
        "How models mark reasoning: auto splits text that begins with <think>, open means that the template"
        " has written it already.",
        name="reasoning_marks",
        default_text="`*=auto`",
        roles=_PROXY,
    )
    tools: ToolSyntaxes = setting(
        (),
        "How models write tool calls: auto knows deepseek, hermes and mistral; json is a bare object.",
        name="tool_syntaxes",
        default_text="`*=auto`",
        roles=_PROXY,
    )


@frozen(kw_only=True)
class LogSettings:
    """The log, on standard error."""

    format: LogFormat = setting(
        "auto", "JSON lines or text; auto is text on a terminal.", name="log_format"
    )
    level: LogLevel = setting("info", "The least severe event that is logged.", name="log_level")
    addresses: bool = setting(
        default=False,
        help="Name clients' addresses in the log and in /admin/status.",
        name="log_addresses",
        roles=_PROXY,
    )
    prompts: bool = setting(
        default=False,
        help="Put what clients ask into the log, up to 16 KiB a request.",
        name="log_prompts",
        roles=_PROXY,
    )


@frozen(kw_only=True)
class Settings:
    """All settings. `Settings()` is the defaults."""

    bind: Bind = setting(
        Bind(host="127.0.0.1", port=18080), "Where the gateway listens for HTTP.", roles=_PROXY
    )
    admin_bind: Bind | None = setting(
        None,
        "A second address, for /metrics and /admin/status alone; the first does not serve them then.",
        default_text="none: callers on this host may ask at the first",
        roles=_PROXY,
    )
    decoders: tuple[Address, ...] = setting(
        (Address(host="127.0.0.1", port=62000),),
        "Decoders that requests go to; each address of a name is one.",
        at_least=1,
        default_port=62000,
        also=(HOST_LIST, HOST, PORT),
        roles=_PROXY,
    )
    prefillers: tuple[Address, ...] = setting(
        (),
        "Prefillers that the decoder asks; with none, it prefills itself.",
        default_port=62000,
        also=(PREFILL,),
        roles=_DECODER,
    )
    grpc_bind: Address = setting(
        Address(host="0.0.0.0", port=62000),  # noqa: S104 (the contract's default)
        "Where a decoder or prefiller listens for gRPC.",
        roles=_ENGINES,
    )
    grpc_also_bind: Address | None = setting(
        None,
        "A second address on which an engine listens, as the private engine's driver does.",
        default_text="none",
        roles=_ENGINES,
    )
    models: tuple[str, ...] = setting(
        ("deepseek-r1-0528",),
        "Models of decoders that can't say what they serve; NAME@host:port is one decoder's.",
        roles=_PROXY,
    )
    keys_file: Path | None = setting(
        None,
        "File of API keys; `ark-trio keys` makes it. Without one anybody may ask.",
        default_text="the systemd credential `ark-keys`, if there is one",
        also=(CREDENTIALS,),
        roles=_PROXY,
    )
    insecure: bool = setting(
        default=False, help="Serve beyond this host without API keys.", roles=_PROXY
    )
    workers: int = setting(1, "Processes of the gateway.", at_least=1, at_most=256, roles=_PROXY)
    limits: Limits = Limits()
    http: HttpSettings = HttpSettings()
    text: TextSettings = TextSettings()
    fleet: FleetSettings = FleetSettings()
    grpc: GrpcSettings = GrpcSettings()
    engine: EngineSettings = EngineSettings()
    xllm: XllmSettings = XllmSettings()
    log: LogSettings = LogSettings()
    unknown_variables: tuple[str, ...] = ()
    """`ARK_…` variables that mean nothing here. `configure_logging` warns of them, once."""


def load_settings(
    argv_overrides: Mapping[str, str], environ: Mapping[str, str], toml_path: Path | None = None
) -> Settings:
    """The effective settings.

    Args:
        argv_overrides: what the command line says, by dotted key (`limits.max_waiting`).
        environ: the environment.
        toml_path: the file; without it the one that `ARK_CONFIG` names, if any.

    Raises:
        ConfigError: something is unknown or malformed; the text is one line for the operator.
    """
    return load_with_sources(argv_overrides, environ, toml_path).settings


def load_with_sources(
    argv_overrides: Mapping[str, str], environ: Mapping[str, str], toml_path: Path | None = None
) -> Loaded[Settings]:
    """As `load_settings`, telling where each value came from."""
    return load(Settings, argv_overrides, environ, toml_path)


def settings_table() -> str:
    """All settings as Markdown."""
    return markdown_table(Settings)


def require_runnable(settings: Settings, role: Role) -> None:
    """Refuse what can't run, or shouldn't, before anything is opened.

    Raises:
        ConfigError: one line that says what to change.
    """
    if role == "proxy":
        _require_safe_bind(settings)
    elif settings.engine.driver not in _BUILT_DRIVERS:
        built = " or ".join(_BUILT_DRIVERS)
        raise ConfigError(
            f"engine.driver: {settings.engine.driver} is not available in this version; use {built}"
        )
    elif settings.engine.driver == "xllm" and role == "decoder" and not settings.prefillers:
        raise ConfigError("prefillers: the private engine's decoder needs one; set PREFILL_NODE_IP")


def _require_safe_bind(settings: Settings) -> None:
    for name, bind in (("bind", settings.bind), ("admin_bind", settings.admin_bind)):
        if not (bind is None or bind.is_loopback or settings.insecure or settings.keys_file):
            raise ConfigError(
                f"{name}: {bind} is open to other hosts and no API keys are set; bind a loopback"
                " address, set ARK_KEYS_FILE (see ark-trio keys), or set ARK_INSECURE=1 to serve anyone"
            )
