"""OpenAI's own Python client, driving a device's endpoint: openai_client.py [SCENARIO MODEL]…

Prints one JSON object a line of what the client saw in each; the test that starts it judges.
"""

import json
import sys

import openai

MODEL = None
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
QUESTION = [{"role": "user", "content": "Why is the sky blue? Write to ada@example.com."}]


def usage(used):
    return {"prompt": used.prompt_tokens, "completion": used.completion_tokens}


def chat(client):
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0.5)
    choice = answer.choices[0]
    return {
        "text": choice.message.content,
        "finish": choice.finish_reason,
        "usage": usage(answer.usage),
        "object": answer.object,
        "request_id": answer._request_id,
    }


def stream(client, **more):
    ids, text, finish, used = set(), "", None, None
    for chunk in client.chat.completions.create(
        model=MODEL, messages=QUESTION, stream=True, **more
    ):
        ids.add((chunk.id, chunk.created))
        if chunk.usage is not None:
            used = usage(chunk.usage)
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    return {"text": text, "finish": finish, "usage": used, "ids": len(ids)}


def stream_with_usage(client):
    return stream(client, stream_options={"include_usage": True})


def tools(client):
    messages = list(QUESTION)
    first = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])
    message = first.choices[0].message
    call = message.tool_calls[0]
    arguments = json.loads(call.function.arguments)
    messages.append(message.model_dump(exclude_none=True))
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "rain"})
    second = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])
    return {
        "finish": first.choices[0].finish_reason,
        "name": call.function.name,
        "arguments": arguments,
        "text": second.choices[0].message.content,
    }


def tools_streamed(client):
    with client.chat.completions.stream(
        model=MODEL, messages=QUESTION, tools=[WEATHER]
    ) as events:
        for _ in events:
            pass
        message = events.get_final_completion().choices[0].message
    call = message.tool_calls[0]
    return {"name": call.function.name, "arguments": json.loads(call.function.arguments)}


def caught(ask):
    try:
        ask()
    except openai.APIStatusError as error:
        return {
            "class": type(error).__name__,
            "status": error.status_code,
            "code": error.code,
            "param": error.param,
        }
    except openai.APIError as error:
        return {"class": type(error).__name__, "code": error.code}
    return None


def errors(client):
    ask = client.chat.completions.create
    stranger = client.with_options(api_key="si_live_nobody")
    page = client.with_options(default_headers={"Origin": "https://evil.example"})
    return {
        "unauthorized": caught(lambda: stranger.models.list()),
        "forbidden": caught(lambda: page.models.list()),
        "bad_field": caught(lambda: ask(model=MODEL, messages=QUESTION, n=2)),
        "not_found": caught(lambda: client.models.retrieve("nobody")),
        "upstream": caught(lambda: ask(model=MODEL, messages=QUESTION)),
        "unpaid": caught(lambda: ask(model=MODEL, messages=QUESTION, max_tokens=128000)),
    }


def close(client):
    events = client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True)
    for chunk in events:
        if chunk.choices and chunk.choices[0].delta.content:
            break
    events.close()
    return {"closed": True}


def models(client):
    return {"models": [model.id for model in client.models.list()]}


PICTURE = "data:image/png;base64,iVBORw0KGgo="


def fields(client):
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": PICTURE}},
    ]
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": parts}],
        temperature=0.25,
        seed=7,
        response_format={"type": "json_object"},
        max_completion_tokens=33,
    )
    return {"text": answer.choices[0].message.content}


def refused(client, **more):
    """The refusal, with what a client that would retry makes of it."""
    try:
        client.chat.completions.create(model=MODEL, messages=QUESTION, **more)
    except openai.APIStatusError as error:
        headers = error.response.headers
        return {
            "class": type(error).__name__,
            "status": error.status_code,
            "retries": int(error.request.headers["x-stainless-retry-count"]),
            "should_retry": headers.get("x-should-retry"),
            "retry_after": headers.get("retry-after"),
        }
    return None


def unpaid(client):
    return refused(client.with_options(max_retries=2), max_tokens=128000)


def limited(client):
    seen = (refused(client) for _ in range(20))
    return next(filter(None, seen), None)


def route(client):
    answer = client.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION)
    return {
        "route": answer.headers.get("x-synesis-route"),
        "text": answer.parse().choices[0].message.content,
    }


# Retries would hide what a single request comes to.
CLIENT = openai.OpenAI(max_retries=0, timeout=60)
for scenario, MODEL in zip(sys.argv[1::2], sys.argv[2::2]):
    print(json.dumps(globals()[scenario](CLIENT)), flush=True)
