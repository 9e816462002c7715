//! Every bound of the system in one place, each with what happens at it.
//!
//! A bound is a promise about memory and time. "Refused" means that the newcomer gets an error and
//! nothing that was there before is lost.

use std::time::Duration;

/// Frame header: one type byte and a big-endian `u32` length.
pub const FRAME_HEADER_BYTES: usize = 5;
/// Payload of an escalation request or response. Over it: protocol error, seen on the header.
pub const FRAME_ESCALATION_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Payload of an upload chunk: a SHA-256 and at most 1 MiB. Over it: protocol error.
pub const FRAME_UPLOAD_CHUNK_BYTES_MAX: usize = 1024 * 1024 + 32;
/// Payload of calls, replies and stream chunks. Over it: protocol error.
pub const FRAME_MEDIUM_BYTES_MAX: usize = 256 * 1024;
/// Payload of every other frame. Over it: protocol error.
pub const FRAME_SMALL_BYTES_MAX: usize = 4 * 1024;

/// The first memory taken for a payload that comes in several slices. Past it memory at most doubles,
/// up to the payload's length: a header alone claims nothing.
pub const FRAME_CARRY_FIRST_BYTES: usize = 16 * 1024;

/// Frames are coalesced into writes of at least this size when there is that much to write: QUIC
/// walks unacknowledged segments one by one, so many small writes are quadratic.
pub const WRITE_COALESCE_BYTES: usize = 32 * 1024;
/// No coalesced write is larger.
pub const WRITE_COALESCE_BYTES_MAX: usize = 64 * 1024;

/// Outputs a machine holds undrained. Over it: further input is `Rejected(Backlog)`.
pub const OUTPUT_BACKLOG_MAX: usize = 4096;

/// Answers under way at once on one tunnel. Over it: `RATE_LIMITED`.
pub const ESCALATIONS_PER_TUNNEL_MAX: u32 = 32;

/// Idle timeout of a connection: a session outlives a minute's outage.
pub const QUIC_IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Keep-alive: middleboxes forget UDP at about 30 s.
pub const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Characters of a question. Over it: refused on the device, again on the gateway.
pub const QUERY_CHARS_MAX: usize = 100_000;
/// The longest answer that may be asked for, tokens. Over it: refused.
pub const MAX_TOKENS_MAX: u32 = 128_000;
/// The longest answer when nothing is said, tokens.
pub const MAX_TOKENS_DEFAULT: u32 = 1024;
/// Characters of a model's, session's, project's or adapter's name. Over it: refused.
pub const NAME_CHARS_MAX: usize = 128;
/// Passages, turns or constraints of one question. Over it: refused.
pub const CONTEXT_ENTRIES_MAX: usize = 1000;
/// To the first piece of an answer when nothing is said.
pub const ESCALATION_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// To the first piece of an answer at most, seconds. Over it: refused.
pub const ESCALATION_TIMEOUT_SECS_MAX: u32 = 600;
/// To the end of an answer. Over it: ended with what there is.
pub const ESCALATION_TOTAL: Duration = Duration::from_secs(600);

/// Pieces that wait for a missing one. Over it: the answer fails.
pub const REASSEMBLY_WINDOW_CHUNKS_MAX: usize = 256;
/// Bytes that wait for a missing piece. Over it: the answer fails.
pub const REASSEMBLY_WINDOW_BYTES_MAX: usize = 1024 * 1024;

/// One server-sent event of a model server. Over it: the answer fails as too large.
pub const SSE_EVENT_BYTES_MAX: usize = 1024 * 1024;
/// An answer that comes as one JSON body. Over it: the answer fails as too large.
pub const WHOLE_ANSWER_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Text and reasoning of one answer together. Over it: the answer fails as too large.
pub const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Text of one piece; JSON makes at most six bytes of one, so it fits [`FRAME_MEDIUM_BYTES_MAX`].
/// Over it: cut into several.
pub const PIECE_BYTES_MAX: usize = 32 * 1024;
/// What is read of a model server's error body. Over it: the rest is ignored.
pub const ERROR_BODY_BYTES_MAX: usize = 16 * 1024;
/// Characters of a model server's own error message. Over it: cut.
pub const PROVIDER_MESSAGE_CHARS_MAX: usize = 300;
/// Tokens of a prompt or an answer that a model server may claim. Over it: not believed.
pub const TOKENS_CLAIMED_MAX: u64 = 100_000_000;
/// What a chat template adds to a message (role, markers), tokens, for the hold.
pub const MESSAGE_TOKENS_MAX: u64 = 16;
/// What a chat template adds to a prompt (its own default system text), tokens, for the hold.
pub const TEMPLATE_TOKENS_MAX: u64 = 512;
/// How long a model server may ask us to wait; longer is taken as this.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Handshakes under way below which nobody has to prove their address first.
pub const HANDSHAKES_CALM: usize = 64;
/// Handshakes under way at once. Over it: refused, the device backs off.
pub const HANDSHAKES_MAX: usize = 1024;
/// From a connection's handshake to its `Hello`. Over it: closed.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// What a gateway's store may take to answer. Over it: the asker is told to come back, and a late
/// success is given back.
pub const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of half-received messages on one tunnel. Over it: the stream is refused.
pub const TUNNEL_RECEIVE_BYTES_MAX: usize = 24 * 1024 * 1024;
/// Bytes of half-received messages on all tunnels together. Over it: the stream is refused.
pub const GATEWAY_RECEIVE_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Bytes of an answer that are queued for a device before its upstream is read no further.
pub const ANSWER_AHEAD_BYTES: usize = 256 * 1024;
/// Text of one piece on the wire; longer pieces are split. Leaves room for JSON's escapes (at most
/// six bytes for one) within the frame limit.
pub const CHUNK_TEXT_BYTES_MAX: usize = 32 * 1024;
/// Text of an unstreamed answer, kept until it is whole. Over it: ended as too large, with what
/// there is. Leaves room for JSON's escapes of ordinary text within the frame limit.
pub const ANSWER_TEXT_BYTES_MAX: usize = 1024 * 1024;
/// Pieces of one streamed answer that are kept for a device that comes back. Over it: the answer ends
/// as too large, with what there is.
pub const JOURNAL_BYTES_MAX: usize = FRAME_ESCALATION_BYTES_MAX;
/// One finished answer as the store keeps it. Over it: only its charge is kept.
pub const TRANSCRIPT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// All kept answers of one gateway. Over it: the finished go first, the oldest end first; when only
/// running ones are left, the one that grows ends as too large, with what there is.
pub const JOURNALS_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Text of an answer under way to a device that acknowledges pieces. Over it: the next piece waits.
pub const ANSWER_UNACKED_BYTES_MAX: usize = 512 * 1024;
/// A device acknowledges after so many pieces, or after [`ACK_EVERY_BYTES`].
pub const ACK_EVERY_PIECES: u64 = 32;
/// See [`ACK_EVERY_PIECES`]. Well under [`ANSWER_UNACKED_BYTES_MAX`].
pub const ACK_EVERY_BYTES: usize = 64 * 1024;
/// Notices of a limit that a device knows again: one comes twice, with an answer and beside it. Over it
/// the oldest is forgotten.
pub const NOTICES_REMEMBERED: usize = 8;
/// How long an answer is kept after its end when nothing is said. After it: `EXPIRED`.
pub const ANSWER_KEPT: Duration = Duration::from_secs(600);
/// How long an answer that is kept shorter may still take to reach the device that is reading it.
/// After it: `EXPIRED`.
pub const ANSWER_DELIVERY: Duration = Duration::from_secs(120);
/// How long a running answer waits for its device when nothing is said: a session's idle timeout.
/// After it: stopped, unless its provider's are drained.
pub const RESUME_WINDOW: Duration = QUIC_IDLE_TIMEOUT;
/// Silence of a model server after the first piece of an answer. Over it: ended with what there is.
pub const UPSTREAM_IDLE: Duration = Duration::from_secs(120);
/// How often in a row a device asks for an answer to go on without getting one piece more. Over it:
/// the answer fails.
pub const RESUMES_WITHOUT_PROGRESS_MAX: u32 = 3;
/// Questions of one device, and of one account, in a minute when nothing is said. Over it:
/// `RATE_LIMITED`.
pub const REQUESTS_PER_MINUTE: u32 = 100;
/// Answers of one device that run at once when nothing is said. Over it: `RATE_LIMITED`.
pub const ANSWERS_PER_DEVICE_MAX: u32 = ESCALATIONS_PER_TUNNEL_MAX;
/// Answers of one account that run at once on one gateway when nothing is said. Over it:
/// `RATE_LIMITED`.
pub const ANSWERS_PER_ACCOUNT_MAX: u32 = 1024;
/// Attempts at an upstream for one answer, the first included.
pub const UPSTREAM_ATTEMPTS_MAX: u32 = 3;
/// Before the second attempt; doubles with each.
pub const UPSTREAM_RETRY_BASE: Duration = Duration::from_millis(250);
/// Before a settle is tried again; doubles with each, to [`SETTLE_RETRY_MAX`].
pub const SETTLE_RETRY_BASE: Duration = Duration::from_millis(200);
/// How old what is known of an answer's usage may be when its gateway goes down.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// The longest wait before a settle is tried again.
pub const SETTLE_RETRY_MAX: Duration = Duration::from_secs(5);

/// Datagrams in one transmit (generic segmentation offload).
pub const QUIC_SEGMENTS_MAX: usize = 44;
/// Stateless responses and probes that wait to be sent. Over it: dropped, as a full socket would.
pub const QUIC_RESPONSES_MAX: usize = 1024;
/// Bytes buffered for one connection that has not been accepted yet. Over it: dropped.
pub const QUIC_INCOMING_BYTES_MAX: u64 = 64 * 1024;
/// The same for all of them together.
pub const QUIC_INCOMING_TOTAL_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Streams a device may have open at first; doubles as they are used.
pub const QUIC_STREAMS_INITIAL: u32 = 4;
/// Streams a device may ever have open: answers, calls, uploads and the control stream.
pub const QUIC_STREAMS_MAX: u32 = 64;
/// Unread bytes of one stream; of a connection, this for each stream it may have. Over it: the
/// peer must wait.
pub const QUIC_STREAM_WINDOW: u32 = 512 * 1024;
/// Unacknowledged bytes of one connection. Over it: streams wait.
pub const QUIC_SEND_WINDOW: u64 = 2 * 1024 * 1024;
/// What bulk and answers leave free of it, for heartbeats and calls.
pub const QUIC_SEND_RESERVE: u64 = 64 * 1024;
/// Bytes queued on one stream before its owner is told to wait: one coalesced write, for what is on
/// its way has a window of its own, and more only crowds the processor's cache.
pub const QUIC_STREAM_QUEUE_BYTES: usize = 64 * 1024;
/// Small writes of one stream in flight before more of them are gathered into one.
pub const QUIC_SMALL_WRITES_MAX: u32 = 32;
/// Requests of one account under way at once. Over it: `RATE_LIMITED`.
pub const HOLDS_PER_ACCOUNT_MAX: usize = 10_000;
/// A price table from a file. Over it: refused. The largest one published has 2 MB.
pub const PRICE_TABLE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Credits of one account that have not ended. Over it: refused.
pub const CREDITS_PER_ACCOUNT_MAX: usize = 64;
/// Bytes of a provider's key that an account gives. Over it: refused.
pub const PROVIDER_KEY_BYTES_MAX: usize = 1024;
/// Guests of one account. Over it: another is refused.
pub const GUESTS_PER_ACCOUNT_MAX: usize = 256;
/// The name of a payment or of another order. Over it: refused.
pub const REFERENCE_BYTES_MAX: usize = 120;
/// Calls that wait for the store's writer. Over it: refused as busy.
pub const STORE_QUEUE_MAX: usize = 4096;
/// Calls that share one transaction; the others wait for the next.
pub const STORE_BATCH_MAX: usize = 512;
/// Connections of a gateway to its database that write money; an account's calls are all on one.
pub const STORE_WRITERS: usize = 2;
/// A transaction on the database, waiting for locks included. Over it: given up, the connection is closed.
pub const STORE_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(8);
/// To connect to the database. Over it: unreachable.
pub const STORE_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// After a database was unreachable, until it is tried again; doubles to [`STORE_RECONNECT_MAX`].
/// Calls meanwhile are refused at once.
pub const STORE_RECONNECT_BASE: Duration = Duration::from_millis(50);
/// The longest of these.
pub const STORE_RECONNECT_MAX: Duration = Duration::from_secs(5);
/// Times that a transaction is run again that others kept from being carried out. Over it: refused.
pub const STORE_RETRIES_MAX: u32 = 5;
/// How long holds of a gateway outlive its last sign of life in the store when nothing is said. Over it:
/// void. Where the store was away, everybody has this time again.
pub const GATEWAY_LEASE: Duration = Duration::from_secs(60);
/// The shortest of these: a transaction that takes its time is no end of a gateway.
pub const GATEWAY_LEASE_MIN: Duration = Duration::from_secs(15);
/// The longest.
pub const GATEWAY_LEASE_MAX: Duration = Duration::from_secs(3600);
/// How often a gateway gives that sign, at least; one whose lease is shorter six times in it.
pub const GATEWAY_LEASE_RENEWAL: Duration = Duration::from_secs(10);
/// Rows of a list of accounts, keys, devices or revocations. Over it: cut, the first are shown.
pub const STORE_LIST_MAX: usize = 10_000;
/// Entries of a ledger read at once; the rest comes with the next page.
pub const LEDGER_PAGE_MAX: usize = 1000;
/// Devices ever enrolled in one account. Over it: enrolment is refused.
pub const DEVICES_PER_ACCOUNT_MAX: u64 = 10_000;
/// HTTP connections of a gateway at once. Over it: they wait in the listener's queue.
pub const HTTP_CONNECTIONS_MAX: usize = 256;
/// Head of an HTTP request. Over it: refused with 431.
pub const HTTP_HEADER_BYTES_MAX: usize = 16 * 1024;
/// Body of an HTTP request. Over it: `TOO_LARGE`.
pub const HTTP_BODY_BYTES_MAX: usize = 16 * 1024;
/// To the end of an HTTPS handshake. Over it: closed.
pub const HTTP_TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// To the end of an HTTP request's head, silence between requests included. Over it: closed.
pub const HTTP_HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// To the end of an HTTP request's body. Over it: refused.
pub const HTTP_BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Of one HTTP connection. Over it: closed after the answer that is under way.
pub const HTTP_CONNECTION_LIFE: Duration = Duration::from_secs(60);
/// For that last answer, and for those under way when a gateway stops. Over it: cut.
pub const HTTP_LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bad API keys from one address in a minute. At it: `RATE_LIMITED` for the rest of the minute.
pub const HTTP_BAD_KEYS_MAX: u32 = 20;
/// Addresses whose bad keys are counted. Over it: the oldest count is forgotten.
pub const HTTP_BAD_KEY_ADDRESSES_MAX: usize = 1024;
/// How often a device beats when the gateway does not say.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(30);
/// A gateway may ask for other beats within these bounds; over or under is taken as the bound.
pub const HEARTBEAT_EVERY_MIN: Duration = Duration::from_secs(5);
/// See [`HEARTBEAT_EVERY_MIN`]. Half of the idle timeout.
pub const HEARTBEAT_EVERY_MAX: Duration = Duration::from_secs(60);
/// How long the answer to a beat may take. Over it: the tunnel is in doubt.
pub const HEARTBEAT_ACK_TIMEOUT: Duration = Duration::from_secs(10);
/// With something in flight, silence of at least this (or [`SUSPICION_RTTS`] round trips) is doubt.
pub const SUSPICION_SILENCE_MIN: Duration = Duration::from_secs(1);
/// See [`SUSPICION_SILENCE_MIN`].
pub const SUSPICION_RTTS: u32 = 4;
/// While an answer is awaited and nothing is heard, the device probes after so long: a router that has
/// forgotten it lets nothing of the answer through until it says something.
pub const AWAITED_SILENCE: Duration = Duration::from_secs(3);
/// Between two probes of a tunnel in doubt.
pub const PROBE_EVERY: Duration = Duration::from_secs(1);
/// Silence under probing after which a new session is tried beside the old one.
pub const HALF_OPEN_SILENCE: Duration = Duration::from_secs(20);

/// The longest wait before the second retry; it doubles with each.
pub const BACKOFF_BASE: Duration = Duration::from_secs(1);
/// The longest wait before any retry.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A session that lived this long has forgotten the failures before it.
pub const BACKOFF_RESET_AFTER: Duration = Duration::from_secs(30);
/// One first attempt to connect. Over it: failed.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// One attempt to reconnect. Over it: failed, so that a stuck handshake does not eat the recovery.
pub const RECONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a person waits for a tunnel before being told that there is none. Services are more
/// patient.
pub const PERSON_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts to reconnect when nothing is said. Over it: failed, until a command or a new network.
pub const RECONNECT_ATTEMPTS: u32 = 10;

/// GPU load over which a question for the gateway is likely, 0.0–1.0.
pub const PREWARM_GPU_USAGE: f32 = 0.8;
/// GPU temperature over which a question for the gateway is likely, degrees Celsius.
pub const PREWARM_GPU_CELSIUS: f32 = 80.0;
/// Between two pre-warm signals of one device, at least.
pub const PREWARM_EVERY: Duration = Duration::from_secs(60);
/// Characters of a locally loaded model's name in the vitals. Over it: the vitals are refused.
pub const LOADED_MODEL_CHARS_MAX: usize = 128;

/// Addresses of a gateway that are tried. Over it: the rest is left out.
pub const GATEWAY_ADDRESSES_MAX: usize = 8;
/// Before the next address is tried beside the first (RFC 8305 §5).
pub const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// Questions and calls under way on a device. Over it: refused as busy.
pub const ASKED_MAX: usize = 256;
/// How long a typed call may take, waiting included.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of text that make about one token, for estimates where nobody counted. English prose under
/// the common byte-pair vocabularies averages a little over four.
pub const BYTES_PER_TOKEN: u64 = 4;
/// For a model server to count tokens: less than its asker waits.
pub const COUNT_TIMEOUT: Duration = Duration::from_secs(8);
/// What a device waits beyond the gateway's own deadline for an answer.
pub const ANSWER_GRACE: Duration = Duration::from_secs(30);

/// Silence of a gateway in the middle of an answer whose tunnel lives, when nothing is said: what the
/// gateway itself allows its model server, and a grace. Over it: the answer fails with what there is.
pub const ANSWER_IDLE: Duration = UPSTREAM_IDLE.saturating_add(ANSWER_GRACE);
/// The least that may be set.
pub const ANSWER_IDLE_MIN: Duration = Duration::from_secs(1);
/// After something worth keeping happened to a question, until it is written down: what is over
/// sooner costs no write.
pub const UNFINISHED_FIRST: Duration = Duration::from_millis(50);
/// Between two writes of what a device keeps.
pub const UNFINISHED_EVERY: Duration = Duration::from_millis(250);
/// Bytes of it that are written in a second at most: what is large is written less often.
pub const UNFINISHED_BYTES_PER_SEC: usize = 8 * 1024 * 1024;
/// Bytes that a device keeps of all its questions. Over it: first the questions' own bodies are not
/// kept, then whole questions are not; one that nobody reads waits until somebody does.
pub const UNFINISHED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A file of them, with JSON's escapes. Over it: not believed.
pub const UNFINISHED_FILE_BYTES_MAX: usize = 6 * UNFINISHED_BYTES_MAX;
/// Questions that have ended, or that no tunnel was left for, and that nobody has taken. Over it: the
/// oldest is forgotten.
pub const UNFINISHED_MAX: usize = ASKED_MAX;
/// How long they are kept. After it: forgotten.
pub const UNFINISHED_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Text of what is given out again, in one piece.
pub const UNFINISHED_PIECE_BYTES: usize = 64 * 1024;
/// How long after its question was sent an answer may still be had from a gateway: its longest time,
/// and as long as it is kept after that. Over it: it ends with what there is.
pub const UNFINISHED_RESUMABLE: Duration = ESCALATION_TOTAL.saturating_add(ANSWER_KEPT);
/// How long a question that was cancelled while its tunnel was lost waits to tell the gateway, which
/// stops the answer itself by then.
pub const CANCEL_WAITS: Duration = RESUME_WINDOW;

/// Bytes of all files that go along with one question from the command line. Over it: refused.
/// Leaves room for JSON's escapes of ordinary text within [`FRAME_ESCALATION_BYTES_MAX`].
pub const CONTEXT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of one passage that a file is cut into; small enough that a thousand hold any context.
pub const CONTEXT_PASSAGE_BYTES_MAX: usize = 16 * 1024;
/// Turns of a conversation kept on the device. Over it: the oldest are forgotten.
pub const SESSION_TURNS_MAX: usize = 200;
/// Bytes of a conversation kept on the device. Over it: the oldest turns are forgotten.
pub const SESSION_BYTES_MAX: usize = 1024 * 1024;
/// Programs connected to the agent's control socket at once. Over it: refused.
pub const CONTROL_CLIENTS_MAX: usize = 64;
/// A line on the agent's control socket: a question at its largest, with room for its envelope.
/// Over it: refused, and the program is disconnected.
pub const CONTROL_LINE_BYTES_MAX: usize = FRAME_ESCALATION_BYTES_MAX + 4 * 1024;
/// From a program's connection to the agent's control socket to its command. Over it:
/// disconnected.
pub const CONTROL_COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a stopping gateway waits for devices to acknowledge the ends of their answers. Over it:
/// closed all the same.
pub const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(2);
/// Answers under way at a gateway that goes away may take so long to end.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(60);
/// Once nothing runs any more, a store that is away may take so long to come back and have written down
/// what a gateway that goes away still has to say. Over it: the gateway ends, and leaves that.
pub const DRAIN_STORE: Duration = Duration::from_secs(20);
/// All devices of a gateway that goes away have been sent elsewhere after this time.
pub const DRAIN_SPREAD: Duration = Duration::from_secs(10);
/// Of two devices that are sent away one after the other, the second follows at most so much later.
pub const DRAIN_STEP: Duration = Duration::from_millis(50);
/// What a device may take to leave when its turn has come, before its tunnel is closed.
pub const DRAIN_GRACE: Duration = Duration::from_millis(500);
/// The longest address that a gateway may send its devices to, bytes: a name (RFC 1035) and a port.
pub const ALTERNATE_BYTES_MAX: usize = 253 + 6;
/// A webhook's body. Over it: `TOO_LARGE`.
pub const WEBHOOK_BODY_BYTES_MAX: usize = 256 * 1024;
/// A webhook's signature header. Over it: refused.
pub const WEBHOOK_SIGNATURE_BYTES_MAX: usize = 4 * 1024;
/// Signatures in it that are looked at. Over it: refused.
pub const WEBHOOK_SIGNATURES_MAX: usize = 16;
/// Between a webhook's signature and its arrival, either way. Over it: refused.
pub const WEBHOOK_TOLERANCE: Duration = Duration::from_secs(300);
/// The name of a thing of Stripe's. Over it: refused. Fits [`REFERENCE_BYTES_MAX`] with what goes around
/// it.
pub const STRIPE_ID_BYTES_MAX: usize = 100;
/// The least that is paid in at once, cents. Under it: refused.
pub const TOPUP_CENTS_MIN: i64 = 100;
/// The most that is paid in at once, cents. Over it: refused.
pub const TOPUP_CENTS_MAX: i64 = 1_000_000;
/// The address of a page where a top-up is paid. Over it: not given to anybody.
pub const STRIPE_URL_BYTES_MAX: usize = 2048;
/// Attempts at one request to Stripe that follow each other at once, the first included.
pub const PAYMENT_ATTEMPTS_MAX: u32 = 3;
/// Before the second attempt; doubles with each.
pub const PAYMENT_RETRY_BASE: Duration = Duration::from_millis(250);
/// One attempt. Over it: whether Stripe has done it is not known. All of them fit [`STORE_TIMEOUT`].
pub const PAYMENT_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// An answer of Stripe's. Over it: not understood.
pub const PAYMENT_BODY_BYTES_MAX: usize = 1024 * 1024;
/// How long Stripe knows a meter event by its identifier, at least, is a day. A doubtful one is sent
/// again blindly for half of that, so that clocks may be wrong by the other half.
pub const METER_BLIND: Duration = Duration::from_secs(12 * 60 * 60);
/// A secret key of Stripe's, or the secret of its webhooks. Over it: none of Stripe's.
pub const STRIPE_SECRET_BYTES_MAX: usize = 512;
/// The name of a meter's events, Stripe's own bound. Over it: refused as a setting.
pub const METER_NAME_BYTES_MAX: usize = 100;
/// After this a meter event that was sent has been counted, or never will be.
pub const METER_SETTLES: Duration = Duration::from_secs(60 * 60);
/// The oldest moment that a meter event may name: Stripe's 35 days, and a day less.
pub const METER_AGE_MAX: Duration = Duration::from_secs(34 * 24 * 60 * 60);
/// Before a doubtful meter event is sent again; doubles with each.
pub const METER_RETRY_BASE: Duration = Duration::from_secs(30);
/// The longest wait before it.
pub const METER_RETRY_MAX: Duration = Duration::from_secs(60 * 60);
/// Calls of devices that ask Stripe something at once. Over it: `RATE_LIMITED`.
pub const PAYMENT_CALLS_MAX: usize = 16;
/// The shortest wait between two looks at a top-up that nobody waits for.
pub const TOPUP_LOOK_MIN: Duration = Duration::from_secs(30);
/// The longest.
pub const TOPUP_LOOK_MAX: Duration = Duration::from_secs(60 * 60);
/// How long a top-up that is not paid is looked at; Stripe's pages live for a day. Over it: forgotten.
pub const TOPUP_OPEN_MAX: Duration = Duration::from_secs(48 * 60 * 60);
/// How long one that the bank has not said yes to is looked at. Over it: forgotten.
pub const TOPUP_BANK_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A device's own patterns of what is private. Over it: refused.
pub const PRIVACY_CUSTOM_MAX: usize = 64;
/// Memory of one such pattern, compiled. Over it: refused.
pub const PRIVACY_REGEX_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of the name that such a pattern's tokens bear. Over it: refused.
pub const PRIVACY_NAME_BYTES_MAX: usize = 32;
/// Bytes between the brackets of what a person wrote that may look like a token. Over it: it looks
/// like none, for no token of ours is as long.
pub const PRIVACY_TOKEN_BYTES_MAX: usize = PRIVACY_NAME_BYTES_MAX + 24;
/// Bytes from which on base64 in a chat body is a picture, a sound or a file. Under it: text.
pub const PRIVACY_MEDIA_BYTES_MIN: usize = 64;

/// The longest answer when a client's own body says nothing, tokens: what every model can write.
pub const CHAT_MAX_TOKENS_DEFAULT: u32 = 4096;
/// What a picture or a file of a chat body may come to, tokens, for the hold.
pub const MEDIA_TOKENS_MAX: u64 = 16 * 1024;
/// Tool calls of one answer. Over it: the answer fails as too large.
pub const TOOL_CALLS_MAX: usize = 128;
/// Characters of a tool call's id or name. Over it: cut.
pub const TOOL_NAME_CHARS_MAX: usize = 256;
/// Names of a gateway's list of models. Over it: the first are listed.
pub const MODELS_LISTED_MAX: usize = 1000;
/// A client's body on a device's local endpoint. Over it: `TOO_LARGE`. Leaves room for the envelope
/// within [`FRAME_ESCALATION_BYTES_MAX`].
pub const ENDPOINT_BODY_BYTES_MAX: usize = FRAME_ESCALATION_BYTES_MAX - 64 * 1024;
/// A body that the gateway is only to have counted: fits the frame of a call, with room for what hides
/// private data. Over it: `TOO_LARGE`. One that the device's own server counts is bounded as a question is.
pub const COUNT_BODY_BYTES_MAX: usize = FRAME_MEDIUM_BYTES_MAX - 16 * 1024;
/// Connections to a device's local endpoint at once. Over it: they wait in the listener's queue.
pub const ENDPOINT_CONNECTIONS_MAX: usize = 256;
/// From an endpoint's request to the end of its body. Over it: refused.
pub const ENDPOINT_BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// To the first piece of an answer that a client of the endpoint asked for, seconds.
pub const ENDPOINT_TIMEOUT_SECS: u32 = 300;
/// Between two signs of life on a stream of the endpoint; also how long its status waits for the
/// first piece.
pub const ENDPOINT_KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Keys of a device's local endpoint. Over it: refused.
pub const ENDPOINT_KEYS_MAX: usize = 100;
/// Bytes of an `Idempotency-Key`. Over it: refused.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;
