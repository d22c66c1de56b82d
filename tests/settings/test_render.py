import pytest
from attrs import frozen

from ark_trio.config import load_with_sources
from ark_trio.errors import ConfigError
from ark_trio.settings.declare import setting
from ark_trio.settings.load import load
from ark_trio.settings.render import effective_lines


@frozen(kw_only=True)
class WithSecret:
    token: str = setting("none", "A secret.", secret=True)
    keys: tuple[str, ...] = setting((), "Secrets.", secret=True)
    count: int = setting(1, "A number.", secret=True, at_most=3)


def test_secrets_are_masked_when_settings_are_shown():
    loaded = load(WithSecret, {}, {"ARK_TOKEN": "hunter2", "ARK_KEYS": "hunter3,hunter4"}, None)
    assert loaded.settings.token == "hunter2"
    shown = "\n".join(effective_lines(loaded.settings, loaded.sources))
    assert "hunter" not in shown
    assert "ARK_TOKEN" in shown


def test_secrets_are_not_echoed_in_complaints():
    with pytest.raises(ConfigError) as caught:
        load(WithSecret, {}, {"ARK_COUNT": "hunter2"}, None)
    assert "hunter" not in str(caught.value)


def test_every_line_tells_key_value_and_source():
    loaded = load_with_sources({"limits.max_body_bytes": "1MiB"}, {"ARK_MODELS": "a,b"})
    lines = [line.split() for line in effective_lines(loaded.settings, loaded.sources)]
    assert ["limits.max_body_bytes", "1MiB", "--max-body-bytes"] in lines
    assert ["models", "a,b", "ARK_MODELS"] in lines
    assert ["limits.total_s", "none", "default"] in lines
