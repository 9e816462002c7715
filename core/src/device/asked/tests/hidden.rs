//! What is private in a question, and what of it is in its answer.

use super::*;

#[test]
fn what_is_private_leaves_as_a_token_and_the_answer_has_it_again() {
    let mut play = Play::established();
    let question = Asking::new("Is ada@example.com valid?").into_request(ID);
    play.give(Input::Escalate(Box::new(question)));
    let stream = StreamId(play.device.transport.streams - 1);
    let sent = &play.device.transport.sent[&(FIRST, stream)];
    let sent = String::from_utf8_lossy(sent).into_owned();
    assert!(
        sent.contains("Is [EMAIL_1] valid?") && !sent.contains("ada"),
        "{sent}"
    );
    let pieces = [
        chunk(0, "Yes: [EMA", false),
        chunk(1, "IL_1], [EMAIL", true),
        end(ID),
    ];
    play.gateway_sends(stream, &pieces);
    assert_eq!(
        play.news(),
        [
            "chunk Yes: ",
            "chunk ada@example.com, ",
            "chunk [EMAIL",
            "ended"
        ]
    );
    let hidden = play.said.iter().find_map(|output| {
        let Output::Answer {
            event: AnswerEvent::Ended(end),
            ..
        } = output
        else {
            return None;
        };
        Some(end.hidden)
    });
    assert_eq!(hidden, Some(1));
}

#[test]
fn a_whole_answer_has_what_was_private_again_and_a_failed_one_what_was_held_back() {
    for (said, news) in [
        (whole("Dear [EMAIL_1]"), vec!["whole Dear ada@example.com"]),
        (
            chunk(0, "Dear [EM", true),
            vec!["chunk Dear ", "chunk [EM", "no"],
        ),
    ] {
        let mut play = Play::established();
        let question = Asking::new("Write to ada@example.com").into_request(ID);
        play.give(Input::Escalate(Box::new(question)));
        let stream = StreamId(play.device.transport.streams - 1);
        play.gateway_sends(stream, &[said, error("no")]);
        assert_eq!(play.news(), news);
    }
}

#[test]
fn a_device_that_blocks_sends_nothing_private_and_says_what_was_found() {
    let mut play = Play::established();
    play.device.config.privacy.mode = Mode::Block;
    let streams = play.device.transport.streams;
    let question = Asking::new("Is ada@example.com valid?").into_request(ID);
    play.give(Input::Escalate(Box::new(question)));
    assert_eq!(play.device.transport.streams, streams);
    let news = play.news().concat();
    assert!(news.contains("1 EMAIL") && !news.contains("ada"), "{news}");
}
