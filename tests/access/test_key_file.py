"""The file of keys: what is read from it, what refuses it, and how it changes while others read it."""

import os
import threading
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ark_trio.access import key_change
from ark_trio.access.key import Key, digest_of
from ark_trio.access.key_change import add_key, revoke_key
from ark_trio.access.key_file import key_line, parse_key, parse_keys, read_keys
from ark_trio.errors import ConfigError

SHA = digest_of("x").hex()
FILE = Path("keys")


def line(**fields: object) -> str:
    return orjson.dumps({"name": "ann", "sha256": SHA, **fields}).decode()


def key(name: str, **fields: object) -> Key:
    return Key(name=name, sha256=digest_of(name), **fields)  # type: ignore[arg-type]  # a test's shorthand


def test_a_line_says_whom_the_key_is_for_and_what_they_may_do():
    (found,) = parse_keys(
        "# who\n\n"
        + line(
            models=["a", "b"],
            requests_per_minute=60,
            tokens_per_minute=1000,
            concurrent_requests=2,
            priority="batch",
            expires="2027-01-31",
            admin=True,
        ),
        FILE,
    )
    assert found == Key(
        name="ann",
        sha256=digest_of("x"),
        models=("a", "b"),
        requests_per_minute=60,
        tokens_per_minute=1000,
        concurrent_requests=2,
        priority="batch",
        expires=datetime(2027, 1, 31, tzinfo=UTC),
        admin=True,
    )
    assert parse_keys(key_line(found), FILE) == (found,)


def test_what_a_line_does_not_say_is_without_limit():
    (found,) = parse_keys(line(), FILE)
    assert found == Key(name="ann", sha256=digest_of("x"))
    assert found.may_use("anything")
    assert not found.expired()


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("{", "line 1: not a JSON object"),
        ("[]", "line 1: not a JSON object"),
        (line(sha256=None), "sha256: is missing"),
        (line(name=None), "name: is missing"),
        (line(name="a b"), "name: expected"),
        (line(name=3), "name: expected"),
        (line(sha256=SHA.upper()), "sha256: expected 64"),
        (line(sha256="ab"), "sha256: expected 64"),
        (line(models="a"), "models: expected"),
        (line(models=[1]), "models: expected"),
        (line(requests_per_minute=0), "requests_per_minute: expected"),
        (line(requests_per_minute="60"), "requests_per_minute: expected"),
        (line(tokens_per_minute=True), "tokens_per_minute: expected"),
        (line(tokens_per_minute=1.5), "tokens_per_minute: expected"),
        (line(concurrent_requests=2**60), "concurrent_requests: expected"),
        (line(priority="high"), "priority: expected interactive or batch"),
        (line(expires="soon"), "expires: expected"),
        (line(expires=1), "expires: expected"),
        (line(admin="yes"), "admin: expected true or false"),
        (line(token_per_minute=5), "'token_per_minute' is no field"),
        (line() + "\n" + line(sha256="0" * 64), "line 2: name: on another line too"),
        (line() + "\n" + line(name="bob"), "line 2: sha256: on another line too"),
    ],
)
def test_a_line_that_is_not_understood_refuses_the_file_and_names_the_field(bad: str, said: str):
    with pytest.raises(ConfigError) as caught:
        parse_keys(bad, FILE)
    text = str(caught.value)
    assert said in text
    assert text.startswith("keys_file: keys: line ")
    assert "\n" not in text
    assert SHA not in text


def test_a_file_that_cannot_be_read_is_a_line(tmp_path: Path):
    with pytest.raises(ConfigError, match="can't be read: No such file"):
        read_keys(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_keys(tmp_path / "binary")


@pytest.mark.timeout(5)
def test_what_is_no_file_is_refused_and_waited_for_by_nobody(tmp_path: Path):
    os.mkfifo(tmp_path / "keys")
    for path in (tmp_path / "keys", tmp_path, Path("/dev/null")):
        with pytest.raises(ConfigError, match="can't be read: "):
            read_keys(path)


@given(st.text())
def test_any_text_is_read_or_refused_by_a_line(text: str):
    try:
        parse_keys(text, FILE)
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017 (there need be none)


def test_changes_keep_every_other_line_as_it_was(tmp_path: Path):
    path = tmp_path / "keys"
    written = f'# mine\n{{ "name":"ann",  "sha256":"{SHA}" }}\n\n'
    path.write_text(written)
    add_key(path, key("bob", tokens_per_minute=5))
    assert path.read_text() == written + key_line(key("bob", tokens_per_minute=5)) + "\n"
    revoke_key(path, "bob")
    assert path.read_text() == written
    assert [each.name for each in tmp_path.iterdir()] == ["keys"]


def test_the_last_line_may_lack_its_end(tmp_path: Path):
    path = tmp_path / "keys"
    path.write_text(line())
    add_key(path, key("bob"))
    assert [each.name for each in read_keys(path)] == ["ann", "bob"]


def test_a_new_file_is_private_and_an_old_one_keeps_its_mode(tmp_path: Path):
    path = tmp_path / "keys"
    add_key(path, key("ann"))
    assert path.stat().st_mode & 0o7777 == 0o600
    path.chmod(0o640)
    add_key(path, key("bob"))
    assert path.stat().st_mode & 0o7777 == 0o640


def test_a_link_is_followed_and_stays(tmp_path: Path):
    (tmp_path / "there").mkdir()
    link = tmp_path / "keys"
    link.symlink_to(tmp_path / "there" / "keys")
    add_key(link, key("ann"))
    assert link.is_symlink()
    assert [each.name for each in read_keys(tmp_path / "there" / "keys")] == ["ann"]


def test_names_are_taken_once_and_must_be_there_to_go(tmp_path: Path):
    path = tmp_path / "keys"
    add_key(path, key("ann"))
    with pytest.raises(ConfigError, match="a key called ann already"):
        add_key(path, key("ann"))
    with pytest.raises(ConfigError, match="no key called bob"):
        revoke_key(path, "bob")
    assert [each.name for each in read_keys(path)] == ["ann"]


def test_a_bad_file_is_not_changed(tmp_path: Path):
    path = tmp_path / "keys"
    path.write_text("{\n")
    for change in (lambda: add_key(path, key("ann")), lambda: revoke_key(path, "ann")):
        with pytest.raises(ConfigError, match="line 1"):
            change()
    assert path.read_text() == "{\n"


def test_a_change_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch):
    path = tmp_path / "keys"
    add_key(path, key("ann"))

    def fail(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ConfigError, match="can't be changed: No space left"):
        add_key(path, key("bob"))
    assert [each.name for each in tmp_path.iterdir()] == ["keys"]
    assert [each.name for each in read_keys(path)] == ["ann"]


def test_changes_at_once_lose_none_and_readers_never_see_a_torn_file(tmp_path: Path):
    path = tmp_path / "keys"
    add_key(path, key("first"))
    over = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not over.is_set():
            seen.append(len(read_keys(path)))

    reader = threading.Thread(target=read)
    writers = [
        threading.Thread(target=add_key, args=(path, key(f"key-{number}"))) for number in range(16)
    ]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    over.set()
    reader.join()
    assert len(read_keys(path)) == 17
    assert seen == sorted(seen)


def test_a_lock_that_is_held_for_ever_is_told(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(key_change, "_LOCK_S", 0.05)
    with key_change._locked(tmp_path):
        with pytest.raises(ConfigError, match="another change has not ended"):
            add_key(tmp_path / "keys", key("ann"))


def test_a_key_expires_at_its_moment():
    mine = parse_key(line(expires="2027-01-31T12:00:00+01:00"))
    assert not mine.expired(datetime(2027, 1, 31, 10, 59, 59, tzinfo=UTC))
    assert mine.expired(datetime(2027, 1, 31, 11, 0, 0, tzinfo=UTC))
