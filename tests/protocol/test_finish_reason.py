import pytest

from ark_trio.errors import BadBackend
from ark_trio.protocol.finish_reason import legal_finish_reason


@pytest.mark.parametrize("word", ["stop", "length", "tool_calls", "content_filter"])
def test_openai_s_words_stay(word):
    assert legal_finish_reason(word) == word


@pytest.mark.parametrize(
    ("word", "meaning"),
    [("eos_token", "stop"), ("max_new_tokens", "length"), ("function_call", "tool_calls")],
)
def test_engines_words_are_translated(word, meaning):
    assert legal_finish_reason(word) == meaning


@pytest.mark.parametrize("word", ["abort", "error", "STOP!", "null"])
def test_no_other_word_passes_for_a_normal_end(word):
    with pytest.raises(BadBackend):
        legal_finish_reason(word)
