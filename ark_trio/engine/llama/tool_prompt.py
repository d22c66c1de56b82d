"""How a model is told of tools whose chat template has no place for them: in the system's turn, its calls in text.

The form is the one that Hermes and Qwen are trained on. Source: their chat templates.
"""

from collections.abc import Sequence
from typing import Any, Final

import orjson

from ark_trio.engine.llama.readers import Json
from ark_trio.protocol.tool_text import Syntax

TOOL_SYNTAX: Final[Syntax] = "hermes"
CALL_BEGIN: Final = "<tool_call>"
CALL_END: Final = "</tool_call>"

_EXPLANATION = """\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


def with_tools(messages: Sequence[Json], tools: Sequence[Json], *, system_role: bool) -> list[Json]:
    """Return the conversation for a template without tools: they, their calls and results told in text.

    `system_role`: the template knows the role system.
    """
    told = _told(messages)
    if not tools:
        return told
    lines = "\n".join(_json(tool) for tool in tools)
    explanation = _EXPLANATION.format(tools=lines)
    role = "system" if system_role else "user"
    if told and told[0]["role"] in ("system", "developer", role):
        first = {**told[0], "content": _joined(_text_of(told[0]), explanation)}
        if not system_role:
            first["content"] = _joined(explanation, _text_of(told[0]))
        return [first, *told[1:]]
    return [{"role": role, "content": explanation}, *told]


def _told(messages: Sequence[Json]) -> list[Json]:
    """Return the conversation with calls and results as text; results in a row are one turn."""
    told: list[Json] = []
    after_result = False
    for message in messages:
        is_result = message["role"] == "tool"
        if is_result:
            content = f"<tool_response>\n{_text_of(message)}\n</tool_response>"
            if after_result:
                told[-1]["content"] += "\n" + content
            else:
                told.append({"role": "user", "content": content})
        else:
            told.append(_with_calls(message))
        after_result = is_result
    return told


def _with_calls(message: Json) -> Json:
    calls = [
        f'{CALL_BEGIN}\n{{"name": {_json(call["function"]["name"])}, "arguments": {call["function"]["arguments"]}}}\n{CALL_END}'
        for call in message.get("tool_calls") or ()
    ]
    plain = {key: value for key, value in message.items() if key != "tool_calls"}
    if not calls and isinstance(message["content"], str):
        return plain
    return {**plain, "content": _joined(_text_of(message), *calls, between="\n")}


def _text_of(message: Json) -> str:
    content = message["content"]
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content)
    return content or ""


def _joined(*texts: str, between: str = "\n\n") -> str:
    return between.join(text for text in texts if text)


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
