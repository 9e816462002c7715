//! What is asked for again: pieces that are missing, streams that end early, questions over their rate.

use super::*;
use crate::wire::message::{Chat, DialectName};

/// What the device has said on a stream of a connection, in frames.
fn said_on(play: &Play, conn: ConnId, stream: StreamId) -> Vec<Message> {
    let bytes = play.device.transport.sent.get(&(conn, stream));
    let mut decoder = FrameDecoder::new();
    let mut frames = decoder.feed(bytes.map_or(&[], Vec::as_slice));
    let mut messages = Vec::new();
    while let Some(frame) = frames.next() {
        let frame = frame.unwrap();
        messages.push(codec::decode(frame.frame_type, frame.payload).unwrap());
    }
    messages
}

/// The stream that was opened last.
fn last_stream(play: &Play) -> StreamId {
    StreamId(play.device.transport.streams - 1)
}

fn resumes(play: &Play) -> Vec<u64> {
    (0..play.device.transport.streams)
        .flat_map(|stream| said_on(play, FIRST, StreamId(stream)))
        .filter_map(|message| {
            let Message::Resume(resume) = message else {
                return None;
            };
            Some(resume.next_sequence)
        })
        .collect()
}

#[test]
fn pieces_that_never_come_are_asked_for_by_resume_and_what_waited_is_dropped() {
    let mut play = Play::established();
    let stream = play.ask();
    let mut pieces = vec![chunk(0, "a", false)];
    pieces.extend((2..=258).map(|sequence| chunk(sequence, "x", false)));
    play.gateway_sends(stream, &pieces);
    assert_eq!(resumes(&play), [1]);
    let again = [chunk(1, "b", false), chunk(2, "c", true), end(ID)];
    play.gateway_sends(last_stream(&play), &again);
    let news = [
        "chunk a",
        "cut",
        "resumed at 1",
        "chunk b",
        "chunk c",
        "ended",
    ];
    assert_eq!(play.news(), news);
}

#[test]
fn a_stream_that_ends_early_is_gone_on_with_three_times_unless_it_brings_something() {
    let mut play = Play::established();
    play.ask();
    for round in 0..4 {
        // What the first stream brings makes the count begin anew.
        let stream = last_stream(&play);
        if round == 0 {
            play.gateway_sends(stream, &[chunk(0, "a", false)]);
        }
        play.device.transport.ended.push((FIRST, stream));
        let conn = FIRST;
        play.happens(transport::Event::Readable { conn, stream });
        let failed = play.news().iter().any(|news| news == "not understood");
        assert_eq!(failed, round == 3, "{round}");
    }
    assert_eq!(resumes(&play), [1, 1, 1]);
}

#[test]
fn what_is_over_its_rate_is_asked_again_after_its_time_and_counts_once() {
    let mut play = Play::established();
    let stream = play.ask();
    let mut limited = failure("too often");
    limited.code = ErrorCode::RateLimited;
    limited.retry_after_secs = Some(5);
    play.gateway_sends(stream, &[Message::Error(limited.clone())]);
    play.wait(4_999);
    assert_eq!(last_stream(&play), stream);
    play.wait(1);
    let again = last_stream(&play);
    assert!(matches!(
        &said_on(&play, FIRST, again)[..],
        [Message::EscalationRequest(request)] if request.request_id == ID
    ));
    assert_eq!(play.device.stats().requests_sent, 1);
    // 30 s are allowed; 5 are gone.
    limited.retry_after_secs = Some(25);
    play.gateway_sends(again, &[Message::Error(limited)]);
    assert_eq!(play.news(), ["too often"]);
}

/// Its program has a patience of its own and is told how long to wait; one that was cut was taken once,
/// and is asked for again.
#[test]
fn what_a_program_asked_with_its_own_body_and_is_over_its_rate_is_told_to_the_program() {
    let asked_by_a_program = || {
        let mut request = Asking::new("").into_request(ID);
        let body = r#"{"model":"m","messages":[{"role":"user","content":"why?"}]}"#;
        request.chat = Some(Chat {
            dialect: DialectName::Openai,
            body: serde_json::from_str(body).unwrap(),
        });
        let mut play = Play::established();
        play.give(Input::Escalate(Box::new(request)));
        let stream = last_stream(&play);
        (play, stream)
    };
    let mut limited = failure("too often");
    limited.code = ErrorCode::RateLimited;
    limited.retry_after_secs = Some(5);
    let (mut play, stream) = asked_by_a_program();
    play.gateway_sends(stream, &[Message::Error(limited.clone())]);
    assert_eq!(play.news(), ["too often"]);
    let told = play.said.iter().any(|output| {
        let Output::Answer {
            event: AnswerEvent::Failed(AskError::Remote(error)),
            ..
        } = output
        else {
            return false;
        };
        error.retry_after_secs == Some(5)
    });
    assert!(told, "{:?}", play.said);
    play.wait(60_000);
    assert_eq!(last_stream(&play), stream, "it is not asked again");

    // What the gateway has no room for at this moment is not the program's doing.
    let (mut play, stream) = asked_by_a_program();
    let mut busy = limited.clone();
    busy.code = ErrorCode::InProgress;
    play.gateway_sends(stream, &[Message::Error(busy)]);
    play.wait(5_000);
    assert_ne!(last_stream(&play), stream);

    let (mut play, stream) = asked_by_a_program();
    play.gateway_sends(stream, &[chunk(0, "a", false)]);
    play.device.transport.ended.push((FIRST, stream));
    let conn = FIRST;
    play.happens(transport::Event::Readable { conn, stream });
    let again = last_stream(&play);
    assert_ne!(again, stream);
    play.gateway_sends(again, &[Message::Error(limited)]);
    play.wait(5_000);
    assert_ne!(last_stream(&play), again);
    assert!(
        !play.news().contains(&"too often".to_owned()),
        "{:?}",
        play.news()
    );
}

#[test]
fn an_interrupted_answer_is_asked_for_once_more_under_a_new_id_if_nothing_of_it_was_shown() {
    let mut interrupted = failure("restarted");
    interrupted.code = ErrorCode::Interrupted;
    let mut play = Play::established();
    let stream = play.ask();
    play.gateway_sends(stream, &[Message::Error(interrupted.clone())]);
    let again = last_stream(&play);
    let [Message::EscalationRequest(request)] = &said_on(&play, FIRST, again)[..] else {
        panic!("{:?}", said_on(&play, FIRST, again))
    };
    let fresh = request.request_id;
    assert_eq!((fresh == ID, request.retry_of), (false, Some(ID)));
    let piece = StreamChunk {
        request_id: fresh,
        content: "so".to_owned(),
        sequence: 0,
        is_final: true,
        delta: None,
    };
    play.gateway_sends(again, &[Message::StreamChunk(piece), end(fresh)]);
    assert_eq!(play.news(), ["chunk so", "ended"]);

    let mut play = Play::established();
    play.ask();
    for _ in 0..2 {
        let stream = last_stream(&play);
        play.gateway_sends(stream, &[Message::Error(interrupted.clone())]);
    }
    assert_eq!(play.news(), ["restarted"], "once");

    let mut play = Play::established();
    let stream = play.ask();
    let said = [chunk(0, "so", false), Message::Error(interrupted)];
    play.gateway_sends(stream, &said);
    assert_eq!(play.news(), ["chunk so", "restarted"]);
}

#[test]
fn pieces_are_acknowledged_every_thirty_two_or_every_sixty_four_kibibytes() {
    let acks = |play: &Play, stream| -> Vec<u64> {
        let said = said_on(play, FIRST, stream);
        let acks = said.iter().filter_map(|message| {
            let Message::ChunkAck(ack) = message else {
                return None;
            };
            Some(ack.received_through)
        });
        acks.collect()
    };
    let mut play = Play::established();
    let stream = play.ask();
    for sequence in 0..70 {
        play.gateway_sends(stream, &[chunk(sequence, "x", false)]);
    }
    assert_eq!(acks(&play, stream), [31, 63]);
    let long = "x".repeat(32 * 1024);
    play.gateway_sends(stream, &[chunk(70, &long, false)]);
    assert_eq!(acks(&play, stream), [31, 63]);
    play.gateway_sends(stream, &[chunk(71, &long, false)]);
    assert_eq!(acks(&play, stream), [31, 63, 71]);
}
