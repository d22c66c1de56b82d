from pathlib import Path

import pytest

from ark_trio.config import (
    Address,
    Bind,
    EngineSettings,
    Settings,
    load_settings,
    load_with_sources,
    require_runnable,
    settings_table,
)
from ark_trio.errors import ConfigError
from ark_trio.settings.declare import rows
from ark_trio.settings.parse import parse_setting
from ark_trio.settings.render import spell


def write(folder: Path, text: str) -> Path:
    path = folder / "ark.toml"
    path.write_text(text)
    return path


def addresses(*pairs):
    return tuple(Address(host=host, port=port) for host, port in pairs)


def test_nothing_set_gives_the_contract_s_defaults():
    settings = load_settings({}, {})
    assert settings == Settings()
    assert settings.bind == Bind(host="127.0.0.1", port=18080)
    assert settings.decoders == addresses(("127.0.0.1", 62000))
    assert settings.prefillers == ()
    assert settings.grpc_bind == Address(host="0.0.0.0", port=62000)
    assert settings.models == ("deepseek-r1-0528",)
    limits = settings.limits
    assert (limits.max_requests, limits.max_waiting, settings.engine.max_waiting) == (
        4096,
        256,
        256,
    )
    assert (limits.connect_s, limits.first_token_s, limits.between_tokens_s) == (5, 300, 120)
    assert (limits.stalled_write_s, limits.total_s, limits.drain_s) == (30, None, 60)
    assert (limits.max_body_bytes, limits.max_message_bytes) == (32 * 2**20, 4 * 2**20)


def test_file_gives_way_to_environment_and_environment_to_command_line(tmp_path):
    path = write(tmp_path, "workers = 2\n[limits]\nmax_waiting = 1\nmax_requests = 11\n")
    loaded = load_with_sources(
        {"limits.max_waiting": "3"},
        {"ARK_CONFIG": str(path), "ARK_MAX_WAITING": "2", "ARK_MAX_REQUESTS": "12"},
    )
    limits = loaded.settings.limits
    assert (limits.max_waiting, limits.max_requests, loaded.settings.workers) == (3, 12, 2)
    assert loaded.sources["limits.max_waiting"] == "--max-waiting"
    assert loaded.sources["limits.max_requests"] == "ARK_MAX_REQUESTS"
    assert loaded.sources["workers"] == str(path)
    assert loaded.sources["bind"] == "default"


def test_the_file_that_is_typed_comes_before_the_variable_s(tmp_path):
    path = write(tmp_path, "workers = 2\n")
    assert load_settings({}, {"ARK_CONFIG": "/nowhere"}, path).workers == 2


def test_an_empty_variable_counts_as_unset():
    assert (
        load_settings({}, {"ARK_WORKERS": "", "PREFILL_NODE_IP": " ", "ARK_CONFIG": ""})
        == Settings()
    )


def test_each_setting_reads_back_what_it_is_shown_as():
    for row in rows(Settings):
        if row.default not in (None, ()):
            assert parse_setting(row, spell(row.default), "test") == row.default, row.key


def test_names_are_unique_and_every_setting_has_help():
    table = list(rows(Settings))
    assert len({row.env for row in table}) == len({row.flag for row in table}) == len(table)
    assert all(row.spec.help.endswith(".") for row in table)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HTTP_FORWARD_GRPC_HOST": "10.0.0.1"}, [("10.0.0.1", 62000)]),
        ({"HTTP_FORWARD_GRPC_HOST": "0.0.0.0", "HTTP_FORWARD_GRPC_PORT": "7"}, [("127.0.0.1", 7)]),
        ({"HTTP_FORWARD_GRPC_PORT": "7"}, [("127.0.0.1", 7)]),
        (
            {"HTTP_FORWARD_GRPC_HOST_LIST": "a, b:4 ,0.0.0.0,", "HTTP_FORWARD_GRPC_HOST": "x"},
            [("a", 62000), ("b", 4), ("127.0.0.1", 62000)],
        ),
        (
            {"HTTP_FORWARD_GRPC_HOST_LIST": "a", "ARK_DECODERS": "b:1,[::1]:2"},
            [("b", 1), ("::1", 2)],
        ),
    ],
)
def test_decoders_come_from_the_first_source_in_the_contract_s_order(environ, expected):
    assert load_settings({}, environ).decoders == addresses(*expected)
    typed = load_settings({"decoders": "c:3"}, environ)
    assert typed.decoders == addresses(("c", 3))


def test_older_variables_come_before_the_file(tmp_path):
    path = write(tmp_path, 'decoders = ["file:1"]\nprefillers = ["file:2"]\n')
    environ = {"HTTP_FORWARD_GRPC_HOST": "env", "PREFILL_NODE_IP": "env"}
    loaded = load_with_sources({}, environ, path)
    assert loaded.settings.decoders == loaded.settings.prefillers == addresses(("env", 62000))
    assert loaded.sources["decoders"] == "HTTP_FORWARD_GRPC_HOST"
    assert load_settings({}, {}, path).decoders == addresses(("file", 1))


@pytest.mark.parametrize(("engine", "port"), [("llama", 62000), ("xllm", 62001)])
def test_prefill_nodes_have_the_port_of_their_engine(engine, port):
    environ = {"PREFILL_NODE_IP": "10.0.0.1,10.0.0.2", "ARK_ENGINE": engine}
    assert load_settings({}, environ).prefillers == addresses(
        ("10.0.0.1", port), ("10.0.0.2", port)
    )
    assert load_settings({"prefillers": ""}, environ).prefillers == ()


@pytest.mark.parametrize(
    ("toml", "environ", "said"),
    [
        (
            "",
            {"ARK_BIND": "x"},
            "ARK_BIND: bind = 'x': expected host:port, [IPv6]:port or unix:/path",
        ),
        (
            "",
            {"ARK_WORKERS": "1.5"},
            "ARK_WORKERS: workers = '1.5': expected a whole number at least 1 and",
        ),
        ("", {"ARK_ENGINE": "vllm"}, "expected one of llama, echo, xllm, openai"),
        ("", {"ARK_DRAIN_S": "nan"}, "limits.drain_s = 'nan': expected seconds"),
        ("", {"ARK_DRAIN_S": "9" * 400 + "h"}, "limits.drain_s"),
        ("", {"ARK_DRAIN_S": "-1"}, "limits.drain_s = '-1'"),
        ("", {"ARK_INSECURE": "maybe"}, "insecure = 'maybe': expected 1 or 0"),
        ("", {"ARK_DECODERS": "h:1/generate"}, "ARK_DECODERS: decoders"),
        (
            "",
            {"ARK_DECODERS": ","},
            "ARK_DECODERS: decoders = ',': expected host:port,…, at least one",
        ),
        ("", {"HTTP_FORWARD_GRPC_PORT": "x"}, "HTTP_FORWARD_GRPC_PORT: 'x': expected a port"),
        ("", {"HTTP_FORWARD_GRPC_HOST_LIST": "h:1/x"}, "HTTP_FORWARD_GRPC_HOST_LIST: 'h:1/x'"),
        ("", {"ARK_MAX_BODY_BYTES": "9" * 200}, "…: expected bytes"),
        ("workers = true", {}, "ark.toml: workers = True: expected a whole number"),
        ('workers = "\\n"', {}, "ark.toml: workers = '\\n'"),
        ("decoders = [1]", {}, "ark.toml: decoders = [1]: expected host:port,…"),
        ("workres = 1", {}, "ark.toml: 'workres' is no setting"),
        ("[limits]\nmax_wating = 1", {}, "ark.toml: 'limits.max_wating' is no setting"),
        ("limits = 3", {}, "ark.toml: limits: expected a table"),
        ("[bind]\nhost = 'x'", {}, "ark.toml: bind = {'host': 'x'}: expected"),
        ("workers = x", {}, "ark.toml: not a TOML file: Invalid value (at line 1, column 11)"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_that_names_it_and_its_place(
    tmp_path, toml, environ, said
):
    with pytest.raises(ConfigError) as caught:
        load_settings({}, environ, write(tmp_path, toml))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"/nowhere\.toml: can't be read: No such file"):
        load_settings({}, {"ARK_CONFIG": "/nowhere.toml"})


def test_a_file_that_is_not_text_is_named(tmp_path):
    path = tmp_path / "ark.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"ark\.toml: not a TOML file"):
        load_settings({}, {}, path)


def test_an_override_of_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"'limits\.nope' is no setting"):
        load_settings({"limits.nope": "1"}, {})


def test_unknown_variables_are_kept_for_one_warning_and_do_no_harm():
    environ = {"ARK_PROXY_PORT": "tcp://10.0.0.1:80", "ARK_BIND": "[::1]:1", "ARKANE": "x"}
    assert load_settings({}, environ).unknown_variables == ("ARK_PROXY_PORT",)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5), ("0.5", 0.5), ("500ms", 0.5), ("30s", 30), ("5m", 300), ("1h", 3600)],
)
def test_durations_carry_units(text, seconds):
    assert load_settings({"limits.total_s": text}, {}).limits.total_s == seconds


@pytest.mark.parametrize("text", ["none", "off", "None"])
def test_a_limit_can_be_taken_away_again(tmp_path, text):
    path = write(tmp_path, "[limits]\ntotal_s = 5\n")
    assert load_settings({}, {}, path).limits.total_s == 5
    assert load_settings({"limits.total_s": text}, {}, path).limits.total_s is None


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), ("64KiB", 2**16), ("8 MiB", 2**23), ("1GiB", 2**30)]
)
def test_sizes_carry_units(text, size):
    assert load_settings({"limits.max_body_bytes": text}, {}).limits.max_body_bytes == size


@pytest.mark.parametrize(
    ("text", "truth"), [("1", True), ("Yes", True), ("on", True), ("0", False), ("false", False)]
)
def test_truths_have_the_usual_spellings(text, truth):
    assert load_settings({}, {"ARK_INSECURE": text}).insecure is truth


def test_a_file_may_use_toml_s_own_types(tmp_path):
    text = 'bind = "unix:/run/x"\ninsecure = true\nmodels = ["a", "b"]\n[engine]\nmodel = "~/m.gguf"\n[limits]\ndrain_s = 1.5'
    settings = load_settings({}, {}, write(tmp_path, text))
    assert settings.bind.path == Path("/run/x")
    assert settings.insecure
    assert settings.models == ("a", "b")
    assert settings.engine.model == Path.home() / "m.gguf"
    assert settings.limits.drain_s == 1.5


@pytest.mark.parametrize(
    ("settings", "role", "said"),
    [
        (Settings(bind=Bind(host="0.0.0.0", port=1)), "proxy", "ARK_INSECURE=1"),
        (
            Settings(bind=Bind(host="10.0.0.1", port=1)),
            "proxy",
            "10.0.0.1:1 is open to other hosts",
        ),
        (
            Settings(engine=EngineSettings(driver="xllm")),
            "decoder",
            "the private engine's decoder needs one",
        ),
        (Settings(engine=EngineSettings(driver="openai")), "prefiller", "openai is not available"),
    ],
)
def test_what_should_not_run_is_refused(settings, role, said):
    with pytest.raises(ConfigError, match=said):
        require_runnable(settings, role)


@pytest.mark.parametrize(
    ("settings", "role"),
    [
        (Settings(), "proxy"),
        (Settings(bind=Bind(host="0.0.0.0", port=1), insecure=True), "proxy"),
        (Settings(bind=Bind(host="0.0.0.0", port=1), keys_file=Path("/etc/ark/keys")), "proxy"),
        (Settings(bind=Bind(path=Path("/run/x"))), "proxy"),
        (Settings(engine=EngineSettings(driver="xllm")), "proxy"),
        (Settings(bind=Bind(host="0.0.0.0", port=1)), "decoder"),
        (Settings(engine=EngineSettings(driver="echo")), "prefiller"),
    ],
)
def test_what_may_run_is_let_through(settings, role):
    require_runnable(settings, role)


def test_keys_that_the_service_manager_hands_over_are_found_unless_others_are_named(tmp_path):
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert load_settings({}, environ).keys_file is None
    (tmp_path / "ark-keys").touch()
    assert load_settings({}, environ).keys_file == tmp_path / "ark-keys"
    assert load_settings({}, {**environ, "ARK_KEYS_FILE": "/k"}).keys_file == Path("/k")
    assert load_settings({}, {**environ, "ARK_KEYS_FILE": "none"}).keys_file is None


def test_the_documentation_lists_the_settings_as_they_are():
    page = Path(__file__).parent.parent / "docs" / "configuration.md"
    assert settings_table() in page.read_text(encoding="utf-8")
