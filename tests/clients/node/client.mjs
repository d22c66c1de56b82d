// What openai-node does against the gateway: `node client.mjs BASE_URL MODEL TASK SAID [MORE]` prints what it saw as JSON.
// SAID is the user's turn; MORE, as JSON, goes into the request as it stands.
import OpenAI, { APIError } from "openai";

const [baseURL, model, task, said, more = "{}"] = process.argv.slice(2);
const asked = { model, temperature: 0, max_tokens: 100, ...JSON.parse(more) };
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0, timeout: 60_000 });
const ask = (content) => [{ role: "user", content }];

const ADD = {
  type: "function",
  function: {
    name: "add",
    parameters: {
      type: "object",
      properties: { a: { type: "integer" }, b: { type: "integer" } },
      required: ["a", "b"],
      additionalProperties: false,
    },
  },
};

const tasks = {
  async stream() {
    const stream = client.chat.completions.stream({
      ...asked,
      messages: ask(said),
      stream_options: { include_usage: true },
    });
    const deltas = [];
    let reasoning = "";
    stream.on("content", (delta) => deltas.push(delta));
    stream.on("chunk", (chunk) => (reasoning += chunk.choices[0]?.delta?.reasoning_content ?? ""));
    const final = await stream.finalChatCompletion();
    const { message, finish_reason } = final.choices[0];
    return { deltas, reasoning, content: message.content, finish_reason, usage: await stream.totalUsage() };
  },

  async tools() {
    const first = ask(said);
    const calling = { ...asked, messages: first, tools: [ADD] };
    const whole = await client.chat.completions.create(calling);
    const { message, finish_reason } = whole.choices[0];
    const { a, b } = JSON.parse(message.tool_calls[0].function.arguments);
    const answer = { role: "tool", tool_call_id: message.tool_calls[0].id, content: `${a + b}` };
    const messages = [...first, message, answer, ...ask("It is 5.")];
    const second = await client.chat.completions.create({
      ...asked, tool_choice: "none", messages, tools: [ADD],
    });
    const streamed = client.chat.completions.stream(calling);
    const final = await streamed.finalChatCompletion();
    return {
      finish_reason,
      called: message.tool_calls[0].function,
      content: second.choices[0].message.content,
      streamed: final.choices[0].message.tool_calls[0].function,
    };
  },

  async errors() {
    const caught = async (body) => {
      try {
        const answer = await client.chat.completions.create({ model, ...body });
        if (body.stream) for await (const _ of answer);
      } catch (error) {
        if (!(error instanceof APIError)) throw error;
        const { status = null, code, param, type } = error;
        return { name: error.constructor.name, status, code, param, type };
      }
      return null;
    };
    return {
      invalid: await caught({ messages: ask("hi"), temperature: 7 }),
      unknown: await caught({ messages: ask("hi"), model: "nobody" }),
      // Only the echo engine fails where it is told to.
      midstream: said ? await caught({ messages: ask(said), stream: true }) : null,
    };
  },

  async abort() {
    const stream = await client.chat.completions.create({
      model,
      messages: ask(said),
      stream: true,
    });
    let seen = 0;
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta?.content && ++seen === 3) break;
    }
    return { seen, aborted: stream.controller.signal.aborted };
  },
};

console.log(JSON.stringify(await tasks[task]()));
