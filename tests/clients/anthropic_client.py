"""Anthropic's own Python client, driving a device's endpoint: anthropic_client.py [SCENARIO MODEL]…

Prints one JSON object a line of what the client saw in each; the test that starts it judges.
"""

import json
import sys

import anthropic

MODEL = None
WEATHER = {
    "name": "weather",
    "description": "The weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
QUESTION = [{"role": "user", "content": "Why is the sky blue? Write to ada@example.com."}]


def body():
    return {"model": MODEL, "messages": QUESTION, "max_tokens": 100}


def usage(used):
    return {"prompt": used.input_tokens, "completion": used.output_tokens}


def chat(client):
    answer = client.messages.create(**body())
    return {
        "text": answer.content[0].text,
        "finish": answer.stop_reason,
        "usage": usage(answer.usage),
        "object": answer.type,
        "request_id": answer._request_id,
    }


def stream(client):
    with client.messages.stream(**body()) as events:
        text = "".join(events.text_stream)
        final = events.get_final_message()
    return {"text": text, "finish": final.stop_reason, "usage": usage(final.usage)}


def stream_with_usage(client):
    seen = [event.type for event in client.messages.create(**body(), stream=True)]
    return {**stream(client), "events": seen}


def tools(client):
    messages = list(QUESTION)
    first = client.messages.create(**{**body(), "messages": messages}, tools=[WEATHER])
    call = next(block for block in first.content if block.type == "tool_use")
    messages.append({"role": "assistant", "content": [block.model_dump() for block in first.content]})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    messages.append({"role": "user", "content": [result]})
    second = client.messages.create(**{**body(), "messages": messages}, tools=[WEATHER])
    return {
        "finish": first.stop_reason,
        "name": call.name,
        "arguments": call.input,
        "text": second.content[0].text,
    }


def tools_streamed(client):
    with client.messages.stream(**body(), tools=[WEATHER]) as events:
        final = events.get_final_message()
    call = next(block for block in final.content if block.type == "tool_use")
    return {"name": call.name, "arguments": call.input}


def caught(ask):
    try:
        ask()
    except anthropic.APIStatusError as error:
        kind = error.body.get("error", {}).get("type") if isinstance(error.body, dict) else None
        return {"class": type(error).__name__, "status": error.status_code, "code": kind}
    return None


def errors(client):
    stranger = client.with_options(api_key="si_live_nobody")
    page = client.with_options(default_headers={"Origin": "https://evil.example"})
    ask = client.messages.create
    return {
        "unauthorized": caught(lambda: stranger.models.list()),
        "forbidden": caught(lambda: page.models.list()),
        "bad_field": caught(lambda: ask(**body(), extra_body={"mcp_servers": []})),
        "not_found": caught(lambda: client.models.retrieve("nobody")),
        "upstream": caught(lambda: ask(**body())),
        "unpaid": caught(lambda: ask(**{**body(), "max_tokens": 128000}, timeout=60)),
    }


def close(client):
    events = client.messages.create(**body(), stream=True)
    for event in events:
        if event.type == "content_block_delta":
            break
    events.close()
    return {"closed": True}


def models(client):
    return {"models": [model.id for model in client.models.list()]}


def fields(client):
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image", "source": source}]
    answer = client.messages.create(
        model=MODEL,
        messages=[{"role": "user", "content": parts}],
        system="Be brief.",
        # Its newest models take none, and the client has no name for it any more.
        extra_body={"temperature": 0.25},
        stop_sequences=["END"],
        max_tokens=33,
    )
    return {"text": answer.content[0].text}


def refused(client, **more):
    """The refusal, with what a client that would retry makes of it."""
    try:
        client.messages.create(**{**body(), **more}, timeout=60)
    except anthropic.APIStatusError as error:
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
    answer = client.messages.with_raw_response.create(**body())
    return {
        "route": answer.headers.get("x-synesis-route"),
        "text": answer.parse().content[0].text,
    }


def count(client):
    return {"tokens": client.messages.count_tokens(model=MODEL, messages=QUESTION).input_tokens}


# Retries would hide what a single request comes to.
CLIENT = anthropic.Anthropic(max_retries=0, timeout=60)
for scenario, MODEL in zip(sys.argv[1::2], sys.argv[2::2]):
    print(json.dumps(globals()[scenario](CLIENT)), flush=True)
