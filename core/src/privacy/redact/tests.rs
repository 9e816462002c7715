use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::escalation::context::Question;
use crate::ids::RequestId;
use crate::privacy::Custom;
use crate::privacy::restore::{Form, Restorer};
use crate::time::UnixMillis;
use crate::wire::message::{Chat, DialectName, Role};

/// Prompts with what is private in them. Written backwards, so that nobody's scanner takes the made-up
/// keys for lost ones.
const PROMPTS: &str = include_str!("../testdata/prompts.jsonl");

/// Each prompt, and what was planted in it.
fn prompts() -> Vec<(String, Vec<String>)> {
    let read = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let planted = line["backwards"].as_array().unwrap().iter();
        let planted: Vec<String> = planted
            .map(|value| value.as_str().unwrap().chars().rev().collect())
            .collect();
        let mut text = line["text"].as_str().unwrap().to_owned();
        for value in &planted {
            text = text.replacen("{}", value, 1);
        }
        (text, planted)
    };
    PROMPTS.lines().map(read).collect()
}

fn request(query: &str) -> EscalationRequest {
    Question::new(query).into_request(RequestId::from_u128(1))
}

fn hidden(query: &str) -> (String, Mapping) {
    let mut request = request(query);
    let mapping = hide(&Policy::default(), &mut request).unwrap();
    (request.query, mapping)
}

fn chat(dialect: DialectName, body: &Value) -> EscalationRequest {
    let body = RawValue::from_string(body.to_string()).unwrap();
    EscalationRequest {
        chat: Some(Chat { dialect, body }),
        ..request("")
    }
}

fn hidden_body(body: &Value) -> (Value, Mapping) {
    let mut request = chat(DialectName::Openai, body);
    let mapping = hide(&Policy::default(), &mut request).unwrap();
    let body = request.chat.unwrap().body;
    (serde_json::from_str(body.get()).unwrap(), mapping)
}

#[test]
fn of_two_hundred_prompts_nothing_planted_is_left_and_everything_comes_back() {
    let prompts = prompts();
    assert!(prompts.len() >= 200, "{}", prompts.len());
    for (text, planted) in prompts {
        assert!(planted.iter().all(|value| text.contains(value.as_str())));
        let (query, mapping) = hidden(&text);
        for value in &planted {
            assert!(
                !query.contains(value.as_str()),
                "{value} is left of {text}: {query}"
            );
        }
        let back = Restorer::whole(&Arc::new(mapping), Form::Text, query);
        assert_eq!(back, text);
    }
}

#[test]
fn the_same_prompts_in_chat_bodies_leave_nothing_either_and_stay_json() {
    for (text, planted) in prompts() {
        let arguments = json!({"note": text, "n": 1}).to_string();
        let body = json!({
            "model": "m",
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": text}]},
                {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function",
                    "function": {"name": "f", "arguments": arguments}}]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": text},
                    {"type": "tool_use", "id": "c2", "name": "g", "input": {"deep": [{"x": text}]}},
                ]},
            ],
        });
        let (out, mapping) = hidden_body(&body);
        let written = out.to_string();
        for value in &planted {
            let escaped = json::escaped(value);
            assert!(
                !written.contains(&escaped),
                "{value} is left of {text}: {written}"
            );
        }
        // Still arguments: JSON inside of a string.
        let inner = out["messages"][1]["tool_calls"][0]["function"]["arguments"]
            .as_str()
            .unwrap();
        let mapping = Arc::new(mapping);
        let back = Restorer::whole(&mapping, Form::Json, inner.to_owned());
        assert_eq!(
            serde_json::from_str::<Value>(&back).unwrap()["n"],
            1,
            "{back}"
        );
        let text_out = out["messages"][0]["content"][0]["text"].as_str().unwrap();
        assert_eq!(
            Restorer::whole(&mapping, Form::Text, text_out.to_owned()),
            text
        );
    }
}

#[test]
fn every_text_of_a_request_is_looked_at_and_one_value_has_one_token() {
    let mail = "ada@example.com";
    let mut request = Question::new(format!("q {mail}"))
        .system(format!("s {mail}"))
        .framing(format!("f {mail} b@example.com"))
        .constraint(format!("c {mail}"))
        .turn(Role::User, format!("t {mail}"), UnixMillis(1))
        .knowledge(format!("{mail}.txt"), format!("k {mail}"), 1.0)
        .into_request(RequestId::from_u128(1));
    let mapping = hide(&Policy::default(), &mut request).unwrap();
    let context = &request.context;
    assert_eq!(request.query, "q [EMAIL_1]");
    assert_eq!(request.system.as_deref(), Some("s [EMAIL_1]"));
    assert_eq!(context.pathos_framing, "f [EMAIL_1] [EMAIL_2]");
    assert_eq!(context.constraints, ["c [EMAIL_1]"]);
    assert_eq!(context.conversation_history[0].content, "t [EMAIL_1]");
    assert!(!context.local_knowledge[0].source.contains(mail));
    assert_eq!(context.local_knowledge[0].content, "k [EMAIL_1]");
    assert_eq!(mapping.value("[EMAIL_2]"), Some("b@example.com"));
    assert!(!serde_json::to_string(&request).unwrap().contains(mail));
}

#[test]
fn a_conversation_that_grows_keeps_its_tokens() {
    let first = "I am a@example.com.";
    let second = "And b@example.com wrote to a@example.com.";
    let (_, one) = hidden(first);
    let mut longer = Question::new(second)
        .turn(Role::User, first, UnixMillis(1))
        .into_request(RequestId::from_u128(2));
    let two = hide(&Policy::default(), &mut longer).unwrap();
    assert_eq!(
        longer.context.conversation_history[0].content,
        "I am [EMAIL_1]."
    );
    assert_eq!(longer.query, "And [EMAIL_2] wrote to [EMAIL_1].");
    assert_eq!(one.value("[EMAIL_1]"), two.value("[EMAIL_1]"));
}

#[test]
fn a_token_that_a_person_wrote_survives() {
    let (query, mapping) = hidden("[EMAIL_1] is not ada@example.com, [EMAIL_3] neither");
    assert_eq!(query, "[EMAIL_1] is not [EMAIL_2], [EMAIL_3] neither");
    let back = Restorer::whole(&Arc::new(mapping), Form::Text, query);
    assert_eq!(back, "[EMAIL_1] is not ada@example.com, [EMAIL_3] neither");
    // Also when it stands in a chat body, and behind what is hidden.
    let (body, _) = hidden_body(&json!({"a": "x@example.com", "b": "see [EMAIL_1]"}));
    assert_eq!(body, json!({"a": "[EMAIL_2]", "b": "see [EMAIL_1]"}));
}

#[test]
fn a_member_that_is_called_a_secret_is_hidden_whole_and_a_schema_is_left_alone() {
    let (body, mapping) = hidden_body(&json!({
        "input": {"password": "two words", "token": "abc12345", "retries": 3},
        "schema": {"password": {"type": "string"}, "required": ["password"]},
    }));
    assert_eq!(
        body["input"],
        json!({"password": "[SECRET_1]", "token": "[SECRET_2]", "retries": 3})
    );
    assert_eq!(
        body["schema"],
        json!({"password": {"type": "string"}, "required": ["password"]})
    );
    assert_eq!(mapping.value("[SECRET_1]"), Some("two words"));
}

#[test]
fn pictures_are_not_looked_into() {
    // A key's form in the middle of base64, with a border that base64 has too.
    let data = format!("{}/AKIAIOSFODNN7EXAMPLE/{}", "A".repeat(40), "B".repeat(40));
    let body = json!({"image_url": {"url": format!("data:image/png;base64,{data}")}, "source": {"data": data}});
    assert_eq!(hidden_body(&body).0, body);
    let text = json!({"note": data});
    assert_ne!(hidden_body(&text).0, text);
}

#[test]
fn an_untouched_body_stays_byte_for_byte() {
    let raw = "{ \"n\" : 1.0e5,\n \"t\":\"\\u00e9\" }";
    let body = RawValue::from_string(raw.to_owned()).unwrap();
    let mut request = EscalationRequest {
        chat: Some(Chat {
            dialect: DialectName::Anthropic,
            body,
        }),
        ..request("")
    };
    assert!(hide(&Policy::default(), &mut request).unwrap().is_empty());
    assert_eq!(request.chat.unwrap().body.get(), raw);
}

#[test]
fn escapes_hide_nothing_from_the_patterns() {
    let body = RawValue::from_string(r#"{"t":"ada\u0040example.com"}"#.to_owned()).unwrap();
    let mut escaped = EscalationRequest {
        chat: Some(Chat {
            dialect: DialectName::Openai,
            body,
        }),
        ..request("")
    };
    assert_eq!(hide(&Policy::default(), &mut escaped).unwrap().len(), 1);
    let body = RawValue::from_string(r#"{"t":"\ud800"}"#.to_owned()).unwrap();
    let mut lone = EscalationRequest {
        chat: Some(Chat {
            dialect: DialectName::Openai,
            body,
        }),
        ..request("")
    };
    let refused = hide(&Policy::default(), &mut lone);
    assert!(
        matches!(refused, Err(NotSent::Unreadable(_))),
        "{refused:?}"
    );
}

#[test]
fn the_mode_decides_what_is_done() {
    let policy = |mode| Policy {
        mode,
        ..Policy::default()
    };
    let text = "a@example.com, b@example.com, 4242 4242 4242 4242";
    let mut off = request(text);
    assert!(hide(&policy(Mode::Off), &mut off).unwrap().is_empty());
    assert_eq!(off.query, text);
    let refused = hide(&policy(Mode::Block), &mut request(text))
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("1 CARD, 2 EMAIL") && !refused.contains("example"),
        "{refused}"
    );
    assert!(hide(&policy(Mode::Block), &mut request("nothing here")).is_ok());
    let own = Custom::new("CODENAME", "falcon").unwrap();
    let strict = Policy {
        mode: Mode::On,
        patterns: Patterns::new(true, vec![own]).unwrap(),
    };
    let mut asked = request("falcon runs at 10.0.0.7 from /srv/falcon/bin");
    let mapping = hide(&strict, &mut asked).unwrap();
    assert_eq!(
        asked.query,
        "[CODENAME_1] runs at [IPV4_1] from [CODENAME_2]"
    );
    assert_eq!(mapping.value("[CODENAME_2]"), Some("/srv/falcon/bin"));
}

#[test]
fn a_mapping_survives_being_kept() {
    let (_, mapping) = hidden("ada@example.com");
    let kept = serde_json::to_string(&mapping).unwrap();
    assert_eq!(kept, r#"{"[EMAIL_1]":"ada@example.com"}"#);
    assert_eq!(serde_json::from_str::<Mapping>(&kept).unwrap(), mapping);
}

proptest! {
    /// A model that says everything back, cut anywhere.
    #[test]
    fn what_comes_back_is_what_was_asked_however_it_is_cut(
        picks in prop::collection::vec(0_usize..10_000, 1..4),
        cuts in prop::collection::vec(0_usize..10_000, 0..16),
    ) {
        let prompts = prompts();
        let chosen: Vec<_> = picks.iter().map(|pick| &prompts[pick % prompts.len()]).collect();
        let texts: Vec<&str> = chosen.iter().map(|(text, _)| text.as_str()).collect();
        let text = texts.join("\n\n");
        let (query, mapping) = hidden(&text);
        for (_, planted) in &chosen {
            for value in planted {
                prop_assert!(!query.contains(value.as_str()), "{} is left", value);
            }
        }
        let mut cuts: Vec<usize> = cuts.into_iter()
            .map(|cut| query.floor_char_boundary(cut % (query.len() + 1))).collect();
        cuts.extend([0, query.len()]);
        cuts.sort_unstable();
        let mut restorer = Restorer::new(Arc::new(mapping), Form::Text);
        let mut back = String::new();
        for cut in cuts.windows(2) {
            back.push_str(&restorer.push(query[cut[0]..cut[1]].to_owned()));
        }
        back.push_str(&restorer.finish());
        prop_assert_eq!(back, text);
    }
}
