"""API keys as openai-python sees them: what it raises, what it reads of the rates, and that it comes back when told."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from attrs import frozen
from openai import OpenAI

from tests.clients.conftest import MODEL, NAMES
from tests.support.processes import BIN, engine, gateway

pytestmark = [pytest.mark.clients, pytest.mark.timeout(60)]

ASKED: Any = {"model": MODEL, "messages": [{"role": "user", "content": "one two"}]}


@frozen
class Door:
    """A gateway that asks for keys."""

    url: str
    keys: Path

    def client(self, name: str, *flags: str, max_retries: int = 0) -> OpenAI:
        """Make a key, and a client that has it. The gateway knows it when it starts or reloads."""
        command = [str(BIN / "ark-trio"), "keys", "add", name, "--keys-file", str(self.keys)]
        made = subprocess.run([*command, "--json", *flags], capture_output=True, check=True)
        secret = json.loads(made.stdout)["key"]
        return OpenAI(base_url=self.url, api_key=secret, max_retries=max_retries, timeout=20)


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, OpenAI]]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    door = Door("", keys)
    made = {
        "plain": door.client("plain"),
        "elsewhere": door.client("elsewhere", "--models", "other"),
        "old": door.client("old", "--expires", "2020-01-01"),
        "slow": door.client("slow", "--requests-per-minute", "1"),
        "patient": door.client("patient", "--requests-per-minute", "30", max_retries=3),
    }
    assert keys.stat().st_mode & 0o777 == 0o600
    with engine("decoder", *NAMES) as decoder:
        with gateway("proxy", [decoder.port], env={"ARK_KEYS_FILE": str(keys)}) as served:
            url = f"{served.url}/v1"
            yield {name: client.with_options(base_url=url) for name, client in made.items()}


def test_a_key_is_all_it_takes(clients: dict[str, OpenAI]):
    client = clients["plain"]
    assert client.chat.completions.create(**ASKED).choices[0].message.content == "one two"
    stream = client.chat.completions.create(**ASKED, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in stream) == "one two"
    assert [model.id for model in client.models.list()] == [MODEL]


def test_a_wrong_or_old_key_is_an_authentication_error(clients: dict[str, OpenAI]):
    for client in (clients["plain"].with_options(api_key="sk-wrong"), clients["old"]):
        with pytest.raises(openai.AuthenticationError) as caught:
            client.chat.completions.create(**ASKED)
        assert caught.value.code == "invalid_api_key"


def test_another_model_is_a_permission_error(clients: dict[str, OpenAI]):
    with pytest.raises(openai.PermissionDeniedError) as caught:
        clients["elsewhere"].chat.completions.create(**ASKED)
    assert caught.value.param == "model"
    assert list(clients["elsewhere"].models.list()) == []


def test_a_rate_that_is_used_up_is_a_rate_limit_error_with_its_headers(clients: dict[str, OpenAI]):
    first = clients["slow"].chat.completions.with_raw_response.create(**ASKED)
    assert first.headers["x-ratelimit-limit-requests"] == "1"
    assert first.headers["x-ratelimit-remaining-requests"] == "0"
    with pytest.raises(openai.RateLimitError) as caught:
        clients["slow"].chat.completions.create(**ASKED)
    assert caught.value.code == "rate_limit_exceeded"
    assert 55 <= int(caught.value.response.headers["retry-after"]) <= 60


def test_the_client_comes_back_when_it_is_told_to(clients: dict[str, OpenAI]):
    """Thirty may come at once; the next is refused and told to come back in two seconds, and does."""
    began = time.monotonic()
    for _ in range(31):
        assert clients["patient"].chat.completions.create(**ASKED).choices
    assert time.monotonic() - began > 0.5
