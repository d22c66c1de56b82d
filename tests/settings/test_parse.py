"""Any text for any setting gives a value of its kind, or one line that names the setting and where the text came from."""

import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ark_trio.config import Settings, load_with_sources
from ark_trio.errors import ConfigError
from ark_trio.settings.declare import Row, rows
from ark_trio.settings.parse import parse_setting

ROWS = tuple(rows(Settings))
SPECIAL = (
    *("none", "off", "1", "-1", "0", "1e9", "nan", "inf", "1_000", "0x10", "٣", "²", "½", "9" * 5000, "1.5h", "5 m", "12 MiB"),
    *("1" + "0" * 400 + "h", "a:1", "[::1]:1", "[::1%lo]:80", "unix:", "unix:/" + "x" * 300, "host:٣", ",", "=,=", "*=open", "a=b=c"),
    *("~", "~nosuchuser/x", "a\0b", "\0", "a\nb", "\ud800", " ", "\u202e1", "-", "+5", "--", "{}", "[]", "True", "YES"),
)  # fmt: skip
texts = st.one_of(
    st.sampled_from(SPECIAL),
    st.text(max_size=40),
    st.from_regex(r"[-+]?[0-9]{1,30}(\.[0-9]{1,400})?\s?(ms|s|m|h|KiB|MiB|GiB)?", fullmatch=True),
    st.from_regex(r"(\[[0-9a-fA-F:.%]{1,20}\]|[a-z0-9.-]{1,12}):[0-9]{1,7}", fullmatch=True),
    st.lists(st.sampled_from(SPECIAL), max_size=4).map(",".join),
)
anything = st.recursive(
    st.one_of(texts, st.none(), st.booleans(), st.integers(), st.floats()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def complaint_of(row: Row, raw: object) -> str | None:
    """What parsing says, after a look at the value if it says nothing."""
    try:
        value = parse_setting(row, raw, "HERE")
    except ConfigError as error:
        return str(error)
    if isinstance(value, int | float) and not isinstance(value, bool):
        assert math.isfinite(value)
        assert row.spec.at_least is None or value >= row.spec.at_least
        assert row.spec.at_most is None or value <= row.spec.at_most
    if value is None:
        assert type(None) in get_args(row.type)
    return None


def judge(row: Row, raw: object) -> None:
    said = complaint_of(row, raw)
    assert said is None or said.startswith(f"HERE: {row.key} = ")
    assert said is None or (len(said.splitlines()) == 1 and len(said) < 500)


@given(row=st.sampled_from(ROWS), text=texts)
def test_any_text_is_a_value_or_an_error_that_names_its_setting(row: Row, text: str):
    judge(row, text)


@given(row=st.sampled_from(ROWS), value=anything)
def test_any_value_of_a_file_is_one_too(row: Row, value: object):
    judge(row, value)


@pytest.mark.parametrize("text", SPECIAL)
def test_special_texts_for_every_setting(text: str):
    for row in ROWS:
        judge(row, text)


@pytest.mark.parametrize("text", ["~nosuchuser/ark.toml", "a\0b", "\ud800"])
def test_a_file_that_can_t_be_is_named(text: str):
    with pytest.raises(ConfigError, match=r"ARK_CONFIG|can't be read|not a TOML"):
        load_with_sources({}, {"ARK_CONFIG": text})


@given(values=st.dictionaries(st.sampled_from([row.env for row in ROWS]), texts, max_size=3))
def test_any_environment_is_settings_or_an_error_that_names_one_of_its_variables(
    values: dict[str, str],
):
    try:
        load_with_sources({}, values)
    except ConfigError as error:
        said = str(error)
    else:
        return
    assert any(name in said for name in values)
