"""Grammars in llama.cpp's notation."""

from ark_trio.engine.llama.grammar.chars import CharSet, chars, span
from ark_trio.engine.llama.grammar.expression import (
    NEVER,
    Char,
    Choice,
    Ref,
    Repeat,
    Row,
    Rules,
    Text,
    possible,
    to_gbnf,
)


def test_every_kind_has_its_notation():
    rules: Rules = {
        "root": Row((Text('a"\n'), Char(span("a", "c") | chars("]é\U0001f600")), Ref("x"))),
        "x": Choice(
            (Repeat(Text("b"), 0, 1), Repeat(Ref("x"), 2, 5), Repeat(Row((Text("c"), Text("d")))))
        ),
    }
    assert to_gbnf(rules) == (
        'root ::= "a\\x22\\x0A" [\\x5D\\x61-\\x63\\u00E9\\U0001F600] x\n'
        'x ::= "b"? | x{2,5} | ("c" "d")*\n'
    )


def test_what_is_impossible_is_left_out():
    rules: Rules = {
        "root": Choice((Ref("endless"), Row((Text("a"), NEVER)), Row((Text("b"), Repeat(NEVER))))),
        "endless": Row((Text("x"), Ref("endless"))),
        "none": Char(CharSet([])),
    }
    assert possible(rules) == {"root"}
    assert to_gbnf(rules) == 'root ::= ("b" "")\n'
