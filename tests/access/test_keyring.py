"""Whose key it is, and that the time of the answer tells nothing."""

import hmac

import pytest

from ark_trio.access.key import PREFIX, Key, digest_of, new_secret
from ark_trio.access.keyring import KeyRing

ANN, BOB = new_secret(), new_secret()
KEYS = (Key(name="ann", sha256=digest_of(ANN)), Key(name="bob", sha256=digest_of(BOB)))


def test_a_key_is_found_by_itself_and_by_nothing_else():
    ring = KeyRing(KEYS)
    assert ring.find(ANN) is KEYS[0]
    assert ring.find(BOB) is KEYS[1]
    for other in ("", ANN[:-1], ANN + "x", ANN.upper(), digest_of(ANN).hex(), "ключ", new_secret()):
        assert ring.find(other) is None


def test_no_keys_let_nobody_in():
    assert KeyRing().find("") is None
    assert KeyRing().find(ANN) is None


def test_keys_are_random_long_and_recognised():
    many = {new_secret() for _ in range(100)}
    assert len(many) == 100
    assert all(key.startswith(PREFIX) and len(key) == len(PREFIX) + 43 for key in many)


def test_the_digest_decides_and_not_where_it_was_found(monkeypatch):
    """The mark by which candidates are found is short: two keys may have the same."""
    monkeypatch.setattr(KeyRing, "_mark", lambda _ring, _digest: b"same")
    ring = KeyRing(KEYS[:1])
    assert ring.find(ANN) is KEYS[0]
    assert ring.find(BOB) is None


@pytest.mark.parametrize("secret", [ANN, BOB, "sk-ark-nobody"])
def test_digests_are_compared_in_constant_time_and_once_also_for_a_miss(monkeypatch, secret: str):
    compared = []

    def compare(ours: bytes, theirs: bytes) -> bool:
        compared.append((len(ours), len(theirs)))
        return hmac_compare(ours, theirs)

    hmac_compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", compare)
    KeyRing(KEYS).find(secret)
    assert compared == [(32, 32)]


def test_what_is_searched_by_is_blinded_by_a_secret_of_the_ring():
    one, two = KeyRing(KEYS), KeyRing(KEYS)
    assert not one._by_mark.keys() & two._by_mark.keys()
    assert not any(key.sha256.startswith(mark) for key in KEYS for mark in one._by_mark)
