//! Messages against JSON written by hand, and there and back again.

use super::*;
use crate::ids::{DeviceId, RequestId};
use crate::time::UnixMillis;
use crate::wire::message::{Call, Cancel, Hello, StreamChunk};
use proptest::prelude::*;

fn cancel() -> Message {
    Message::Cancel(Cancel {
        request_id: RequestId::from_u128(0xAB),
    })
}

#[test]
fn a_frame_is_the_bytes_written_by_hand() {
    let mut out = b"before".to_vec();
    encode(&cancel(), &mut out).unwrap();
    let json = r#"{"type":"Cancel","data":{"request_id":"req_000000000000000000000000000000ab"}}"#;
    let mut expected = b"before\x14\x00\x00\x00\x4e".to_vec();
    assert_eq!(json.len(), 0x4e);
    expected.extend_from_slice(json.as_bytes());
    assert_eq!(out, expected);
}

#[test]
fn the_envelope_may_come_in_either_order_and_with_more_fields() {
    let json = br#"{"data":{"device_id":"device-00000000-0000-0000-0000-000000000001","agent":"a","new":1},"x":2,"type":"Hello"}"#;
    let Ok(Message::Hello(hello)) = decode(FrameType::Hello, json) else {
        panic!()
    };
    let device_id = DeviceId::from_u128(1);
    assert_eq!(
        hello,
        Hello {
            device_id,
            agent: "a".into(),
            features: vec![]
        }
    );
}

#[test]
fn raw_json_stays_byte_for_byte_what_it_was() {
    let json = r#"{"type":"Call","data":{"id":1,"method":"m","params":{"z": 1.50,  "a":[ ]}}}"#;
    let Ok(Message::Call(call)) = decode(FrameType::Call, json.as_bytes()) else {
        panic!()
    };
    assert_eq!(
        call.params.as_ref().unwrap().get(),
        r#"{"z": 1.50,  "a":[ ]}"#
    );
    let mut out = Vec::new();
    encode(&Message::Call(Call { ..call }), &mut out).unwrap();
    assert!(
        String::from_utf8(out)
            .unwrap()
            .contains(r#"{"z": 1.50,  "a":[ ]}"#)
    );
}

#[test]
fn a_tag_that_disagrees_with_the_type_byte_is_refused() {
    let json = br#"{"type":"Hello","data":{"request_id":"req_000000000000000000000000000000ab"}}"#;
    let error = decode(FrameType::Cancel, json).unwrap_err();
    assert_eq!(
        error,
        MessageError::TagMismatch {
            frame_type: FrameType::Cancel
        }
    );
}

#[test]
fn malformed_payloads_are_refused_without_repeating_them() {
    let deep = "[".repeat(100_000);
    for payload in [
        "",
        "{",
        "null",
        "secret",
        r#"{"type":"Cancel"}"#,
        &deep,
        "\u{0}",
    ] {
        let error = decode(FrameType::Cancel, payload.as_bytes()).unwrap_err();
        assert!(matches!(error, MessageError::Malformed { .. }), "{error}");
        assert!(!error.to_string().contains("secret"));
    }
    let bad_utf8 = b"{\"type\":\"Cancel\",\"data\":{\"request_id\":\"\xFF\"}}";
    assert!(decode(FrameType::Cancel, bad_utf8).is_err());
    assert_eq!(
        decode(FrameType::UploadChunk, b"{}").unwrap_err(),
        MessageError::Binary
    );
}

#[test]
fn a_payload_over_its_limit_is_not_sent_and_leaves_nothing_behind() {
    let chunk = |bytes: usize| {
        Message::StreamChunk(StreamChunk {
            request_id: RequestId::from_u128(1),
            content: "x".repeat(bytes),
            sequence: 0,
            is_final: false,
            delta: None,
        })
    };
    let mut out = b"before".to_vec();
    let frame_type = FrameType::StreamChunk;
    let error = encode(&chunk(262_144), &mut out).unwrap_err();
    assert!(
        matches!(error, EncodeError::TooLong { max: 262_144, .. }),
        "{error}"
    );
    assert_eq!(out, b"before");
    encode(&chunk(262_000), &mut out).unwrap();
    assert_eq!(out[6], frame_type.as_u8());
}

#[test]
fn a_number_that_is_none_is_written_as_null_and_refused_by_the_reader() {
    let vitals = crate::wire::message::Vitals {
        cpu_usage: f32::NAN,
        ..Default::default()
    };
    let beat = Message::Heartbeat(crate::wire::message::Heartbeat {
        device_id: DeviceId::from_u128(1),
        timestamp: UnixMillis(1),
        sequence: 1,
        vitals,
    });
    let mut out = Vec::new();
    encode(&beat, &mut out).unwrap();
    assert!(decode(FrameType::Heartbeat, &out[5..]).is_err());
}

#[test]
fn an_upload_chunk_needs_its_digest() {
    assert_eq!(
        split_upload_chunk(&[0; 31]),
        Err(MessageError::ChunkTooShort { length: 31 })
    );
    assert_eq!(split_upload_chunk(&[7; 33]).unwrap(), (&[7; 32], &[7][..]));
}

#[test]
fn an_upload_chunk_is_the_bytes_written_by_hand() {
    let mut out = b"before".to_vec();
    encode_upload_chunk(&[0xD1; 32], b"abc", &mut out).unwrap();
    let mut expected = b"before\x32\x00\x00\x00\x23".to_vec();
    expected.extend([0xD1; 32]);
    expected.extend(b"abc");
    assert_eq!(out, expected);
    assert_eq!(
        split_upload_chunk(&out[11..]),
        Ok((&[0xD1; 32], &b"abc"[..]))
    );
}

#[test]
fn an_upload_chunk_of_one_mebibyte_is_sent_and_one_more_byte_is_not() {
    let bytes = vec![7; 1_048_577];
    let mut out = Vec::new();
    encode_upload_chunk(&[0; 32], &bytes[1..], &mut out).unwrap();
    assert_eq!(out.len(), 5 + 32 + 1_048_576);
    out.clear();
    let error = encode_upload_chunk(&[0; 32], &bytes, &mut out).unwrap_err();
    assert_eq!(
        error,
        EncodeError::TooLong {
            frame_type: FrameType::UploadChunk,
            length: 1_048_609,
            max: 1_048_608
        }
    );
    assert!(out.is_empty());
}

#[test]
fn a_message_of_exactly_its_limit_is_sent_and_one_more_byte_is_not() {
    let encoded = |letters: usize, out: &mut Vec<u8>| {
        let agent = "a".repeat(letters);
        let device_id = DeviceId::from_u128(1);
        let features = vec![];
        encode(
            &Message::Hello(Hello {
                device_id,
                agent,
                features,
            }),
            out,
        )
    };
    // The same message without a letter, by hand.
    let frame = r#"{"type":"Hello","data":{"device_id":"device-00000000-0000-0000-0000-000000000001","agent":"","features":[]}}"#;
    let letters = 4096 - frame.len();
    let mut out = Vec::new();
    encoded(letters, &mut out).unwrap();
    assert_eq!(out[..5], [0x10, 0x00, 0x00, 0x10, 0x00]);
    assert_eq!(out.len(), 5 + 4096);
    out.clear();
    let error = encoded(letters + 1, &mut out).unwrap_err();
    let (frame_type, length, max) = (FrameType::Hello, 4097, 4096);
    assert_eq!(
        error,
        EncodeError::TooLong {
            frame_type,
            length,
            max
        }
    );
    assert!(out.is_empty());
}

/// The data of one message of every type, all its fields set, as the protocol's table has them.
const WHOLE: [(FrameType, &str); 21] = [
    (
        FrameType::Heartbeat,
        r#"{"device_id":"device-00000000-0000-0000-0000-000000000001","timestamp":1700000000000,"sequence":7,"vitals":{"cpu_usage":0.5,"memory_usage":0.25,"disk_usage":0.75,"gpu_usage":0.125,"gpu_vram_usage":1.0,"gpu_temp_celsius":61.5,"active_sessions":1,"pending_queries":2,"loaded_model":"m"}}"#,
    ),
    (
        FrameType::HeartbeatAck,
        r#"{"sequence":7,"server_time":1700000000001,"latency_ms":12,"pending_messages":1,"server_status":{"status":"degraded","reason":"r"}}"#,
    ),
    (
        FrameType::EscalationRequest,
        r#"{"request_id":"req_000000000000000000000000000000ab","session_id":"s","query":"q","context":{"pathos_framing":"f","local_knowledge":[{"source":"a","content":"b","relevance":0.5}],"conversation_history":[{"role":"assistant","content":"c","timestamp":1}],"constraints":["d"],"user_preferences":{"preferred_language":"de","verbosity":"concise","tone":"casual"}},"model":"auto","max_tokens":1024,"stream":true,"project_id":"p","system":"y","lora_id":"l","timeout_secs":30,"retry_of":"req_000000000000000000000000000000ac","chat":{"dialect":"anthropic","body":{"z":1}}}"#,
    ),
    (
        FrameType::EscalationResponse,
        r#"{"request_id":"req_000000000000000000000000000000ab","content":"c","model_used":"m","tokens_used":{"prompt":9,"completion":8,"cache_read":7,"cache_write":6,"reasoning":5},"cost_cents":1,"cost_nanos":10815000,"base_nanos":10500000,"latency_ms":4,"sources":["s"],"lora_applied":true,"finish_reason":"tool_calls","estimated":true,"body":{"b":[]}}"#,
    ),
    (
        FrameType::StreamChunk,
        r#"{"request_id":"req_000000000000000000000000000000ab","content":"c","sequence":3,"is_final":true,"delta":{"d":0}}"#,
    ),
    (
        FrameType::StreamEnd,
        r#"{"request_id":"req_000000000000000000000000000000ab","tokens_used":{"prompt":1,"completion":2},"cost_cents":0,"cost_nanos":3,"base_nanos":2,"model_used":"m","finish_reason":"cancelled","latency_ms":5,"estimated":true}"#,
    ),
    (
        FrameType::Error,
        r#"{"code":"RATE_LIMITED","message":"m","details":{"a":1},"retryable":true,"retry_after_secs":2,"request_id":"req_000000000000000000000000000000ab"}"#,
    ),
    (
        FrameType::PrewarmSignal,
        r#"{"device_id":"device-00000000-0000-0000-0000-000000000001","timestamp":1,"gpu_usage":0.5,"gpu_temp":81.0,"reason":"r","project_id":"p","lora_id":"l"}"#,
    ),
    (
        FrameType::Hello,
        r#"{"device_id":"device-00000000-0000-0000-0000-000000000001","agent":"a","features":["f"]}"#,
    ),
    (
        FrameType::HelloAck,
        r#"{"epoch":5,"server_time":1,"heartbeat_secs":30,"limits":{"escalations_max":32},"features":[]}"#,
    ),
    (
        FrameType::GoAway,
        r#"{"reconnect_in_ms":1500,"try_for_secs":30,"alternate":"gw2:4443"}"#,
    ),
    (
        FrameType::Resume,
        r#"{"request_id":"req_000000000000000000000000000000ab","next_sequence":4}"#,
    ),
    (
        FrameType::Cancel,
        r#"{"request_id":"req_000000000000000000000000000000ab"}"#,
    ),
    (
        FrameType::ChunkAck,
        r#"{"request_id":"req_000000000000000000000000000000ab","received_through":4}"#,
    ),
    (
        FrameType::Notice,
        r#"{"kind":"low_balance","data":{"nanos":1}}"#,
    ),
    (FrameType::Call, r#"{"id":1,"method":"m","params":[1, 2]}"#),
    (
        FrameType::Reply,
        r#"{"id":1,"error":{"code":"NOT_FOUND","message":"m","retryable":false}}"#,
    ),
    (
        FrameType::UploadBegin,
        r#"{"name":"n","base_model":"b","format":"gguf","size_bytes":9,"sha256":"ab","description":"d"}"#,
    ),
    (
        FrameType::UploadReady,
        r#"{"upload_id":"u","offset":1048576}"#,
    ),
    (FrameType::UploadAck, r#"{"offset":2097152}"#),
    (FrameType::UploadDone, r#"{"adapter_id":"a"}"#),
];

#[test]
fn every_message_is_read_and_written_as_the_protocol_has_it() {
    for (frame_type, data) in WHOLE {
        let json = format!(r#"{{"type":"{}","data":{data}}}"#, frame_type.name());
        let message = decode(frame_type, json.as_bytes()).unwrap();
        let mut out = Vec::new();
        encode(&message, &mut out).unwrap();
        assert_eq!(out[0], frame_type.as_u8());
        let written: serde_json::Value = serde_json::from_slice(&out[5..]).unwrap();
        let by_hand: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(written, by_hand);
        // Once more: what was written by us reads the same.
        let again = decode(frame_type, &out[5..]).unwrap();
        let mut twice = Vec::new();
        encode(&again, &mut twice).unwrap();
        assert_eq!(out, twice);
    }
}

#[test]
fn every_message_is_refused_under_every_other_types_byte() {
    for (frame_type, data) in WHOLE {
        let json = format!(r#"{{"type":"{}","data":{data}}}"#, frame_type.name());
        for other in FrameType::ALL.into_iter().filter(|&t| t != frame_type) {
            assert!(decode(other, json.as_bytes()).is_err(), "{other:?}");
        }
    }
}

#[test]
fn a_message_cut_anywhere_is_refused() {
    for (frame_type, data) in WHOLE {
        let json = format!(r#"{{"type":"{}","data":{data}}}"#, frame_type.name());
        for end in 0..json.len() {
            assert!(decode(frame_type, &json.as_bytes()[..end]).is_err());
        }
    }
}

#[test]
fn a_list_of_the_fields_values_is_no_message() {
    let id = "req_000000000000000000000000000000ab";
    for json in [
        format!(r#"["Cancel",{{"request_id":"{id}"}}]"#),
        format!(r#"{{"type":"Cancel","data":["{id}"]}}"#),
    ] {
        assert!(
            decode(FrameType::Cancel, json.as_bytes()).is_err(),
            "{json}"
        );
    }
    let spaced = format!(" \n{{ \"data\" : {{\"request_id\":\"{id}\"}}, \"type\":\"Cancel\"}}");
    assert!(decode(FrameType::Cancel, spaced.as_bytes()).is_ok());
}

#[test]
fn a_number_that_single_precision_cannot_hold_is_refused() {
    // The largest single is 3.4028234…e38 (IEEE 754).
    for (number, fine) in [("3.4e38", true), ("1e39", false), ("-1e39", false)] {
        for fields in [
            format!(r#""gpu_usage":{number}"#),
            format!(r#""gpu_usage":0.5,"gpu_temp":{number}"#),
        ] {
            let device = "device-00000000-0000-0000-0000-000000000001";
            let json = format!(
                r#"{{"type":"PrewarmSignal","data":{{"device_id":"{device}","timestamp":1,"reason":"r",{fields}}}}}"#
            );
            let read = decode(FrameType::PrewarmSignal, json.as_bytes());
            assert_eq!(read.is_ok(), fine, "{fields}");
        }
    }
}

#[test]
fn a_heartbeat_with_everything_in_it_stays_under_300_bytes_of_data() {
    let (_, data) = WHOLE[0];
    assert!(data.len() <= 300, "{}", data.len());
}

proptest! {
    #[test]
    fn any_text_survives_the_way_there_and_back(content in ".*", sequence: u64, is_final: bool) {
        let request_id = RequestId::from_u128(1);
        let message = Message::StreamChunk(StreamChunk {
            request_id, content: content.clone(), sequence, is_final, delta: None,
        });
        let mut out = Vec::new();
        encode(&message, &mut out).unwrap();
        let length = u32::from_be_bytes([out[1], out[2], out[3], out[4]]) as usize;
        prop_assert_eq!(length, out.len() - 5);
        let Ok(Message::StreamChunk(chunk)) = decode(FrameType::StreamChunk, &out[5..]) else {
            return Err(TestCaseError::fail("not a chunk"));
        };
        prop_assert_eq!((chunk.content, chunk.sequence, chunk.is_final), (content, sequence, is_final));
    }

    #[test]
    fn no_payload_makes_the_reader_panic(
        at in 0usize..22,
        payload in prop::collection::vec(any::<u8>(), 0..200),
        flip in any::<prop::sample::Index>(),
        byte: u8,
    ) {
        let frame_type = FrameType::ALL[at];
        let _ = decode(frame_type, &payload);
        let (frame_type, data) = WHOLE[at % WHOLE.len()];
        let mut json = format!(r#"{{"type":"{}","data":{data}}}"#, frame_type.name()).into_bytes();
        let at = flip.index(json.len());
        json[at] = byte;
        let _ = decode(frame_type, &json);
    }
}
