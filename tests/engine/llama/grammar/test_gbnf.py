"""A client's own grammar: what is wrong with it is said, and what llama.cpp takes is never refused."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ark_trio.engine.llama.grammar.expression import Ref, to_gbnf
from ark_trio.engine.llama.grammar.gbnf import check_gbnf
from ark_trio.engine.llama.grammar.schema import schema_rules
from ark_trio.engine.llama.grammar.writer import Unsupported
from tests.support.gbnf import BAD, GOOD
from tests.support.schemas import SCHEMAS


@pytest.mark.parametrize("grammar", GOOD)
def test_what_llama_cpp_takes_passes(grammar: str):
    check_gbnf(grammar)


@pytest.mark.parametrize(("grammar", "why"), BAD)
def test_what_is_wrong_is_said_with_its_place(grammar: str, why: str):
    with pytest.raises(Unsupported) as refusal:
        check_gbnf(grammar)
    assert str(refusal.value) == why


@pytest.mark.parametrize(
    "around",
    [
        'root ::= <think> "a"%s',
        'root ::= !<[5]> "a"%s',
        '%%llguidance {}\nstart: "a"%s',
        "#" * 40_000 + '\nroot ::= "a"%s',
    ],
    ids=["token", "not a token", "another notation", "long"],
)
def test_even_where_it_is_not_judged_nothing_repeats_more_often_than_it_may(around: str):
    check_gbnf(around % "{1,3}")
    with pytest.raises(Unsupported, match="more often than it may"):
        check_gbnf(around % "{3,1}")


@given(SCHEMAS)
def test_our_own_grammars_are_good(schema):
    try:
        rules = schema_rules(schema)
    except Unsupported:
        return
    check_gbnf(to_gbnf({"root": Ref("schema"), **rules}))


@given(
    st.text()
    | st.lists(
        st.sampled_from(
            ["root", "::=", '"a"', "|", "(", ")", "*", "{1,2}", "[a", "]", "\n", "\\", " "]
        )
    ).map("".join)
)
def test_any_text_is_good_or_a_refusal(text: str):
    with suppress(Unsupported):
        check_gbnf(text)
