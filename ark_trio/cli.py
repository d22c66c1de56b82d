"""The command line: one parser, whose setting flags come from the declarations of the settings."""

import argparse
import faulthandler
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from attrs import frozen

from ark_trio import __version__
from ark_trio.config import Settings, load_with_sources, require_runnable
from ark_trio.errors import ConfigError
from ark_trio.settings.declare import ALL_ROLES, Role, Row, rows
from ark_trio.settings.flags import USAGE_ERROR, LineParser, add_setting_flags
from ark_trio.settings.load import FILE_VARIABLE, Loaded
from ark_trio.settings.render import effective_lines

_MAX_PORT = 65535
_INTERRUPTED = 130
_BROKEN_PIPE = 141

_ROWS: tuple[Row, ...] = tuple(rows(Settings))
_UP_SETTINGS = frozenset(
    {"bind", "log.level"}
    | {f"engine.{name}" for name in ("driver", "model", "slots", "context_tokens", "threads")}
)
_KEYS_SETTINGS = frozenset({"keys_file"})
_FETCH_SETTINGS = frozenset({"engine.model", "engine.model_dir"})


@frozen(kw_only=True)
class Command:
    """A command line, parsed: what to do, with which settings."""

    loaded: Loaded[Settings]
    options: Mapping[str, object]
    """The command's own flags."""
    load: Callable[[], Loaded[Settings]]
    """Reads the settings again."""

    @property
    def settings(self) -> Settings:
        """The effective settings."""
        return self.loaded.settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 failed, 2 wrong settings or flags."""
    given = sys.argv[1:] if argv is None else list(argv)
    try:
        options = vars(_parser().parse_args(_own(given)))
        return _run(options)
    except ConfigError as error:
        print(f"ark-trio: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # `ark-trio config | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE


def _own(argv: list[str]) -> list[str]:
    """Return our own command line for one that is the private engine's."""
    from ark_trio.engine.stand_in import own_arguments, stands_in

    return own_arguments(argv, os.environ) if stands_in(argv) else argv


def _run(options: dict[str, object]) -> int:
    if "parent" in options:
        from ark_trio.up.children import end_with_parent

        end_with_parent(int(str(options["parent"])))
    keys = {row.key for row in _ROWS}
    overrides = {key: str(value) for key, value in options.items() if key in keys}
    file = Path(str(options["config"])).expanduser() if options.get("config") else None

    def load() -> Loaded[Settings]:
        return load_with_sources(overrides, os.environ, file)

    command = Command(loaded=load(), options=options, load=load)
    return _COMMANDS[str(options["command"])](command)


def _serve(role: Role, command: Command) -> int:
    settings = _runnable(command.loaded, role)
    from ark_trio.backoff import forget_failures, hold_back
    from ark_trio.log import configure_logging
    from ark_trio.systemd import open_notifier

    configure_logging(settings)
    faulthandler.enable()  # a watchdog's SIGABRT then tells where it hung
    with open_notifier(os.environ) as notifier:
        hold_back(os.environ, notifier)
    status = _run_service(role, settings, command)
    if status == 0:
        forget_failures(os.environ)
    return status


def _run_service(role: Role, settings: Settings, command: Command) -> int:
    if role == "proxy":
        from ark_trio.serve import run_proxy

        return run_proxy(settings, lambda: _runnable(command.load(), role))
    from ark_trio.engine.main import run_decoder, run_prefiller

    return run_decoder(settings) if role == "decoder" else run_prefiller(settings)


def _runnable(loaded: Loaded[Settings], role: Role) -> Settings:
    require_runnable(loaded.settings, role)
    from ark_trio.tls import require_certificates

    require_certificates(loaded.settings, role)
    if role == "proxy":
        from ark_trio.access.key_file import open_keyring

        open_keyring(loaded.settings.keys_file)  # a bad file is told before anything is opened
    return loaded.settings


def _up(command: Command) -> int:
    from ark_trio.up.plan import make_plan
    from ark_trio.up.screen import Screen, ServiceLog, log_path
    from ark_trio.up.supervise import Supervisor, run_supervisor

    decoder, prefiller = (
        int(str(command.options[f"{name}_port"])) for name in ("decoder", "prefiller")
    )
    plan = make_plan(command.settings, decoder, prefiller, _passed_on(command))
    screen = Screen(out=sys.stdout)
    where = log_path(plan.gateway.bind, os.environ)
    log = ServiceLog(path=where, echo=screen if command.options["verbose"] else None)
    return run_supervisor(Supervisor(plan=plan, screen=screen, log=log))


def _passed_on(command: Command) -> dict[str, str]:
    """What was typed, by flag, for the services that take it."""
    sources = command.loaded.sources
    typed = [row for row in _ROWS if sources[row.key] == row.flag]
    flags = {row.flag: str(command.options[row.key]) for row in typed}
    return flags | (
        {"--config": str(command.options["config"])} if command.options["config"] else {}
    )


def _check(command: Command) -> int:
    from ark_trio.check import run_check

    return run_check(command.loaded, probe=bool(command.options["probe"]))


def _config(command: Command) -> int:
    if command.options["check"]:
        _runnable(command.loaded, cast(Role, command.options["check"]))
        print("the configuration is good")
        return 0
    for line in effective_lines(command.settings, command.loaded.sources):
        print(line)
    for name in command.settings.unknown_variables:
        print(f"ark-trio: the variable {name} means nothing here", file=sys.stderr)
    return 0


def _install_units(command: Command) -> int:
    from ark_trio.install import Installation, InstallError, own_program

    options = command.options
    installation = Installation(
        root=Path(str(options["root"])),
        program=str(options["exec"] or own_program()),
        gpu=bool(options["gpu"]),
        dry_run=bool(options["dry_run"]),
    )
    work = installation.uninstall if options["uninstall"] else installation.install
    try:
        for line in work():
            print(line)
    except InstallError as error:
        print(f"ark-trio: {error}", file=sys.stderr)
        return 1
    return 0


def _model_fetch(command: Command) -> int:
    from ark_trio.model import FetchError, fetch_model, find_model

    if command.settings.engine.model is not None:
        print(f"{find_model(command.settings)} is configured; nothing to fetch")
        return 0
    try:
        path, copied = fetch_model(command.settings)
    except FetchError as error:
        print(f"ark-trio: {error}", file=sys.stderr)
        return 1
    print(f"{path} {'fetched' if copied else 'was there'}, sha256 checked")
    return 0


def _keys(command: Command) -> int:
    from ark_trio.access.commands import run_keys

    return run_keys(command.settings.keys_file, command.options)


_COMMANDS = {
    "up": _up,
    "proxy": lambda command: _serve("proxy", command),
    "prefiller": lambda command: _serve("prefiller", command),
    "decoder": lambda command: _serve("decoder", command),
    "check": _check,
    "config": _config,
    "keys": _keys,
    "model": _model_fetch,
    "install-units": _install_units,
}


def _parser() -> LineParser:
    parser = LineParser(
        prog="ark-trio", description="LLMs over ARK gRPC, served as OpenAI's HTTP API."
    )
    parser.add_argument("--version", action="version", version=f"ark-trio {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    _add_up(commands)
    _add_service(commands, "proxy", "the HTTP gateway")
    _add_service(commands, "prefiller", "the service that turns prompts into KV states")
    _add_service(commands, "decoder", "the service that generates")
    check = _add(commands, "check", "check the configuration and reach every decoder and prefiller")
    check.add_argument("--probe", action="store_true", help="generate one token by each decoder")
    add_setting_flags(check, _ROWS)
    config = _add(commands, "config", "show the effective settings and where each comes from")
    config.add_argument(
        "--check", choices=ALL_ROLES, help="show nothing; exit 2 if that service would not start"
    )
    add_setting_flags(config, _ROWS)
    _add_install_units(commands)
    _add_keys(commands)
    model = commands.add_parser("model", help="the model file", description="The model file.")
    actions = model.add_subparsers(dest="action", required=True, metavar="action")
    fetch = _add(actions, "fetch", "put the small default model into place, its sha256 checked")
    add_setting_flags(fetch, [row for row in _ROWS if row.key in _FETCH_SETTINGS])
    return parser


def _add_keys(commands: "argparse._SubParsersAction[LineParser]") -> None:
    from ark_trio.access.commands import add_flags

    keys = commands.add_parser("keys", help="the API keys", description="The API keys.")
    actions = keys.add_subparsers(dest="action", required=True, metavar="action")
    parsers = [
        _add(actions, "add", "make a key and show it, this once"),
        _add(actions, "list", "show whom there are keys for, and what they may do"),
        _add(actions, "revoke", "take a key away"),
    ]
    for parser in parsers:
        add_setting_flags(parser, [row for row in _ROWS if row.key in _KEYS_SETTINGS])
    add_flags(*parsers)


def _add_install_units(commands: "argparse._SubParsersAction[LineParser]") -> None:
    install = _add(commands, "install-units", "put the systemd units and /etc/ark into place")
    install.add_argument(
        "--root", default="/", metavar="FOLDER", help="write below it: an image, not this system"
    )
    install.add_argument(
        "--exec", metavar="PATH", help="the ark-trio that the units run [this one]", default=None
    )
    install.add_argument("--gpu", action="store_true", help="engines are the private one, on GPUs")
    install.add_argument(
        "--dry-run", action="store_true", help="say what would be done, do nothing"
    )
    install.add_argument("--uninstall", action="store_true", help="take the units away again")


def _add_up(commands: "argparse._SubParsersAction[LineParser]") -> None:
    up = _add(commands, "up", "run prefiller, decoder and gateway in this terminal")
    for role, port in (("decoder", 62000), ("prefiller", 62010)):
        text = f"the {role}'s port, on this host only [default {port}]"
        up.add_argument(f"--{role}-port", type=_port, default=port, metavar="PORT", help=text)
    up.add_argument(
        "--verbose",
        action="store_true",
        help="show the services' logs here too, not only in a file",
    )
    add_setting_flags(up, [row for row in _ROWS if row.key in _UP_SETTINGS])


def _add_service(commands: "argparse._SubParsersAction[LineParser]", role: Role, text: str) -> None:
    service = _add(commands, role, f"run {text}, in the foreground")
    # For `up`: the process that this one must not outlive.
    service.add_argument("--parent", type=int, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    add_setting_flags(service, [row for row in _ROWS if role in row.spec.roles])


def _add(commands: "argparse._SubParsersAction[LineParser]", name: str, text: str) -> LineParser:
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--config", metavar="FILE", help=f"TOML file of settings [{FILE_VARIABLE}]")
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= _MAX_PORT):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to {_MAX_PORT}")
    return int(text)
