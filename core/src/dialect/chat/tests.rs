use serde_json::{Value, json};

use super::outgoing;
use super::refusal::Refusal;
use super::reply::{Composer, Heading, Writer};
use super::*;
use crate::dialect::Target;
use crate::error::ErrorCode;
use crate::wire::message::{Chat, FinishReason, TokensUsed};

use DialectName::{Anthropic, Openai};

fn chat(dialect: DialectName, body: &Value) -> Chat {
    let body = RawValue::from_string(body.to_string()).unwrap();
    Chat { dialect, body }
}

fn sent(from: DialectName, to: DialectName, body: &Value) -> Value {
    let (body, _) = outgoing::build(&Target::new(to, "m"), &chat(from, body), 50).unwrap();
    serde_json::from_slice(&body).unwrap()
}

fn refused(from: DialectName, to: DialectName, body: &Value) -> String {
    let built = outgoing::build(&Target::new(to, "m"), &chat(from, body), 50);
    built.unwrap_err().field().to_owned()
}

#[test]
fn the_facts_of_a_body_are_read_and_what_is_wrong_is_named() {
    let facts = |dialect, body: Value| Facts::read(dialect, &body.to_string());
    let body = json!({"model": "auto", "messages": [], "stream": true, "max_tokens": 9,
        "stream_options": {"include_usage": true}, "temperature": null});
    let expected = Facts {
        model: "auto".to_owned(),
        stream: true,
        include_usage: true,
        max_tokens: 9,
    };
    assert_eq!(facts(Openai, body.clone()), Ok(expected.clone()));
    assert_eq!(facts(Anthropic, body), Ok(expected));
    let short = json!({"model": "m", "messages": []});
    assert_eq!(facts(Openai, short.clone()).unwrap().max_tokens, 4096);
    let newer = json!({"model": "m", "messages": [], "max_completion_tokens": 7, "max_tokens": 9});
    assert_eq!(facts(Openai, newer).unwrap().max_tokens, 7);
    for (dialect, body, field) in [
        (Anthropic, short, "max_tokens"),
        (Openai, json!({"messages": []}), "model"),
        (Openai, json!({"model": "m"}), "messages"),
        (Openai, json!({"model": 1, "messages": []}), "model"),
        (
            Openai,
            json!({"model": "m", "messages": [], "stream": "yes"}),
            "stream",
        ),
        (
            Openai,
            json!({"model": "m", "messages": [], "max_tokens": 0}),
            "max_tokens",
        ),
        (
            Openai,
            json!({"model": "m", "messages": [], "max_tokens": 128_001}),
            "max_tokens",
        ),
        (
            Openai,
            json!({"model": "m".repeat(129), "messages": []}),
            "model",
        ),
        (Openai, json!([]), "the body"),
    ] {
        assert_eq!(facts(dialect, body).unwrap_err().field(), field);
    }
    assert!(Facts::read(Openai, "{\"model\":").is_err());
}

#[test]
fn between_two_of_one_dialect_a_body_goes_as_it_is_but_for_what_the_gateway_decides() {
    let body = json!({"model": "auto", "messages": [{"role": "user", "content": "é"}], "seed": 7,
        "response_format": {"type": "json_object"}, "temperature": 0.25, "max_tokens": 99_999,
        "stream": false, "x_vendor": [1, 2]});
    let mut expected = body.clone();
    expected["model"] = "m".into();
    expected["max_tokens"] = 50.into();
    expected["stream"] = true.into();
    let mut anthropic = expected.clone();
    expected["stream_options"] = json!({"include_usage": true});
    assert_eq!(sent(Openai, Openai, &body), expected);
    anthropic["system"] = "s".into();
    let mut body = body;
    body["system"] = "s".into();
    assert_eq!(sent(Anthropic, Anthropic, &body), anthropic);
}

#[test]
fn what_no_hold_covers_and_what_is_not_carried_back_is_refused_by_name() {
    let with = |field: &str, value: Value| json!({"model": "m", "messages": [], "max_tokens": 1, field: value});
    for (field, value) in [
        ("n", json!(2)),
        ("logprobs", json!(true)),
        ("modalities", json!(["text", "audio"])),
        ("functions", json!([])),
        ("web_search_options", json!({})),
    ] {
        assert_eq!(refused(Openai, Openai, &with(field, value)), field);
    }
    assert_eq!(
        refused(Anthropic, Anthropic, &with("mcp_servers", json!([]))),
        "mcp_servers"
    );
    let tools = json!([{"name": "a"}, {"type": "web_search_20250305", "name": "web_search"}]);
    assert_eq!(
        refused(Anthropic, Anthropic, &with("tools", tools)),
        "tools[1].type"
    );
    for (field, value) in [
        ("seed", json!(1)),
        ("logit_bias", json!({})),
        ("frequency_penalty", json!(0.5)),
        ("response_format", json!({"type": "json_object"})),
        ("tool_choice", json!("sometimes")),
    ] {
        assert_eq!(refused(Openai, Anthropic, &with(field, value)), field);
    }
    for (field, value) in [
        ("top_k", json!(1)),
        (
            "thinking",
            json!({"type": "enabled", "budget_tokens": 1024}),
        ),
    ] {
        assert_eq!(refused(Anthropic, Openai, &with(field, value)), field);
    }
    let audio = json!([{"role": "user", "content": [{"type": "input_audio"}]}]);
    assert_eq!(
        refused(Openai, Anthropic, &with("messages", audio)),
        "messages[0].content[0].type"
    );
    let document = json!([{"role": "user", "content": [{"type": "document"}]}]);
    assert_eq!(
        refused(Anthropic, Openai, &with("messages", document)),
        "messages[0].content[0].type"
    );
    let role = json!([{"role": "critic", "content": "x"}]);
    assert_eq!(
        refused(Openai, Anthropic, &with("messages", role)),
        "messages[0].role"
    );
}

/// The same conversation in both dialects, by hand from the two providers' references.
fn conversations() -> (Value, Value) {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let openai = json!({
        "model": "auto", "max_tokens": 50, "temperature": 0.5, "stop": ["END"], "user": "u1",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [
                {"type": "text", "text": "Which place?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ]},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function",
                "function": {"name": "weather", "arguments": "{\"city\":\"Kiel\"}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        ],
        "tools": [{"type": "function", "function": {"name": "weather",
            "description": "Of a city", "parameters": schema}}],
        "tool_choice": "required",
    });
    let anthropic = json!({
        "model": "m", "max_tokens": 50, "temperature": 0.5, "stop_sequences": ["END"],
        "stream": true, "metadata": {"user_id": "u1"}, "system": "Be brief.",
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "Which place?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
            ]},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Kiel"}},
            ]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1",
                "content": [{"type": "text", "text": "rain"}]}]},
        ],
        "tools": [{"name": "weather", "description": "Of a city", "input_schema": schema}],
        "tool_choice": {"type": "any"},
    });
    (openai, anthropic)
}

#[test]
fn a_conversation_with_tools_and_pictures_is_the_same_in_either_dialect() {
    let (openai, anthropic) = conversations();
    assert_eq!(sent(Openai, Anthropic, &openai), anthropic);
    let mut expected = openai;
    expected["model"] = "m".into();
    expected["stream"] = true.into();
    expected["stream_options"] = json!({"include_usage": true});
    assert_eq!(sent(Anthropic, Openai, &anthropic), expected);
}

#[test]
fn neighbouring_turns_of_one_role_become_one_for_anthropic() {
    let body = json!({"model": "m", "messages": [
        {"role": "user", "content": "a"}, {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"role": "tool", "tool_call_id": "1", "content": "x"},
        {"role": "user", "content": "d"},
    ]});
    let text = |text: &str| json!({"type": "text", "text": text});
    assert_eq!(
        sent(Openai, Anthropic, &body)["messages"],
        json!([
            {"role": "user", "content": [text("a"), text("b")]},
            {"role": "assistant", "content": [text("c"), {"type": "tool_use", "id": "1", "name": "f", "input": {}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "1", "content": [text("x")]}, text("d")]},
        ])
    );
}

#[test]
fn the_bound_of_a_prompt_counts_bytes_of_text_and_an_allowance_for_pictures() {
    let tokens = |body: Value| {
        let built = outgoing::build(&Target::new(Openai, "m"), &chat(Openai, &body), 50).unwrap();
        (built.1, built.0.len() as u64)
    };
    let (bound, bytes) = tokens(json!({"messages": [{"role": "user", "content": "hello"}]}));
    assert_eq!(bound, bytes + 512 + 16);
    let url = format!("data:image/png;base64,{}", "A".repeat(100_000));
    let part = json!({"type": "image_url", "image_url": {"url": url}});
    let (bound, bytes) = tokens(json!({"messages": [{"role": "user", "content": [part]}]}));
    assert!(
        bytes > 100_000 && bound < 17_500 && bound > 16_384,
        "{bound}"
    );
}

fn heading(dialect: DialectName) -> Heading {
    Heading {
        dialect,
        id: "1".to_owned(),
        created: 5,
        model: "auto".to_owned(),
    }
}

fn call(index: u32) -> Delta {
    Delta::ToolCall {
        index,
        id: format!("c{index}"),
        name: "f".to_owned(),
    }
}

fn arguments(index: u32, json: &str) -> Delta {
    Delta::Arguments {
        index,
        json: json.to_owned(),
    }
}

const TOKENS: TokensUsed = TokensUsed {
    prompt: 10,
    completion: 3,
    cache_read: 4,
    cache_write: 1,
    reasoning: 2,
};

/// The data of each event, and its name if it has one.
fn events(stream: &str) -> Vec<(String, Value)> {
    let one = |event: &str| {
        let mut name = String::new();
        let mut data = Value::Null;
        for line in event.lines() {
            if let Some(text) = line.strip_prefix("event: ") {
                text.clone_into(&mut name);
            } else if let Some(text) = line.strip_prefix("data: ") {
                data = serde_json::from_str(text).unwrap_or_else(|_| text.into());
            }
        }
        (name, data)
    };
    stream.split_terminator("\n\n").map(one).collect()
}

#[test]
fn an_openai_stream_has_the_shape_that_its_clients_expect() {
    let mut writer = Writer::new(heading(Openai), true);
    let mut out = writer.text("Hel");
    out += &writer.text("lo");
    out += &writer.delta(&call(0));
    out += &writer.delta(&arguments(0, "{\"a\":"));
    out += &writer.delta(&arguments(0, "1}"));
    out += &writer.delta(&call(1));
    out += &writer.end(FinishReason::ToolCalls, TOKENS);
    let events = events(&out);
    let deltas: Vec<&Value> = events
        .iter()
        .map(|(_, data)| &data["choices"][0]["delta"])
        .collect();
    assert_eq!(deltas[0], &json!({"role": "assistant", "content": ""}));
    assert_eq!(deltas[1], &json!({"content": "Hel"}));
    assert_eq!(
        deltas[3]["tool_calls"][0],
        json!({"index": 0, "id": "c0", "type": "function",
        "function": {"name": "f", "arguments": ""}})
    );
    assert_eq!(
        deltas[5]["tool_calls"][0],
        json!({"index": 0, "function": {"arguments": "1}"}})
    );
    // A call without arguments gets an empty object.
    assert_eq!(
        deltas[7]["tool_calls"][0],
        json!({"index": 1, "function": {"arguments": "{}"}})
    );
    let last: Vec<&Value> = events.iter().rev().map(|(_, data)| data).collect();
    assert_eq!(last[0], "[DONE]");
    assert_eq!(last[1]["choices"], json!([]));
    assert_eq!(last[1]["usage"]["total_tokens"], 13);
    assert_eq!(last[2]["choices"][0]["finish_reason"], "tool_calls");
    assert!(events[..events.len() - 1].iter().all(|(name, data)| {
        name.is_empty() && data["id"] == "chatcmpl-1" && data["created"] == 5
    }));
    let mut plain = Writer::new(heading(Openai), false);
    let out = plain.text("x") + &plain.end(FinishReason::Stop, TOKENS);
    assert!(!out.contains("usage"), "{out}");
}

#[test]
fn an_anthropic_stream_has_one_block_open_at_a_time() {
    let mut writer = Writer::new(heading(Anthropic), false);
    let mut out = writer.delta(&Delta::Reasoning("hm".to_owned()));
    out += &writer.delta(&Delta::Signature("s".to_owned()));
    out += &writer.text("Hi");
    out += &writer.delta(&call(0));
    out += &writer.delta(&arguments(0, "{}"));
    out += &writer.end(FinishReason::ToolCalls, TOKENS);
    let events = events(&out);
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    assert!(
        events
            .iter()
            .all(|(name, data)| data["type"] == name.as_str())
    );
    let indices: Vec<_> = events
        .iter()
        .filter_map(|(_, data)| data["index"].as_u64())
        .collect();
    assert_eq!(indices, [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]);
    assert_eq!(events[11].1["usage"]["input_tokens"], 5);
    assert_eq!(events[11].1["delta"]["stop_reason"], "tool_use");
    let mut empty = Writer::new(heading(Anthropic), false);
    let names: Vec<String> = self::events(&empty.end(FinishReason::Stop, TOKENS))
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        names,
        [
            "message_start",
            "content_block_start",
            "content_block_stop",
            "message_delta",
            "message_stop"
        ]
    );
}

#[test]
fn a_whole_answer_has_everything_in_its_place() {
    let mut composer = Composer::default();
    composer.text("Hi");
    composer.delta(&Delta::Reasoning("hm".to_owned()));
    composer.delta(&Delta::Signature("s".to_owned()));
    composer.delta(&call(0));
    composer.delta(&arguments(0, "{\"a\":1}"));
    composer.delta(&call(1));
    let openai = composer.body(&heading(Openai), FinishReason::ToolCalls, TOKENS);
    let message = &openai["choices"][0]["message"];
    assert_eq!(message["content"], "Hi");
    assert_eq!(
        message["tool_calls"][0]["function"]["arguments"],
        "{\"a\":1}"
    );
    assert_eq!(message["tool_calls"][1]["function"]["arguments"], "{}");
    assert_eq!(openai["usage"]["prompt_tokens_details"]["cached_tokens"], 4);
    let anthropic = composer.body(&heading(Anthropic), FinishReason::ToolCalls, TOKENS);
    assert_eq!(
        anthropic["content"],
        json!([
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "Hi"},
            {"type": "tool_use", "id": "c0", "name": "f", "input": {"a": 1}},
            {"type": "tool_use", "id": "c1", "name": "f", "input": {}},
        ])
    );
    assert_eq!(
        anthropic["usage"],
        json!({"input_tokens": 5, "cache_read_input_tokens": 4,
        "cache_creation_input_tokens": 1, "output_tokens": 3})
    );
    assert!(!format!("{composer:?}").contains("Hi"));
}

#[test]
fn a_delta_is_read_back_from_either_dialect() {
    for delta in [
        Delta::Reasoning("r".to_owned()),
        Delta::Signature("s".to_owned()),
        call(3),
        arguments(3, "{\"a\""),
    ] {
        for dialect in [Openai, Anthropic] {
            let Some(json) = delta.to_json(dialect) else {
                assert_eq!(
                    (dialect, &delta),
                    (Openai, &Delta::Signature("s".to_owned()))
                );
                continue;
            };
            assert_eq!(
                Delta::from_json(json.get()),
                Some(delta.clone()),
                "{}",
                json.get()
            );
        }
    }
    for foreign in [
        "",
        "[]",
        "{}",
        "{\"tool_calls\":[{}]}",
        "{\"type\":\"tool_use\"}",
        "7",
    ] {
        assert_eq!(Delta::from_json(foreign), None, "{foreign}");
    }
}

#[test]
fn errors_have_the_type_that_each_dialect_has_for_their_status() {
    for (code, openai, anthropic) in [
        (
            ErrorCode::InvalidRequest,
            "invalid_request_error",
            "invalid_request_error",
        ),
        (
            ErrorCode::Unauthorized,
            "authentication_error",
            "authentication_error",
        ),
        (
            ErrorCode::PaymentRequired,
            "insufficient_quota",
            "billing_error",
        ),
        (ErrorCode::Forbidden, "permission_error", "permission_error"),
        (
            ErrorCode::NotFound,
            "invalid_request_error",
            "not_found_error",
        ),
        (
            ErrorCode::TooLarge,
            "invalid_request_error",
            "request_too_large",
        ),
        (
            ErrorCode::RateLimited,
            "rate_limit_error",
            "rate_limit_error",
        ),
        (ErrorCode::Internal, "server_error", "api_error"),
        (ErrorCode::ShuttingDown, "server_error", "overloaded_error"),
        (ErrorCode::UpstreamTimeout, "server_error", "timeout_error"),
    ] {
        let refusal = Refusal::new(code, "why");
        assert_eq!(refusal.body(Openai, "r")["error"]["type"], openai, "{code}");
        let body = refusal.body(Anthropic, "r");
        assert_eq!(
            (&body["error"]["type"], &body["type"]),
            (&json!(anthropic), &json!("error")),
            "{code}"
        );
        assert_eq!(body["request_id"], "r");
    }
}
