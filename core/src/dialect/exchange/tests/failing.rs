//! Answers that fail: refused, broken off, malformed, without bound.

use super::*;

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
