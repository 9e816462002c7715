"""Anthropic's own Python client, driving a device's endpoint: anthropic_client.py SCENARIO MODEL.

Prints one JSON object of what the client saw; the test that starts it judges.
"""

import json
import sys

import anthropic

MODEL = sys.argv[2]
WEATHER = {
    "name": "weather",
    "description": "The weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
QUESTION = [{"role": "user", "content": "Why is the sky blue? Write to ada@example.com."}]
BODY = {"model": MODEL, "messages": QUESTION, "max_tokens": 100}


def usage(used):
    return {"prompt": used.input_tokens, "completion": used.output_tokens}


def chat(client):
    answer = client.messages.create(**BODY)
    return {
        "text": answer.content[0].text,
        "finish": answer.stop_reason,
        "usage": usage(answer.usage),
        "object": answer.type,
        "request_id": answer._request_id,
    }


def stream(client):
    with client.messages.stream(**BODY) as events:
        text = "".join(events.text_stream)
        final = events.get_final_message()
    return {"text": text, "finish": final.stop_reason, "usage": usage(final.usage)}


def stream_with_usage(client):
    seen = [event.type for event in client.messages.create(**BODY, stream=True)]
    return {**stream(client), "events": seen}


def tools(client):
    messages = list(QUESTION)
    first = client.messages.create(**{**BODY, "messages": messages}, tools=[WEATHER])
    call = next(block for block in first.content if block.type == "tool_use")
    messages.append({"role": "assistant", "content": [block.model_dump() for block in first.content]})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    messages.append({"role": "user", "content": [result]})
    second = client.messages.create(**{**BODY, "messages": messages}, tools=[WEATHER])
    return {
        "finish": first.stop_reason,
        "name": call.name,
        "arguments": call.input,
        "text": second.content[0].text,
    }


def tools_streamed(client):
    with client.messages.stream(**BODY, tools=[WEATHER]) as events:
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
        "bad_field": caught(lambda: ask(**BODY, extra_body={"mcp_servers": []})),
        "not_found": caught(lambda: client.models.retrieve("nobody")),
        "upstream": caught(lambda: ask(**BODY)),
        "unpaid": caught(lambda: ask(**{**BODY, "max_tokens": 128000}, timeout=60)),
    }


def close(client):
    events = client.messages.create(**BODY, stream=True)
    for event in events:
        if event.type == "content_block_delta":
            break
    events.close()
    return {"closed": True}


def models(client):
    return {"models": [model.id for model in client.models.list()]}


# Retries would hide what a single request comes to.
print(json.dumps(globals()[sys.argv[1]](anthropic.Anthropic(max_retries=0, timeout=60))))
