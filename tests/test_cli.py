import os
import subprocess
import sys

import pytest

import ark_trio
from ark_trio.cli import main
from ark_trio.config import EngineSettings, Settings


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("ARK_", "HTTP_FORWARD_", "PREFILL_NODE")):
            monkeypatch.delenv(name)
    return monkeypatch


def run(capsys, *argv):
    """Exit code, standard output, standard error."""
    code: object
    try:
        code = main(argv)
    except SystemExit as ended:  # argparse's way out
        code = ended.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "the following arguments are required: command"),
        (["serve"], "invalid choice: 'serve'"),
        (["proxy", "--nope"], "unrecognized arguments: --nope"),
        (["proxy", "--slots=3"], "unrecognized arguments: --slots=3"),
        (["proxy", "--max-req=3"], "unrecognized arguments: --max-req=3"),
        (["proxy", "--workers"], "--workers: expected one argument"),
        (["proxy", "--workers=x"], "--workers: workers = 'x': expected a whole number"),
        (["proxy", "--bind=0.0.0.0:1"], "ARK_INSECURE=1"),
        (["proxy", "--config=/nowhere.toml"], "/nowhere.toml: can't be read"),
        (
            ["decoder", "--engine=xllm"],
            "the private engine's decoder needs one; set PREFILL_NODE_IP",
        ),
        (["prefiller", "--engine=openai"], "openai is not available in this version"),
        (["up", "--decoder-port=0"], "--decoder-port: '0' is not a port"),
        (["up", "--bind=0.0.0.0:1"], "ARK_INSECURE=1"),
        (["up", "--engine=echo", "--decoder-port=7", "--prefiller-port=7"], "port 7 "),
        (["model"], "required: action"),
        (["check", "--decoders="], "expected host:port,…, at least one"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_exit_code_2(capsys, argv, said):
    code, out, err = run(capsys, *argv)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("ark-trio: ")
    assert said in err


def test_config_shows_every_value_with_its_source(capsys, clean, tmp_path):
    file = tmp_path / "ark.toml"
    file.write_text("workers = 3\n")
    clean.setenv("ARK_MAX_WAITING", "7")
    clean.setenv("ARK_PROXY_SERVICE_HOST", "10.0.0.1")
    code, out, err = run(capsys, "config", "--drain-s=5s", f"--config={file}")
    lines = {tuple(line.split()) for line in out.splitlines()}
    assert code == 0
    assert ("limits.max_waiting", "7", "ARK_MAX_WAITING") in lines
    assert ("limits.drain_s", "5", "--drain-s") in lines
    assert ("workers", "3", str(file)) in lines
    assert ("bind", "127.0.0.1:18080", "default") in lines
    assert err == "ark-trio: the variable ARK_PROXY_SERVICE_HOST means nothing here\n"


@pytest.mark.parametrize(
    ("flags", "insecure"),
    [
        (["--insecure"], True),
        (["--insecure=0"], False),
        (["--insecure", "--workers=1"], True),
        ([], False),
    ],
)
def test_a_truth_may_be_given_bare(capsys, flags, insecure):
    _, out, _ = run(capsys, "config", *flags)
    assert f"insecure {int(insecure)}" in [" ".join(line.split()[:2]) for line in out.splitlines()]


def test_the_version_is_the_package_s(capsys):
    assert run(capsys, "--version")[:2] == (0, f"ark-trio {ark_trio.__version__}\n")


@pytest.mark.parametrize("command", ["up", "proxy", "prefiller", "decoder", "check", "config"])
def test_help_tells_variable_range_and_default_of_each_setting(capsys, command):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert "ARK_LOG_LEVEL; default info" in " ".join(out.split())
    assert "one of debug, info, warning, error" in " ".join(out.split())


@pytest.fixture
def services(clean):
    """Stand-ins for the services; what each was given, in order."""
    import ark_trio.engine.main
    import ark_trio.serve

    given = []

    def stand_in(code):
        def run_it(settings, *reload):
            given.append(settings)
            assert all(again() == settings for again in reload)
            return code

        return run_it

    clean.setattr("ark_trio.log.configure_logging", stand_in(None))
    clean.setattr(ark_trio.serve, "run_proxy", stand_in(3))
    clean.setattr(ark_trio.engine.main, "run_decoder", stand_in(4))
    clean.setattr(ark_trio.engine.main, "run_prefiller", stand_in(5))
    return given


def test_the_proxy_serves_the_loaded_settings(services):
    assert main(["proxy", "--models=a,b"]) == 3
    assert services == [Settings(models=("a", "b"))] * 2


@pytest.mark.parametrize(("command", "code"), [("decoder", 4), ("prefiller", 5)])
def test_the_engines_serve_the_loaded_settings(services, command, code):
    assert main([command, "--engine=echo"]) == code
    assert services == [Settings(engine=EngineSettings(driver="echo"))] * 2


def test_an_interrupt_ends_a_command_without_a_traceback(capsys, clean):
    def interrupted(_settings):
        raise KeyboardInterrupt

    clean.setattr("ark_trio.log.configure_logging", interrupted)
    assert run(capsys, "proxy") == (130, "", "")


def test_model_fetch_tells_the_path(capsys, clean, tmp_path):
    path = tmp_path / "m.gguf"
    answers = iter([(path, True), (path, False)])
    clean.setattr("ark_trio.model.fetch_model", lambda _settings: next(answers))
    assert run(capsys, "model", "fetch") == (0, f"{path} fetched, sha256 checked\n", "")
    assert run(capsys, "model", "fetch") == (0, f"{path} was there, sha256 checked\n", "")


def test_model_fetch_tells_in_one_line_why_it_failed(capsys, clean):
    def failing(_settings):
        from ark_trio.model import FetchError

        raise FetchError("no network")

    clean.setattr("ark_trio.model.fetch_model", failing)
    assert run(capsys, "model", "fetch") == (1, "", "ark-trio: no network\n")


def test_with_a_configured_model_there_is_nothing_to_fetch(capsys, tmp_path):
    path = tmp_path / "mine.gguf"
    path.write_bytes(b"GGUF")
    code, out, _ = run(capsys, "model", "fetch", f"--model={path}")
    assert (code, out) == (0, f"{path} is configured; nothing to fetch\n")


HEAVY = ("trio", "quart", "hypercorn", "grpclib", "structlog", "google.protobuf", "asyncio")


def test_help_loads_none_of_the_heavy_libraries():
    script = (
        "import sys\nfrom ark_trio.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        f"sys.exit(repr(sorted(set({HEAVY}) & set(sys.modules))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.stderr.strip() == "[]"


def test_python_m_is_the_same_and_a_closed_pipe_is_no_failure():
    command = [sys.executable, "-m", "ark_trio", "config"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
