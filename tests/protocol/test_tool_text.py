import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ark_trio.protocol.tool_text import MARKED, ToolText
from tests.support.cuts import PLACES, cut

BEGIN, END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, SEP, OVER = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
DEEP = {"q": "`<` \n", "n": [1, {}]}


def r1(name, arguments):
    return f"{CALL}function{SEP}{name}\n```json\n{json.dumps(arguments)}\n```{OVER}"


def v31(name, arguments):
    return f"{CALL}{name}{SEP}{json.dumps(arguments)}{OVER}"


def tagged(name, arguments):
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def read(*pieces, syntaxes=MARKED, declared=("f", "g"), cut_off=False):
    """Content and calls of a text that comes in `pieces`; `cut_off`: by its length."""
    parser, content = ToolText(syntaxes, declared), ""
    calls: dict[int, tuple[str, str]] = {}
    for said in [*map(parser.feed, pieces), parser.end(cut=cut_off)]:
        content += said.content
        for delta in said.calls:
            if delta.name is not None:
                assert delta.index == len(calls)
                calls[delta.index] = (delta.name, "")
            name, arguments = calls[delta.index]
            calls[delta.index] = (name, arguments + delta.arguments)
    return content, list(calls.values())


ONE = [("f", json.dumps(DEEP))]
TWO = [*ONE, ("g", "{}")]


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        (f"{BEGIN}{r1('f', DEEP)}{END}", "", ONE),
        (f"\n\n{BEGIN}{r1('f', DEEP)}\n{r1('g', {})}{END}\n", "", TWO),
        (f"Let me look.\n\n{BEGIN}{r1('f', DEEP)}{END}", "Let me look.", ONE),
        (f"{r1('f', DEEP)} and so", " and so", ONE),
        (f"{BEGIN}{CALL}function{SEP}f\n{json.dumps(DEEP)}{OVER}{END}", "", ONE),
        (f"{BEGIN}{v31('f', DEEP)}{v31('g', {})}{END}", "", TWO),
        (f"{BEGIN}{CALL}f{SEP}{OVER}{END}", "", [("f", "{}")]),
        (f"{BEGIN}{v31('f', DEEP)} no more", " no more", ONE),
        (f"{BEGIN}{v31('f', DEEP)}<｜tool▁call", "", ONE),
        (f'{BEGIN}{CALL}f{SEP}{{"q": "cut o', "", [("f", '{"q": "cut o')]),
        (f"{BEGIN}{v31('f', {})}{CALL}function", f"{CALL}function", [("f", "{}")]),
        (tagged("f", DEEP), "", ONE),
        (f"So:\n{tagged('f', DEEP)}\n{tagged('g', {})}\n", "So:", TWO),
        (f"a {tagged('f', DEEP)} b", "a  b", ONE),
        (tagged("f", DEEP).removesuffix("\n</tool_call>"), "", ONE),
        (tagged("f", DEEP).removesuffix("call>"), "", ONE),
        (tagged("f", DEEP).replace("</tool_call>", "tail"), "\ntail", ONE),
        (f"[TOOL_CALLS] [{json.dumps({'name': 'f', 'arguments': DEEP})}]", "", ONE),
        (f'[TOOL_CALLS]{json.dumps({"name": "f", "arguments": DEEP})},{{"name":"g"}}', "", TWO),
        ('<tool_call>{"name": "f", "arguments": {"a":', "", [("f", '{"a":')]),
        ('<tool_call>{"name": "f", "arguments": {}, 7: 8}', ": 8}", [("f", "{}")]),
    ],
)
def test_calls_are_told_apart_from_text(text, content, calls):
    assert read(text) == (content, calls)
    assert read(*text) == (content, calls)


@pytest.mark.parametrize(
    "text",
    [
        "plain text\n",
        " \n",
        "a < b, [TOOL",
        "<tool_cal",
        "see <tool_call>nothing</tool_call>",
        '<tool_call>{"name": 5}</tool_call>',
        '<tool_call>{"arguments": {}}</tool_call> x',
        '<tool_call> {"name": "f',
        "[TOOL_CALLS] [1, 2]",
        "[TOOL_CALLS]",
        f"{BEGIN} but no",
        f"{BEGIN}{END}",
        f"{CALL}{'x' * 600}",
        f"{CALL}function{SEP}{'x' * 600}",
        f"{CALL}function",
        '{"name": "f", "arguments": {}}',
    ],
)
def test_what_turns_out_to_be_no_call_is_text(text):
    assert read(text) == (text, [])
    assert read(*text) == (text, [])


@pytest.mark.parametrize(
    ("text", "syntax"),
    [
        (f"{BEGIN}{r1('f', DEEP)}{r1('f', DEEP)}{END}", "deepseek"),
        (f"{BEGIN}{v31('f', DEEP)}{v31('f', DEEP)}{END}", "deepseek"),
        (f"{tagged('f', DEEP)}\n{tagged('f', DEEP)}", "hermes"),
        (
            f"[TOOL_CALLS] [{', '.join([json.dumps({'name': 'f', 'arguments': DEEP})] * 2)}]",
            "mistral",
        ),
    ],
)
def test_a_call_that_the_length_cuts_off_is_a_part_of_a_call_or_nothing_but_never_text(
    text, syntax
):
    whole, calls = json.dumps(DEEP), []
    for size in range(len(text)):
        content, calls = read("So:\n" + text[:size], syntaxes=(syntax,), cut_off=True)
        assert content.strip() == "So:"
        assert all(name == "f" and whole.startswith(arguments) for name, arguments in calls)
        assert all(arguments == whole for _, arguments in calls[:-1])
    assert len(calls) == 2


def test_an_answer_in_json_that_the_length_cuts_off_stays_text():
    assert read('{"name": "un', syntaxes=("json",), cut_off=True) == ('{"name": "un', [])
    again = json.dumps({"name": "f", "parameters": {}}) + '; {"name'
    assert read(again, syntaxes=("json",), cut_off=True) == ("", [("f", "{}")])


def test_a_mark_within_what_is_no_call_may_still_begin_one():
    assert read("<tool_call>" + tagged("f", DEEP)) == ("<tool_call>", ONE)


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        (json.dumps({"name": "f", "parameters": DEEP}), "", ONE),
        (f' \n{json.dumps({"name": "f", "parameters": DEEP})}; {{"name": "g"}};', "", TWO),
        (f'[{json.dumps({"name": "f", "arguments": DEEP})}, {{"name": "g"}}] ok', " ok", TWO),
        ('<|python_tag|>{"name": "other", "parameters": {}}', "", [("other", "{}")]),
        ('{"name": "other", "parameters": {}}', '{"name": "other", "parameters": {}}', []),
        ('{"answer": 5} ', '{"answer": 5} ', []),
        (" [1, 2]", " [1, 2]", []),
        ("text, then {}", "text, then {}", []),
        (" ", " ", []),
    ],
)
def test_the_whole_answer_may_be_a_call_of_a_declared_tool(text, content, calls):
    assert read(text, syntaxes=("json",)) == (content, calls)
    assert read(*text, syntaxes=("json",)) == (content, calls)


PIECES = st.sampled_from(
    [
        *(BEGIN, END, CALL, SEP, OVER, "function", "\n```json\n", "\n```", "<tool_call>"),
        *("</tool_call>", "[TOOL_CALLS]", "<|python_tag|>", r1("f", DEEP), v31("g", {})),
        *(tagged("f", DEEP), '{"name": "f", "arguments": {"a": 1}}', "[", "]", "{", "}", ","),
        *(";", " ", "\n", "<", "text", '"', ":", "\\"),
    ]
)


@given(
    st.lists(PIECES, max_size=10).map("".join),
    PLACES,
    st.sampled_from([MARKED, ("json",), ("deepseek",), (*MARKED, "json")]),
)
def test_the_same_however_the_text_is_cut(text, places, syntaxes):
    assert read(*cut(text, places), syntaxes=syntaxes) == read(text, syntaxes=syntaxes)


def test_arguments_are_passed_on_as_they_come():
    parser = ToolText(MARKED, ())
    pieces = [f"{BEGIN}{CALL}function{SEP}f\n```json\n", '{"a":', " 1}", f"\n```{OVER}"]
    said = [[call.arguments for call in parser.feed(piece).calls] for piece in pieces]
    assert said == [[], ["", '{"a":'], [" 1}"], []]
