"""`ark-trio install-units` below a folder; tests/systemd/ has it on a running system."""

import stat
import sys

import pytest

from ark_trio.cli import main
from ark_trio.install import SERVICES, SHIPPED_PROGRAM, UNITS, shipped_folder

PROGRAM = "/srv/ark/bin/ark-trio"


@pytest.fixture
def install(tmp_path, capsys):
    def run(*flags: str, code: int = 0, program: str = PROGRAM) -> list[str]:
        words = ["install-units", f"--root={tmp_path}", f"--exec={program}", *flags]
        assert main(words) == code
        captured = capsys.readouterr()
        assert (captured.err == "") == (code == 0)
        lines: list[str] = (captured.out + captured.err).splitlines()
        return lines

    return run


def test_units_run_the_program_that_is_named(install, tmp_path):
    install()
    for unit in SERVICES:
        file = tmp_path / "etc/systemd/system" / unit
        text = file.read_text()
        role = unit.removeprefix("ark-").removesuffix(".service")
        assert f"\nExecStart={PROGRAM} {role}\n" in text
        assert SHIPPED_PROGRAM not in text
        assert stat.S_IMODE(file.stat().st_mode) == 0o644


def test_as_shipped_they_run_opt_ark(install, tmp_path):
    install(program=SHIPPED_PROGRAM)
    for unit in UNITS:
        shipped = (shipped_folder() / unit).read_text()
        assert (tmp_path / "etc/systemd/system" / unit).read_text() == shipped


def test_a_second_time_changes_nothing(install):
    install()
    assert {line.partition(":")[0] for line in install()} == {"unchanged", "kept"}


def test_an_old_unit_is_replaced_and_a_configuration_is_the_operator_s(install, tmp_path):
    install()
    unit = tmp_path / "etc/systemd/system/ark-proxy.service"
    unit.write_text("old")
    config = tmp_path / "etc/ark/ark.toml"
    config.write_text("mine")
    lines = install()
    assert f"written: {unit}" in lines
    assert unit.read_text() != "old"
    assert config.read_text() == "mine"


def test_gpu_drop_ins_come_and_go_with_the_flag(install, tmp_path):
    drop_ins = [
        tmp_path / f"etc/systemd/system/ark-{role}.service.d/50-gpu.conf"
        for role in ("prefiller", "decoder")
    ]
    install("--gpu")
    assert all("LimitMEMLOCK=infinity" in file.read_text() for file in drop_ins)
    install()
    assert not any(file.parent.exists() for file in drop_ins)


def test_a_dry_run_says_what_it_would_do_and_does_nothing(install, tmp_path):
    dry = install("--dry-run")
    assert list(tmp_path.iterdir()) == []
    assert install() == dry


def test_an_uninstallation_takes_the_units_and_leaves_what_is_the_operator_s(install, tmp_path):
    install("--gpu")
    own = tmp_path / "etc/systemd/system/ark-proxy.service.d/override.conf"
    own.parent.mkdir()
    own.write_text("[Service]\n")
    lines = install("--uninstall")
    assert lines[-1] == "kept: /etc/ark, /var/lib/ark-trio and the user ark"
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {
        "etc/ark/ark.toml",
        "etc/ark/proxy.env",
        "etc/ark/decoder.env",
        "etc/ark/prefiller.env",
        "etc/systemd/system/ark-proxy.service.d/override.conf",
    }


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("/home/me/.venv/bin/ark-trio", "hidden from the services"),
        ("/root/ark/bin/ark-trio", "hidden from the services"),
        ("/opt/a b/ark-trio", "plain characters"),
        ("ark-trio", "absolute path"),
        ("/opt/%i/ark-trio", "plain characters"),
    ],
)
def test_a_program_that_a_unit_can_t_run_is_refused(install, tmp_path, program, said):
    (line,) = install(code=2, program=program)
    assert said in line
    assert list(tmp_path.iterdir()) == []


def test_its_own_interpreter_must_be_within_the_services_reach(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", "/home/me/.venv/bin/python")
    assert main(["install-units", f"--root={tmp_path}"]) == 2
    assert "/home/me/.venv" in capsys.readouterr().err


def test_what_can_t_be_written_is_one_line(install, tmp_path):
    (tmp_path / "etc").write_text("a file")
    lines = install(code=1)
    assert lines[-1].startswith("ark-trio: ")
    assert "can't be written" in lines[-1]


@pytest.mark.parametrize(
    ("toml", "code", "said"),
    [
        ("", 0, "the configuration is good"),
        ('bind = "0.0.0.0:1"', 2, "open to other hosts"),
        ("workres = 1", 2, "'workres' is no setting"),
    ],
)
def test_config_check_tells_whether_the_service_would_start(capsys, tmp_path, toml, code, said):
    file = tmp_path / "ark.toml"
    file.write_text(toml)
    assert main(["config", "--check=proxy", f"--config={file}"]) == code
    captured = capsys.readouterr()
    assert said in captured.out + captured.err
