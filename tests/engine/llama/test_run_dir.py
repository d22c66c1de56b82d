"""The private folder for states."""

from pathlib import Path

import pytest

from ark_trio.engine.llama.run_dir import open_run_dir
from ark_trio.errors import ConfigError


def test_the_folder_is_private_and_goes_with_everything_in_it(tmp_path: Path):
    with open_run_dir(tmp_path) as run_dir:
        assert run_dir.path.stat().st_mode & 0o777 == 0o700
        (run_dir.path / "left.kv").write_bytes(b"x")
    assert not list(tmp_path.iterdir())


def test_a_states_file_goes_with_its_block(tmp_path: Path):
    with open_run_dir(tmp_path) as run_dir:
        with run_dir.state_file() as path:
            path.write_bytes(b"x")
        assert not list(run_dir.path.glob("*.kv"))
        with run_dir.state_file():
            pass  # never written: no error


def test_what_killed_processes_left_is_removed_and_no_other(tmp_path: Path):
    dead = tmp_path / "ark-kv-dead"
    dead.mkdir()
    (dead / "lock").touch()
    foreign = tmp_path / "ark-kv-foreign"
    foreign.mkdir()
    with open_run_dir(tmp_path) as living, open_run_dir(tmp_path):
        assert living.path.exists()
        assert not dead.exists()
        assert foreign.exists()


@pytest.mark.parametrize("parent", ["missing", "file"])
def test_a_folder_that_cant_be_used_is_one_clear_line(tmp_path: Path, parent: str):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"engine\.run_dir"), open_run_dir(tmp_path / parent):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
