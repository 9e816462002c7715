use proptest::prelude::*;

use super::*;

const OPENAI_STREAM: &[u8] = include_bytes!("../testdata/openai-stream.sse");
const OPENAI_WHOLE: &[u8] = include_bytes!("../testdata/openai-response.json");
const ANTHROPIC_STREAM: &[u8] = include_bytes!("../testdata/anthropic-stream.sse");
const ANTHROPIC_WHOLE: &[u8] = include_bytes!("../testdata/anthropic-response.json");

/// What came of an exchange, with the pieces of text joined.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    model: String,
    text: String,
    reasoning: String,
    signature: String,
    calls: Vec<(u32, String, String)>,
    keep_alives: usize,
    terminal: Option<Output>,
}

impl Seen {
    fn drain(&mut self, exchange: &mut Exchange) {
        while let Some(output) = exchange.poll() {
            assert_eq!(self.terminal, None, "nothing follows the terminal output");
            match output {
                Output::Piece(Piece::Model(name)) => self.model = name,
                Output::Piece(Piece::Text(text)) => self.text.push_str(&text),
                Output::Piece(Piece::Reasoning(text)) => self.reasoning.push_str(&text),
                Output::Piece(Piece::KeepAlive) => self.keep_alives += 1,
                Output::Piece(Piece::ToolCall { index, id, name }) => {
                    self.calls
                        .push((index, format!("{id} {name}"), String::new()));
                }
                Output::Piece(Piece::Arguments { index, json }) => {
                    self.calls[index as usize].2.push_str(&json);
                }
                Output::Piece(Piece::Signature(text)) => self.signature.push_str(&text),
                Output::Piece(Piece::Usage(_)) => {}
                terminal @ (Output::Finished { .. } | Output::Failed(_)) => {
                    self.terminal = Some(terminal);
                }
            }
        }
    }

    fn failure(&self) -> FailureKind {
        match &self.terminal {
            Some(Output::Failed(failure)) => failure.kind,
            other => panic!("{other:?}"),
        }
    }
}

fn head(status: u16, content_type: &str) -> Head {
    Head {
        status,
        content_type: Some(content_type.to_owned()),
        retry_after: Some(Duration::from_secs(3)),
    }
}

fn run(dialect: DialectName, head: &Head, pieces: &[&[u8]], end: Result<(), Broken>) -> Seen {
    let mut exchange = Exchange::new(dialect);
    let mut seen = Seen::default();
    exchange.handle_head(head);
    for piece in pieces {
        exchange.handle_body(piece);
        seen.drain(&mut exchange);
    }
    exchange.handle_end(end);
    seen.drain(&mut exchange);
    assert!(seen.terminal.is_some() && exchange.is_done());
    seen
}

fn stream(dialect: DialectName, body: &str) -> Seen {
    run(
        dialect,
        &head(200, "text/event-stream"),
        &[body.as_bytes()],
        Ok(()),
    )
}

fn as_events(data: &[&str]) -> String {
    let event = |data: &&str| format!("data: {}\n\n", data.replace('\n', "\ndata: "));
    data.iter().map(event).collect()
}

fn openai(events: &[&str]) -> Seen {
    stream(DialectName::Openai, &as_events(events))
}

fn anthropic(events: &[&str]) -> Seen {
    stream(DialectName::Anthropic, &as_events(events))
}

fn finished(reason: FinishReason, prompt: u64, completion: u64, cache_read: u64) -> Output {
    let usage = Some(TokensUsed {
        prompt,
        completion,
        cache_read,
        ..TokensUsed::default()
    });
    Output::Finished { reason, usage }
}

// The expected texts and counts are read off the captures of a real server by hand.
#[test]
fn real_streams_of_both_formats_give_their_text_and_usage() {
    let seen = run(
        DialectName::Openai,
        &head(200, "text/event-stream"),
        &[OPENAI_STREAM],
        Ok(()),
    );
    assert_eq!(seen.model, "tiny");
    assert_eq!(
        seen.text,
        " over mean end help help help help help help help help help"
    );
    assert_eq!(
        seen.terminal,
        Some(finished(FinishReason::Length, 51, 12, 0))
    );

    let seen = run(
        DialectName::Anthropic,
        &head(200, "text/event-stream"),
        &[ANTHROPIC_STREAM],
        Ok(()),
    );
    assert_eq!(seen.model, "tiny");
    assert_eq!(
        seen.text,
        " over does before long air each a give add line get will"
    );
    assert_eq!(
        seen.terminal,
        Some(finished(FinishReason::Length, 51, 12, 50))
    );
}

#[test]
fn real_whole_answers_of_both_formats_give_their_text_and_usage() {
    let json = head(200, "application/json; charset=utf-8");
    let seen = run(DialectName::Openai, &json, &[OPENAI_WHOLE], Ok(()));
    assert_eq!(
        seen.text,
        " over many who him by what she his she his who each"
    );
    assert_eq!(
        seen.terminal,
        Some(finished(FinishReason::Length, 31, 12, 0))
    );

    let seen = run(DialectName::Anthropic, &json, &[ANTHROPIC_WHOLE], Ok(()));
    assert_eq!(
        seen.text,
        " over does would know first which say over does before every or"
    );
    assert_eq!(
        seen.terminal,
        Some(finished(FinishReason::Length, 31, 12, 30))
    );
}

#[test]
fn openai_usage_includes_cached_and_reasoning_tokens() {
    let seen = openai(&[
        r#"{"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":"4"},"finish_reason":"stop"}]}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":50,
            "prompt_tokens_details":{"cached_tokens":80},
            "completion_tokens_details":{"reasoning_tokens":40}}}"#,
        "[DONE]",
    ]);
    assert_eq!((seen.reasoning.as_str(), seen.text.as_str()), ("hm", "4"));
    let usage = Some(TokensUsed {
        prompt: 100,
        completion: 50,
        cache_read: 80,
        cache_write: 0,
        reasoning: 40,
    });
    let reason = FinishReason::Stop;
    assert_eq!(seen.terminal, Some(Output::Finished { reason, usage }));
}

#[test]
fn anthropic_usage_is_cumulative_and_its_input_excludes_the_cache() {
    let seen = anthropic(&[
        r#"{"type":"message_start","message":{"model":"claude","usage":{"input_tokens":25,
            "cache_creation_input_tokens":100,"cache_read_input_tokens":1000,
            "output_tokens":1}}}"#,
        r#"{"type":"ping"}"#,
        r#"{"type":"content_block_delta","index":0,
            "delta":{"type":"thinking_delta","thinking":"hm"}}"#,
        r#"{"type":"content_block_delta","index":0,
            "delta":{"type":"signature_delta","signature":"x"}}"#,
        r#"{"type":"brand_new_event","whatever":1}"#,
        r#"{"type":"content_block_delta","index":1,
            "delta":{"type":"text_delta","text":"4"}}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":null},"usage":{"output_tokens":9}}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},
            "usage":{"input_tokens":0,"output_tokens":15}}"#,
        r#"{"type":"message_stop"}"#,
    ]);
    assert_eq!((seen.reasoning.as_str(), seen.text.as_str()), ("hm", "4"));
    let usage = Some(TokensUsed {
        prompt: 1125,
        completion: 15,
        cache_read: 1000,
        cache_write: 100,
        reasoning: 0,
    });
    let reason = FinishReason::Stop;
    assert_eq!(seen.terminal, Some(Output::Finished { reason, usage }));
}

#[test]
fn what_anthropic_counts_before_it_writes_is_not_the_answers_usage() {
    // `message_start` says one token for what has not been written yet.
    let seen = anthropic(&[
        r#"{"type":"message_start","message":{"model":"m","usage":{"input_tokens":9,"output_tokens":1}}}"#,
        r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"a long answer"}}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#,
        r#"{"type":"message_stop"}"#,
    ]);
    let uncounted = Output::Finished {
        reason: FinishReason::Stop,
        usage: None,
    };
    assert_eq!(seen.terminal, Some(uncounted));
}

#[test]
fn usage_that_is_missing_negative_or_absurd_is_no_usage() {
    for usage in [
        "",
        r#","usage":null"#,
        r#","usage":{}"#,
        r#","usage":{"prompt_tokens":-5,"completion_tokens":1}"#,
        r#","usage":{"prompt_tokens":1,"completion_tokens":1e400}"#,
        r#","usage":{"prompt_tokens":18446744073709551615,"completion_tokens":1}"#,
    ] {
        let seen = openai(&[
            &format!(
                r#"{{"choices":[{{"delta":{{"content":"a"}},"finish_reason":"stop"}}]{usage}}}"#
            ),
            "[DONE]",
        ]);
        // 1e400 is no number that JSON readers take, so that answer fails as a whole.
        if usage.contains("1e400") {
            assert_eq!(seen.failure(), FailureKind::Malformed);
            continue;
        }
        let reason = FinishReason::Stop;
        let terminal = Output::Finished {
            reason,
            usage: None,
        };
        assert_eq!(seen.terminal, Some(terminal), "{usage}");
    }
}

#[test]
fn statuses_that_are_no_success_fail_with_the_servers_words() {
    let body = br#"{"error":{"message":"slow down","type":"x"}}"#;
    let retry_after = Some(Duration::from_secs(3));
    for (status, kind) in [
        (401, FailureKind::Unauthorized),
        (429, FailureKind::RateLimited { retry_after }),
        (500, FailureKind::Server { status: 500 }),
        (529, FailureKind::Overloaded { retry_after }),
        (302, FailureKind::Rejected { status: 302 }),
    ] {
        for end in [Ok(()), Err(Broken::Reset)] {
            let head = head(status, "application/json");
            let seen = run(DialectName::Openai, &head, &[body], end);
            assert_eq!(seen.failure(), kind);
        }
    }
}

#[test]
fn an_endless_error_body_is_not_kept() {
    let mut exchange = Exchange::new(DialectName::Openai);
    exchange.handle_head(&head(500, "text/html"));
    for _ in 0..100 {
        exchange.handle_body(&[b'x'; 4096]);
    }
    let State::ErrorBody { body, .. } = &exchange.state else {
        panic!("{exchange:?}")
    };
    assert_eq!(body.len(), limits::ERROR_BODY_BYTES_MAX);
}

#[test]
fn errors_inside_a_stream_end_it_with_the_text_so_far() {
    let text = r#"{"choices":[{"index":0,"delta":{"content":"so far"}}]}"#;
    for (error, kind) in [
        (
            r#"{"error":{"message":"m","code":502}}"#,
            FailureKind::Server { status: 502 },
        ),
        (
            r#"{"error":{"message":"m","type":"weird"}}"#,
            FailureKind::Server { status: 500 },
        ),
        (
            r#"{"object":"error","message":"m"}"#,
            FailureKind::Server { status: 500 },
        ),
        (r#"{"error":"m"}"#, FailureKind::Server { status: 500 }),
        (
            r#"{"error":{"code":400,"type":"exceed_context_size_error"}}"#,
            FailureKind::Rejected { status: 400 },
        ),
        (
            r#"{"choices":[{"index":0,"delta":{},"finish_reason":"error"}]}"#,
            FailureKind::Server { status: 500 },
        ),
    ] {
        let seen = openai(&[text, error, text]);
        assert_eq!(
            (seen.text.as_str(), seen.failure()),
            ("so far", kind),
            "{error}"
        );
    }
    let overloaded =
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    let kind = FailureKind::Overloaded { retry_after: None };
    assert_eq!(anthropic(&[overloaded]).failure(), kind);
}

#[test]
fn malformed_events_fail_the_answer_and_nothing_else() {
    let deep = format!(r#"{{"choices":{}"#, "[".repeat(200_000));
    let deep_unknown = format!(r#"{{"x":{}{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
    for data in [
        "{",
        "hello",
        "[]",
        "7",
        "null",
        r#"{"choices":7}"#,
        r#"{"choices":[{"index":-1}]}"#,
        r#"{"choices":[{"delta":{"content":["a"]}}]}"#,
        r#"{"model":"\ud800"}"#,
        &deep,
    ] {
        assert_eq!(openai(&[data]).failure(), FailureKind::Malformed);
    }
    // Whatever stands in fields that are not ours is skipped, however deep.
    assert_eq!(openai(&[&deep_unknown]).failure(), FailureKind::Truncated);
    for data in ["{}", r#"{"type":7}"#, r#"{"type":"message_start"}"#] {
        assert_eq!(anthropic(&[data]).failure(), FailureKind::Malformed);
    }
}

#[test]
fn an_answer_that_breaks_off_is_told_from_one_that_only_lacks_the_last_formality() {
    let text = r#"{"choices":[{"index":0,"delta":{"content":"a"}}]}"#;
    assert_eq!(openai(&[text]).failure(), FailureKind::Truncated);
    assert_eq!(openai(&[]).failure(), FailureKind::Truncated);
    let last = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}"#;
    let body = format!("data: {text}\n\ndata: {last}\n\ndata: {{\"cho");
    let event_stream = head(200, "text/event-stream");
    for end in [Ok(()), Err(Broken::Reset), Err(Broken::Timeout)] {
        let seen = run(DialectName::Openai, &event_stream, &[body.as_bytes()], end);
        let reason = FinishReason::Length;
        let terminal = Output::Finished {
            reason,
            usage: None,
        };
        assert_eq!(seen.terminal, Some(terminal));
    }
}

#[test]
fn an_exchange_that_never_got_a_body_fails_by_how_it_broke() {
    for (end, kind) in [
        (Ok(()), FailureKind::Truncated),
        (Err(Broken::Connect), FailureKind::Connect),
        (Err(Broken::Timeout), FailureKind::Timeout),
        (Err(Broken::Reset), FailureKind::Truncated),
    ] {
        let mut exchange = Exchange::new(DialectName::Anthropic);
        exchange.handle_end(end);
        assert_eq!(exchange.poll(), Some(Output::Failed(kind.into())));
        exchange.handle_body(b"{}");
        exchange.handle_end(Ok(()));
        assert_eq!(exchange.poll(), None);
    }
}

#[test]
fn a_web_page_is_not_an_answer() {
    let page = head(200, "Text/HTML; charset=utf-8");
    let seen = run(DialectName::Openai, &page, &[b"<!doctype html>"], Ok(()));
    assert_eq!(seen.failure(), FailureKind::Malformed);
    let json = head(200, "application/json");
    for body in [&b"{}"[..], br#"{"choices":[]}"#, br#"{"object":"list"}"#] {
        let seen = run(DialectName::Openai, &json, &[body], Ok(()));
        assert_eq!(seen.failure(), FailureKind::Malformed);
    }
}

#[test]
fn keep_alives_show_that_the_server_lives_and_are_no_text() {
    let mut exchange = Exchange::new(DialectName::Openai);
    exchange.handle_head(&head(200, "text/event-stream"));
    exchange.handle_body(b": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n");
    assert_eq!(exchange.poll(), Some(Output::Piece(Piece::KeepAlive)));
    assert_eq!(exchange.poll(), None);
    let mut exchange = Exchange::new(DialectName::Anthropic);
    exchange.handle_head(&head(200, "text/event-stream"));
    exchange.handle_body(b"event: ping\ndata: {\"type\": \"ping\"}\n\n");
    assert_eq!(exchange.poll(), Some(Output::Piece(Piece::KeepAlive)));
}

#[test]
fn answers_without_bound_are_cut_short() {
    let mut exchange = Exchange::new(DialectName::Openai);
    exchange.handle_head(&head(200, "text/event-stream"));
    exchange.handle_body(b"data: ");
    while !exchange.is_done() {
        exchange.handle_body(&[b'x'; 65_536]);
    }
    assert_eq!(
        exchange.poll(),
        Some(Output::Failed(FailureKind::TooLarge.into()))
    );

    let mut exchange = Exchange::new(DialectName::Openai);
    exchange.handle_head(&head(200, "application/json"));
    exchange.handle_body(b"{\"x\":\"");
    while !exchange.is_done() {
        exchange.handle_body(&[b'x'; 65_536]);
    }
    assert_eq!(
        exchange.poll(),
        Some(Output::Failed(FailureKind::TooLarge.into()))
    );
}

fn cut(bytes: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2)
        .map(|w| bytes[w[0]..w[1]].to_vec())
        .collect()
}

proptest! {
    #[test]
    fn any_cut_of_the_captures_gives_the_same_answer(
        cuts in prop::collection::vec(0_usize..10_000, 0..20),
        crlf in any::<bool>(),
    ) {
        for (dialect, body) in [
            (DialectName::Openai, OPENAI_STREAM), (DialectName::Openai, OPENAI_WHOLE),
            (DialectName::Anthropic, ANTHROPIC_STREAM), (DialectName::Anthropic, ANTHROPIC_WHOLE),
        ] {
            let body = String::from_utf8_lossy(body).replace(" over", " \u{1F600}v\u{e9}r");
            let body = if crlf { body.replace('\n', "\r\n") } else { body };
            let head = head(200, "");
            let whole = run(dialect, &head, &[body.as_bytes()], Ok(()));
            let pieces = cut(body.as_bytes(), &cuts);
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(&run(dialect, &head, &pieces, Ok(())), &whole);
            let finished = matches!(whole.terminal, Some(Output::Finished { .. }));
            prop_assert!(finished);
        }
    }

    #[test]
    fn hostile_bytes_give_exactly_one_terminal_and_no_panic(
        body in prop::collection::vec(prop_oneof![
            Just(b"data: ".to_vec()), Just(b"\n\n".to_vec()), Just(b"{\"choices\":[".to_vec()),
            Just(b"{\"type\":\"message_start\",\"message\":{".to_vec()), Just(b"}]}".to_vec()),
            prop::collection::vec(any::<u8>(), 0..40),
        ], 0..20),
        status in prop_oneof![Just(200_u16), any::<u16>()],
        anthropic in any::<bool>(),
    ) {
        let dialect = if anthropic { DialectName::Anthropic } else { DialectName::Openai };
        let pieces: Vec<&[u8]> = body.iter().map(Vec::as_slice).collect();
        let joined = body.concat();
        let cut = run(dialect, &head(status, ""), &pieces, Ok(()));
        let whole = run(dialect, &head(status, ""), &[&joined], Ok(()));
        prop_assert_eq!(cut.terminal, whole.terminal);
    }
}

#[test]
fn a_head_is_read_from_its_fields() {
    let wall = UnixMillis(0);
    let fields = [("content-type", "text/event-stream"), ("retry-after", "2")];
    let field = |name: &str| {
        fields
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| *value)
    };
    let head = Head::from_fields(429, field, wall);
    assert_eq!(head.status, 429);
    assert_eq!(head.content_type.as_deref(), Some("text/event-stream"));
    assert_eq!(head.retry_after, Some(Duration::from_secs(2)));
    let exact = Head::from_fields(
        429,
        |name| {
            if name == "retry-after-ms" {
                Some("1500")
            } else {
                field(name)
            }
        },
        wall,
    );
    assert_eq!(exact.retry_after, Some(Duration::from_millis(1500)));
    assert_eq!(Head::from_fields(200, |_| None, wall).retry_after, None);
}

fn calls(seen: &Seen) -> Vec<(u32, &str, &str)> {
    let calls = seen.calls.iter();
    calls
        .map(|(index, call, json)| (*index, call.as_str(), json.as_str()))
        .collect()
}

#[test]
fn tool_calls_of_openai_are_put_together_from_their_parts_or_taken_whole() {
    let streamed = stream(
        DialectName::Openai,
        &as_events(&[
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"x\""}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":":1}"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"function":{"name":"g","arguments":"{}"}},{"index":9,"function":{"arguments":"lost"}}]}}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#,
            "[DONE]",
        ]),
    );
    let expected = [(0, "a f", "{\"x\":1}"), (1, "call_1 g", "{}")];
    assert_eq!(calls(&streamed), expected);
    let whole = stream(
        DialectName::Openai,
        r#"{"choices":[{"message":{"content":null,"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{\"x\":1}"}},{"function":{"name":"g","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}"#,
    );
    assert_eq!(calls(&whole), expected);
    for seen in [streamed, whole] {
        let finished = matches!(
            seen.terminal,
            Some(Output::Finished {
                reason: FinishReason::ToolCalls,
                ..
            })
        );
        assert!(finished);
    }
}

#[test]
fn tool_calls_and_signatures_of_anthropic_are_put_together_from_their_parts_or_taken_whole() {
    let streamed = stream(
        DialectName::Anthropic,
        &as_events(&[
            r#"{"type":"message_start","message":{"model":"m","content":[]}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"sig"}}"#,
            r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"a","name":"f","input":{}}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"x\""}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":":1}"}}"#,
            r#"{"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"b","name":"g","input":{}}}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"}}"#,
            r#"{"type":"message_stop"}"#,
        ]),
    );
    assert_eq!(calls(&streamed), [(0, "a f", "{\"x\":1}"), (1, "b g", "")]);
    assert_eq!(streamed.signature, "sig");
    let whole = stream(
        DialectName::Anthropic,
        r#"{"model":"m","content":[{"type":"tool_use","id":"a","name":"f","input":{"x": 1}}],"stop_reason":"tool_use"}"#,
    );
    assert_eq!(calls(&whole), [(0, "a f", "{\"x\": 1}")]);
}

#[test]
fn more_tool_calls_than_there_may_be_fail_the_answer() {
    let calls: Vec<String> = (0..129)
        .map(|at| format!(r#"{{"id":"{at}","function":{{"name":"f"}}}}"#))
        .collect();
    let body = format!(
        r#"{{"choices":[{{"message":{{"tool_calls":[{}]}}}}]}}"#,
        calls.join(",")
    );
    let seen = stream(DialectName::Openai, &body);
    assert_eq!(seen.failure(), FailureKind::TooLarge);
}
