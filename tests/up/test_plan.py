import os
import socket
import sys

import pytest

from ark_trio.config import Bind, EngineSettings, Settings
from ark_trio.errors import ConfigError
from ark_trio.up.plan import make_plan, require_free_ports

ECHO = Settings(engine=EngineSettings(driver="echo"))


def commands(settings=ECHO, **passed_on):
    flags = {f"--{name.replace('_', '-')}": value for name, value in passed_on.items()}
    return {
        each.name: list(each.command) for each in make_plan(settings, 62000, 62010, flags).services
    }


def test_the_services_find_each_other_on_loopback():
    found = commands()
    assert list(found) == ["prefiller", "decoder", "gateway"]
    assert "--grpc-bind=127.0.0.1:62010" in found["prefiller"]
    assert "--grpc-bind=127.0.0.1:62000" in found["decoder"]
    assert "--prefillers=127.0.0.1:62010" in found["decoder"]
    assert "--decoders=127.0.0.1:62000" in found["gateway"]
    assert "--bind=127.0.0.1:18080" in found["gateway"]


def test_a_child_is_this_program_and_watches_this_process():
    for command in commands().values():
        assert command[:4] == [sys.executable, "-P", "-m", "ark_trio"]
        assert f"--parent={os.getpid()}" in command


def test_flags_reach_the_services_that_take_them():
    found = commands(engine="echo", slots="3", config="/x.toml", log_level="debug")
    assert "--slots=3" in found["decoder"]
    assert "--slots=3" in found["prefiller"]
    assert "--slots=3" not in found["gateway"]
    assert all({"--config=/x.toml", "--log-level=debug"} <= set(each) for each in found.values())


def test_own_addresses_come_last_and_so_win():
    decoder = commands(prefillers="elsewhere:1")["decoder"]
    assert decoder.index("--prefillers=elsewhere:1") < decoder.index("--prefillers=127.0.0.1:62010")


@pytest.mark.parametrize(
    ("names", "served"),
    [
        ((), "echo,deepseek-r1-0528"),
        (("mine",), "mine,deepseek-r1-0528"),
        (("deepseek-r1-0528",), "deepseek-r1-0528"),
    ],
)
def test_the_documented_model_name_is_always_served(names, served):
    settings = Settings(engine=EngineSettings(driver="echo", served_names=names))
    assert f"--served-names={served}" in commands(settings)["decoder"]


def test_a_real_model_is_served_under_its_own_name(tmp_path):
    model = tmp_path / "Tiny.Q4_1.gguf"
    model.write_bytes(b"GGUF")
    found = commands(Settings(engine=EngineSettings(model=model)))
    assert "--served-names=tiny,deepseek-r1-0528" in found["decoder"]


def test_a_missing_engine_is_told_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"pip install 'ark-trio\[engine\]'"):
        commands(Settings())


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def plan(bind):
    settings = Settings(engine=EngineSettings(driver="echo"), bind=bind, insecure=True)
    return make_plan(settings, free_port(), free_port(), {}).services


def test_free_ports_are_free_again_after_the_look():
    services = plan(Bind(host="127.0.0.1", port=free_port()))
    require_free_ports(services)
    require_free_ports(services)


def test_two_services_on_one_port_are_refused():
    port = free_port()
    services = make_plan(ECHO, port, port, {}).services
    with pytest.raises(ConfigError, match=f"port {port} .*the decoder needs it"):
        require_free_ports(services)


def test_a_port_taken_is_named_with_its_service_and_flag():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        services = plan(Bind(host="127.0.0.1", port=port))
        with pytest.raises(
            ConfigError, match=rf"port {port} .* is taken .*gateway needs it .*--bind"
        ):
            require_free_ports(services)


def test_an_address_that_this_host_lacks_is_told():
    services = plan(Bind(host="192.0.2.1", port=free_port()))
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1.* can't be used .*gateway needs it"):
        require_free_ports(services)


def test_a_socket_s_file_left_behind_is_no_hindrance_but_a_served_one_is(tmp_path):
    path = tmp_path / "http.sock"
    services = plan(Bind(path=path))
    require_free_ports(services)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(ConfigError, match=r"http\.sock is taken"):
            require_free_ports(services)
    require_free_ports(services)
