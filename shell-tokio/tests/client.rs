//! The library as another program uses it: a gateway in this process, a real tunnel over loopback.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mesh_core::device::State;
use mesh_core::error::ErrorClass;
use mesh_core::escalation::context::Question;
use mesh_core::identity::api_key::{ApiKey, Scopes};
use mesh_core::identity::join::JoinLine;
use mesh_core::ids::{AccountId, KeyId};
use mesh_core::wire::message::FinishReason;
use mesh_tokio::device::agent::Agent;
use mesh_tokio::device::client::Options;
use mesh_tokio::device::control::{AgentLink, socket_path};
use mesh_tokio::device::credentials::Credentials;
use mesh_tokio::device::enrol::enrol;
use mesh_tokio::driver::Clock;
use mesh_tokio::gateway::config::{Config, Sources};
use mesh_tokio::gateway::server::Server;
use mesh_tokio::gateway::store::{NewAccount, NewKey};
use mesh_tokio::{Client, random};

/// Longer than anything that is not broken takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway with its built-in echo model, and a device enrolled with it.
struct World {
    folder: tempfile::TempDir,
    server: Server,
    credentials: Credentials,
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let anywhere = "127.0.0.1:0".to_owned();
    let flags = [
        ("tunnel.listen", anywhere.clone()),
        ("http.listen", anywhere),
        ("default_model", "loopback".to_owned()),
    ];
    let data_dir = folder.path().join("gateway");
    let sources = Sources {
        env: &|_| None,
        flags: &flags,
        data_dir: &data_dir,
    };
    let config = Config::load(None, sources).unwrap();
    let server = Server::start(config, |_| None).await.unwrap();
    let (now, seed) = (Clock::new().now().wall, random::seed().unwrap());
    let account = AccountId::random(&mut seed.secret("account"));
    let store = server.store();
    store
        .create_account(NewAccount::managed(account, "home"), now)
        .await
        .unwrap();
    let key = ApiKey::random(&mut seed.secret("key"));
    let new = NewKey {
        id: KeyId::random(&mut seed.secret("key id")),
        account,
        label: "test".to_owned(),
        hash: key.hash(),
        scopes: Scopes::DEFAULT,
    };
    store.create_key(new, now).await.unwrap();
    let join = JoinLine {
        url: server.http_url().to_owned(),
        key,
        ca: None,
    };
    let credentials = enrol(&join).await.unwrap();
    World {
        folder,
        server,
        credentials,
    }
}

/// The example of [`Client`]'s documentation, for real.
#[tokio::test]
async fn an_answer_comes_piece_by_piece_and_ends_with_its_receipt() {
    let World {
        server,
        credentials,
        ..
    } = world().await;
    let client = Client::connect(credentials).await.unwrap();

    let mut answer = client
        .escalate_stream(Question::new("Why is the sky blue?"))
        .await
        .unwrap();
    let (mut text, mut pieces) = (String::new(), 0);
    while let Some(piece) = answer.recv_chunk().await.unwrap() {
        text.push_str(&piece);
        pieces += 1;
    }
    assert!(text.contains("Why is the sky blue?"), "{text}");
    assert!(pieces > 5, "{pieces}");
    let receipt = answer.receipt().unwrap();
    assert_eq!(receipt.finish_reason, FinishReason::Stop);
    assert_eq!(receipt.request_id, answer.request_id());

    let whole = client.escalate(Question::new("Whole?")).await.unwrap();
    assert!(whole.content.contains("Whole?"));
    let collected = client
        .escalate_stream(Question::new("Streamed?"))
        .await
        .unwrap();
    assert!(
        collected
            .collect()
            .await
            .unwrap()
            .content
            .contains("Streamed?")
    );
    client.close().await;
    server.stop().await;
}

#[tokio::test]
async fn a_subscription_follows_the_tunnel_and_a_closed_client_refuses() {
    let World {
        server,
        credentials,
        ..
    } = world().await;
    let client = Client::connect(credentials).await.unwrap();
    let standing = client.subscribe();
    {
        let now = standing.borrow();
        assert_eq!(now.state, State::Connected { in_doubt: false });
        assert!(now.handshake.is_some());
    }
    client.escalate(Question::new("why?")).await.unwrap();
    assert!(client.ping().await.unwrap() < PATIENCE);
    let status = client.status().await;
    assert_eq!(
        (
            status.statistics.requests_sent,
            status.statistics.requests_succeeded
        ),
        (1, 1)
    );
    assert_eq!(status.account.unwrap().spent.0, 0);
    client.close().await;
    let refused = client.escalate(Question::new("why?")).await.unwrap_err();
    assert_eq!(refused.class(), ErrorClass::NotConnected);
    server.stop().await;
}

#[tokio::test]
async fn a_question_that_breaks_a_rule_is_refused_before_it_is_sent() {
    let World {
        server,
        credentials,
        ..
    } = world().await;
    let client = Client::connect(credentials).await.unwrap();
    let refused = client.escalate(Question::new("  ")).await.unwrap_err();
    assert_eq!(refused.class(), ErrorClass::Validation);
    let unknown = client
        .escalate(Question::new("why?").model("no-such-model"))
        .await
        .unwrap_err();
    assert!(unknown.code().is_some(), "the gateway's word: {unknown}");
    assert_eq!(client.status().await.statistics.requests_sent, 1);
    client.close().await;
    server.stop().await;
}

#[tokio::test]
async fn a_reader_that_is_slower_than_its_answer_gets_all_of_it() {
    let World {
        server,
        credentials,
        ..
    } = world().await;
    let client = Client::connect(credentials).await.unwrap();
    // The echo comes word by word: far more pieces than wait for a reader.
    let words = "word ".repeat(20_000);
    let mut slow = client
        .escalate_stream(Question::new(words.trim()).max_tokens(128_000))
        .await
        .unwrap();
    // Everything else goes on meanwhile, and has overtaken it when it is over.
    for _ in 0..3 {
        client.escalate(Question::new("why?")).await.unwrap();
    }
    let mut text = String::new();
    while let Some(piece) = slow.recv_chunk().await.unwrap() {
        text.push_str(&piece);
    }
    assert!(text.contains(words.trim()), "{} bytes", text.len());
    client.close().await;
    server.stop().await;
}

#[tokio::test]
async fn the_agent_answers_other_programs_and_survives_hostile_ones() {
    let World {
        folder,
        server,
        credentials,
    } = world().await;
    let device = folder.path().join("device");
    credentials.save(&device).unwrap();
    let agent = Agent::start(&device).unwrap();
    agent.client().connected().await.unwrap();
    let path = socket_path(&device);
    let link = AgentLink::find(&device).await.unwrap().unwrap();
    let conversation = async {
        for line in [
            &b"nonsense\n"[..],
            b"{\"ask\":{}}\n",
            b"\"cancel\"\n",
            b"[[[[\n",
            b"\n",
        ] {
            let answer = hostile(path.clone(), line.to_vec()).await;
            assert!(answer.starts_with("{\"failed\":"), "{line:?}: {answer}");
        }
        let endless = vec![b'7'; mesh_core::limits::CONTROL_LINE_BYTES_MAX + 1];
        let answer = hostile(path.clone(), endless).await;
        assert!(answer.contains("longer than"), "{answer}");
        drop(UnixStream::connect(&path).unwrap());

        let request = Question::new("Still there?").into_request(random::request_id().unwrap());
        let answer = link
            .ask(request.clone())
            .await
            .unwrap()
            .collect()
            .await
            .unwrap();
        assert!(answer.content.contains("Still there?"));
        assert_eq!(
            link.status().await.unwrap().statistics.requests_succeeded,
            1
        );
        assert!(link.ping().await.unwrap() < PATIENCE);
        // The same id once more is the same answer, and another question under it is refused.
        let other = Question::new("Something else?").into_request(request.request_id);
        let again = link.ask(request).await.unwrap().collect().await.unwrap();
        assert_eq!(again, answer);
        let refused = link.ask(other).await.unwrap().collect().await.unwrap_err();
        assert!(
            refused.code().is_some(),
            "the gateway's word reaches the program: {refused}"
        );
    };
    tokio::select! {
        () = agent.serve() => panic!("the agent stopped serving"),
        () = conversation => {}
    }
    agent.stop().await;
    assert!(
        AgentLink::find(&device).await.unwrap().is_none(),
        "no socket is left behind"
    );
    server.stop().await;
}

/// Sends a line and reads until the agent hangs up.
async fn hostile(path: std::path::PathBuf, line: Vec<u8>) -> String {
    let talk = move || {
        let mut stream = UnixStream::connect(path).unwrap();
        // The agent may hang up before it has read all of it.
        let _ = stream.write_all(&line);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    };
    tokio::task::spawn_blocking(talk).await.unwrap()
}

#[tokio::test]
async fn a_client_finds_its_gateway_again_after_a_restart() {
    let World {
        folder,
        server,
        credentials,
    } = world().await;
    let address = server.tunnel_addr();
    let options = Options {
        persistent: true,
        ..Options::default()
    };
    let client = Client::start(credentials, options).unwrap();
    client.connected().await.unwrap();
    let mut standing = client.subscribe();
    server.stop().await;
    let lost = |s: &mesh_tokio::device::status::Standing| !s.is_connected();
    tokio::time::timeout(PATIENCE, standing.wait_for(lost))
        .await
        .unwrap()
        .unwrap();
    let flags = [
        ("tunnel.listen", address.to_string()),
        ("http.listen", "127.0.0.1:0".to_owned()),
        ("default_model", "loopback".to_owned()),
    ];
    let data_dir = folder.path().join("gateway");
    let sources = Sources {
        env: &|_| None,
        flags: &flags,
        data_dir: &data_dir,
    };
    let server = Server::start(Config::load(None, sources).unwrap(), |_| None)
        .await
        .unwrap();
    tokio::time::timeout(PATIENCE, client.connected())
        .await
        .unwrap()
        .unwrap();
    client.escalate(Question::new("why?")).await.unwrap();
    assert_eq!(client.status().await.statistics.reconnections, 1);
    client.close().await;
    server.stop().await;
}
