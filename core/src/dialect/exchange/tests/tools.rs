//! Tool calls, put together from their parts or taken whole.

use super::*;

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
