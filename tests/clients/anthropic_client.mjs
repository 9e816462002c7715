// Anthropic's own client for Node, driving a device's endpoint: anthropic_client.mjs [SCENARIO MODEL]…
// Prints one JSON object a line of what the client saw in each; the test that starts it judges.

import { createRequire } from "node:module";

// Packages lie in the folder that `install` made, not beside this file.
const load = createRequire(`${process.env.TEST_CLIENTS_FOLDER}/package.json`);
const { Anthropic } = load("@anthropic-ai/sdk");

const asked = process.argv.slice(2);
let model;
const messages = [{ role: "user", content: "Why is the sky blue? Write to ada@example.com." }];
let body;
const tools = [{
  name: "weather",
  description: "The weather of a city",
  input_schema: { type: "object", properties: { city: { type: "string" } } },
}];
// Retries would hide what a single request comes to.
const client = new Anthropic({ maxRetries: 0, timeout: 60_000 });
const usage = (used) => ({ prompt: used.input_tokens, completion: used.output_tokens });

async function caught(ask) {
  try {
    await ask();
  } catch (error) {
    if (!(error instanceof Anthropic.APIError)) throw error;
    return { class: error.constructor.name, status: error.status, code: error.error?.error?.type };
  }
  return null;
}

async function stream() {
  const events = client.messages.stream(body);
  let text = "";
  events.on("text", (piece) => { text += piece; });
  const final = await events.finalMessage();
  return { text, finish: final.stop_reason, usage: usage(final.usage) };
}

// The refusal, with what a client that may retry makes of it.
async function refused(maxRetries, more) {
  let requests = 0;
  const counting = (...request) => { requests += 1; return fetch(...request); };
  const asking = new Anthropic({ maxRetries, timeout: 60_000, fetch: counting });
  try {
    await asking.messages.create({ ...body, ...more }, { timeout: 60_000 });
  } catch (error) {
    if (!(error instanceof Anthropic.APIError)) throw error;
    return {
      class: error.constructor.name, status: error.status, retries: requests - 1,
      should_retry: error.headers.get("x-should-retry"), retry_after: error.headers.get("retry-after"),
    };
  }
  return null;
}

const scenarios = {
  async chat() {
    const answer = await client.messages.create(body);
    return {
      text: answer.content[0].text, finish: answer.stop_reason, usage: usage(answer.usage),
      object: answer.type, request_id: answer._request_id,
    };
  },
  stream,
  async stream_with_usage() {
    const seen = [];
    for await (const event of await client.messages.create({ ...body, stream: true })) seen.push(event.type);
    return { ...await stream(), events: seen };
  },
  async tools() {
    const first = await client.messages.create({ ...body, tools });
    const call = first.content.find((block) => block.type === "tool_use");
    const result = { type: "tool_result", tool_use_id: call.id, content: "rain" };
    const rest = [...messages, { role: "assistant", content: first.content }, { role: "user", content: [result] }];
    const second = await client.messages.create({ ...body, messages: rest, tools });
    return {
      finish: first.stop_reason, name: call.name, arguments: call.input, text: second.content[0].text,
    };
  },
  async tools_streamed() {
    const final = await client.messages.stream({ ...body, tools }).finalMessage();
    const call = final.content.find((block) => block.type === "tool_use");
    return { name: call.name, arguments: call.input };
  },
  async errors() {
    const ask = (more) => () => client.messages.create({ ...body, ...more }, { timeout: 60_000 });
    const stranger = new Anthropic({ maxRetries: 0, apiKey: "si_live_nobody" });
    const page = new Anthropic({ maxRetries: 0, defaultHeaders: { Origin: "https://evil.example" } });
    return {
      unauthorized: await caught(() => stranger.models.list()),
      forbidden: await caught(() => page.models.list()),
      bad_field: await caught(ask({ mcp_servers: [] })),
      not_found: await caught(() => client.models.retrieve("nobody")),
      upstream: await caught(ask({})),
      unpaid: await caught(ask({ max_tokens: 128_000 })),
    };
  },
  async close() {
    for await (const event of await client.messages.create({ ...body, stream: true })) {
      if (event.type === "content_block_delta") break;
    }
    return { closed: true };
  },
  async fields() {
    const source = { type: "base64", media_type: "image/png", data: "iVBORw0KGgo=" };
    const parts = [{ type: "text", text: "What is this?" }, { type: "image", source }];
    const answer = await client.messages.create({
      model, messages: [{ role: "user", content: parts }], system: "Be brief.", temperature: 0.25,
      stop_sequences: ["END"], max_tokens: 33,
    });
    return { text: answer.content[0].text };
  },
  unpaid: () => refused(2, { max_tokens: 128_000 }),
  async limited() {
    let seen = null;
    for (let n = 0; n < 20 && !seen; n += 1) seen = await refused(0, {});
    return seen;
  },
  async route() {
    const { data, response } = await client.messages.create(body).withResponse();
    return { route: response.headers.get("x-synesis-route"), text: data.content[0].text };
  },
  async count() {
    return { tokens: (await client.messages.countTokens({ model, messages })).input_tokens };
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
  body = { model, messages, max_tokens: 100 };
  console.log(JSON.stringify(await scenarios[scenario]()));
}
