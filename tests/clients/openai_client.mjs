// OpenAI's own client for Node, driving a device's endpoint: openai_client.mjs [SCENARIO MODEL]…
// Prints one JSON object a line of what the client saw in each; the test that starts it judges.

import { createRequire } from "node:module";

// Packages lie in the folder that `install` made, not beside this file.
const load = createRequire(`${process.env.TEST_CLIENTS_FOLDER}/package.json`);
const { OpenAI, APIError } = load("openai");

const asked = process.argv.slice(2);
let model;
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

// The refusal, with what a client that may retry makes of it.
async function refused(maxRetries, more) {
  let requests = 0;
  const counting = (...request) => { requests += 1; return fetch(...request); };
  const asking = new OpenAI({ maxRetries, timeout: 60_000, fetch: counting });
  try {
    await asking.chat.completions.create({ model, messages, ...more });
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    return {
      class: error.constructor.name, status: error.status, retries: requests - 1,
      should_retry: error.headers.get("x-should-retry"), retry_after: error.headers.get("retry-after"),
    };
  }
  return null;
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
  async fields() {
    const parts = [
      { type: "text", text: "What is this?" },
      { type: "image_url", image_url: { url: "data:image/png;base64,iVBORw0KGgo=" } },
    ];
    const answer = await client.chat.completions.create({
      model, messages: [{ role: "user", content: parts }], temperature: 0.25, seed: 7,
      response_format: { type: "json_object" }, max_completion_tokens: 33,
    });
    return { text: answer.choices[0].message.content };
  },
  unpaid: () => refused(2, { max_tokens: 128_000 }),
  async limited() {
    let seen = null;
    for (let n = 0; n < 20 && !seen; n += 1) seen = await refused(0, {});
    return seen;
  },
  async route() {
    const { data, response } = await client.chat.completions.create({ model, messages }).withResponse();
    return { route: response.headers.get("x-synesis-route"), text: data.choices[0].message.content };
  },
  async models() {
    const names = [];
    for await (const found of client.models.list()) names.push(found.id);
    return { models: names };
  },
};

while (asked.length) {
  const [scenario, named] = asked.splice(0, 2);
  model = named;
  console.log(JSON.stringify(await scenarios[scenario]()));
}
