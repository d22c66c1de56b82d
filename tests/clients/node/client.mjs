// What openai-node does against the gateway: `node client.mjs BASE_URL MODEL TASK` prints what it saw as JSON.
import OpenAI, { APIError } from "openai";

const [baseURL, model, task] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0, timeout: 60_000 });
const ask = (content) => [{ role: "user", content }];

const ADD = {
  type: "function",
  function: {
    name: "add",
    parameters: {
      type: "object",
      properties: { a: { type: "number" }, b: { type: "number" } },
      required: ["a", "b"],
    },
  },
};

const tasks = {
  async stream() {
    const stream = client.chat.completions.stream({
      model,
      messages: ask('{"text": "one two three", "reasoning": "let me count"}'),
      stream_options: { include_usage: true },
    });
    const deltas = [];
    stream.on("content", (delta) => deltas.push(delta));
    const final = await stream.finalChatCompletion();
    return { deltas, content: final.choices[0].message.content, usage: await stream.totalUsage() };
  },

  async text() {
    const stream = await client.chat.completions.create({
      model,
      messages: ask("What is the capital of France?"),
      max_tokens: 24,
      temperature: 0,
      stream: true,
    });
    let content = "";
    let finish = null;
    for await (const chunk of stream) {
      content += chunk.choices[0]?.delta?.content ?? "";
      finish = chunk.choices[0]?.finish_reason ?? finish;
    }
    return { content, finish };
  },

  async tools() {
    const first = ask('{"tool": [{"name": "add", "arguments": {"a": 2, "b": 3}}], "pieces": 4}');
    const whole = await client.chat.completions.create({ model, messages: first, tools: [ADD] });
    const { message, finish_reason } = whole.choices[0];
    const { a, b } = JSON.parse(message.tool_calls[0].function.arguments);
    const answer = { role: "tool", tool_call_id: message.tool_calls[0].id, content: `${a + b}` };
    const messages = [...first, message, answer, ...ask('{"text": "It is 5."}')];
    const second = await client.chat.completions.create({ model, messages, tools: [ADD] });
    const streamed = client.chat.completions.stream({ model, messages: first, tools: [ADD] });
    const final = await streamed.finalChatCompletion();
    return {
      finish_reason,
      sum: answer.content,
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
      midstream: await caught({ messages: ask("count=5 fail_at=2 status=INTERNAL"), stream: true }),
    };
  },

  async abort() {
    const stream = await client.chat.completions.create({
      model,
      messages: ask(process.argv[5] ?? "count=1000000 gap_s=0.01"),
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
