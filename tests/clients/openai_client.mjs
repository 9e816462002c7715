// OpenAI's own client for Node, driving a device's endpoint: openai_client.mjs SCENARIO MODEL.
// Prints one JSON object of what the client saw; the test that starts it judges.

import { createRequire } from "node:module";

// Packages lie in the folder that `install` made, not beside this file.
const load = createRequire(`${process.env.TEST_CLIENTS_FOLDER}/package.json`);
const { OpenAI, APIError } = load("openai");

const [scenario, model] = process.argv.slice(2);
const messages = [{ role: "user", content: "Why is the sky blue? Write to ada@example.com." }];
const tools = [{
  type: "function",
  function: {
    name: "weather",
    description: "The weather of a city",
    parameters: { type: "object", properties: { city: { type: "string" } } },
  },
}];
// Retries would hide what a single request comes to.
const client = new OpenAI({ maxRetries: 0, timeout: 60_000 });
const usage = (used) => used && { prompt: used.prompt_tokens, completion: used.completion_tokens };

async function caught(ask) {
  try {
    await ask();
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    return { class: error.constructor.name, status: error.status, code: error.code, param: error.param };
  }
  return null;
}

async function stream(more) {
  const ids = new Set();
  let [text, finish, used] = ["", null, null];
  const events = await client.chat.completions.create({ model, messages, stream: true, ...more });
  for await (const chunk of events) {
    ids.add(`${chunk.id} ${chunk.created}`);
    used = usage(chunk.usage) ?? used;
    for (const choice of chunk.choices) {
      text += choice.delta.content ?? "";
      finish = choice.finish_reason ?? finish;
    }
  }
  return { text, finish, usage: used, ids: ids.size };
}

const scenarios = {
  async chat() {
    const answer = await client.chat.completions.create({ model, messages, temperature: 0.5 });
    const [choice] = answer.choices;
    return {
      text: choice.message.content, finish: choice.finish_reason, usage: usage(answer.usage),
      object: answer.object, request_id: answer._request_id,
    };
  },
  stream,
  stream_with_usage: () => stream({ stream_options: { include_usage: true } }),
  async tools() {
    const first = await client.chat.completions.create({ model, messages, tools });
    const [choice] = first.choices;
    const [call] = choice.message.tool_calls;
    const rest = [...messages, choice.message, { role: "tool", tool_call_id: call.id, content: "rain" }];
    const second = await client.chat.completions.create({ model, messages: rest, tools });
    return {
      finish: choice.finish_reason, name: call.function.name,
      arguments: JSON.parse(call.function.arguments), text: second.choices[0].message.content,
    };
  },
  async tools_streamed() {
    const events = client.chat.completions.stream({ model, messages, tools });
    const final = await events.finalChatCompletion();
    const [call] = final.choices[0].message.tool_calls;
    return { name: call.function.name, arguments: JSON.parse(call.function.arguments) };
  },
  async errors() {
    const ask = (more) => () => client.chat.completions.create({ model, messages, ...more });
    const stranger = new OpenAI({ maxRetries: 0, apiKey: "si_live_nobody" });
    const page = new OpenAI({ maxRetries: 0, defaultHeaders: { Origin: "https://evil.example" } });
    return {
      unauthorized: await caught(() => stranger.models.list()),
      forbidden: await caught(() => page.models.list()),
      bad_field: await caught(ask({ n: 2 })),
      not_found: await caught(() => client.models.retrieve("nobody")),
      upstream: await caught(ask({})),
      unpaid: await caught(ask({ max_tokens: 128_000 })),
    };
  },
  async close() {
    const events = await client.chat.completions.create({ model, messages, stream: true });
    for await (const chunk of events) {
      if (chunk.choices[0]?.delta.content) break;
    }
    return { closed: true };
  },
  async models() {
    const names = [];
    for await (const found of client.models.list()) names.push(found.id);
    return { models: names };
  },
};

console.log(JSON.stringify(await scenarios[scenario]()));
