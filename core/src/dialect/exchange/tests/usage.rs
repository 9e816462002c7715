//! What an answer used: counted by its provider, or not at all.

use super::*;

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
