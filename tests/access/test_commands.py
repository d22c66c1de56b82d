"""`ark-trio keys`: what is typed, what is shown, and that the key itself is shown once."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from ark_trio.access.key import PREFIX, digest_of
from ark_trio.access.key_file import read_keys
from ark_trio.cli import main


@pytest.fixture
def path(tmp_path: Path, monkeypatch) -> Path:
    for name in list(os.environ):
        if name.startswith("ARK_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ARK_KEYS_FILE", str(tmp_path / "keys"))
    return tmp_path / "keys"


def run(capsys, *argv: str) -> tuple[object, str, str]:
    code: object
    try:
        code = main(["keys", *argv])
    except SystemExit as ended:
        code = ended.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_add_shows_the_key_once_and_keeps_its_digest(capsys, path: Path):
    code, out, err = run(capsys, "add", "ann")
    secret = out.strip()
    assert code == 0
    assert secret.startswith(PREFIX)
    assert "only time" in err
    assert [(key.name, key.sha256) for key in read_keys(path)] == [("ann", digest_of(secret))]
    assert secret not in path.read_text()
    for words in (("list",), ("list", "--json")):
        code, out, err = run(capsys, *words)
        assert code == 0
        assert "ann" in out
        assert secret not in out + err
        assert digest_of(secret).hex() not in out + err


def test_flags_become_limits(capsys, path: Path):
    flags = [
        *("--models", "a, b", "--requests-per-minute", "60", "--tokens-per-minute", "9000"),
        *("--concurrent-requests", "4", "--priority", "batch", "--expires", "2027-01-31"),
        *("--admin", "--json"),
    ]
    code, out, _ = run(capsys, "add", "ann", *flags)
    assert code == 0
    said = orjson.loads(out)
    assert said.pop("key").startswith(PREFIX)
    limits = {
        "name": "ann",
        "models": ["a", "b"],
        "requests_per_minute": 60,
        "tokens_per_minute": 9000,
        "concurrent_requests": 4,
        "priority": "batch",
        "expires": "2027-01-31T00:00:00Z",
        "admin": True,
    }
    assert said == limits
    code, out, _ = run(capsys, "list", "--json")
    assert orjson.loads(out) == [{**limits, "expired": False}]


def test_an_age_is_counted_from_now(capsys, path: Path):
    run(capsys, "add", "ann", "--expires", "30d")
    (key,) = read_keys(path)
    assert key.expires is not None
    assert abs(key.expires - datetime.now(UTC) - timedelta(days=30)) < timedelta(seconds=5)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["a b"], "name: expected"),
        (["ann", "--expires", "soon"], "expires: expected"),
        (["ann", "--expires", "999999w"], "expires: expected"),
        (["ann", "--priority", "high"], "priority: expected interactive or batch"),
        (["ann", "--tokens-per-minute", "0"], "tokens_per_minute: expected"),
        (["ann", "--tokens-per-minute", "many"], "--tokens-per-minute"),
    ],
)
def test_a_mistake_is_one_line_and_makes_no_key(capsys, path: Path, flags: list[str], said: str):
    code, out, err = run(capsys, "add", *flags)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert not out
    assert not path.exists()


def test_revoke_takes_one_away(capsys, path: Path):
    run(capsys, "add", "ann")
    run(capsys, "add", "bob")
    code, out, err = run(capsys, "revoke", "ann")
    assert (code, out) == (0, "ann revoked\n")
    assert "SIGHUP" in err
    assert [key.name for key in read_keys(path)] == ["bob"]
    code, _, err = run(capsys, "revoke", "ann")
    assert code == 2
    assert "no key called ann" in err


def test_list_says_who_has_expired(capsys, path: Path):
    run(capsys, "add", "old", "--expires", "2020-01-01")
    run(capsys, "add", "root", "--admin")
    run(capsys, "add", "new", "--models", "a,b")
    _, out, _ = run(capsys, "list")
    states = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert states["old"][0] == "expired"
    assert states["root"] == ["admin", "everything"]
    assert states["new"] == ["good", "models", "a,b"]


def test_without_a_file_it_says_how_to_name_one(capsys, monkeypatch):
    monkeypatch.delenv("ARK_KEYS_FILE", raising=False)
    code, _, err = run(capsys, "list")
    assert code == 2
    assert "--keys-file or ARK_KEYS_FILE" in err
