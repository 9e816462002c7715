//! Memory of an idle tunnel on the gateway, beside a connection of quinn's.
//!
//! A server in a process of its own takes in devices, each with its own certificate, a control
//! stream, a `Hello` and a heartbeat, and then nothing happens. What its anonymous resident memory
//! grew by, divided by the number of devices, is the figure.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write, stdin};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mesh_bench::certs::{Certs, GatewayTls};
use mesh_bench::fleet::{Fleet, Grow, Said, Telling};
use mesh_bench::harness::{Table, machine};
use mesh_bench::peer;
use mesh_bench::tunnel::{self, Bulk, Until};
use mesh_core::billing::price::Price;
use mesh_core::dialect::MaxTokensField;
use mesh_core::gateway::{Admitted, Ask, AskId, Config, Gateway, Input, Model, Output, Told};
use mesh_core::ids::AccountId;
use mesh_core::machine::Machine;
use mesh_core::quic::Quic;
use mesh_core::time::Now;
use mesh_core::wire::message::DialectName;
use mesh_tokio::driver::{Driver, Host, Request, Socket};
use tokio::runtime::Builder;
use tokio::sync::mpsc;

/// Before the first measure, so that what is there once is not counted.
const FIRST: usize = 32;
const DEVICES: usize = 2000;
/// Handshakes are confirmed, delayed acknowledgements sent, timers of the handshake gone.
const SETTLE: Duration = Duration::from_secs(5);

/// Which server, and whether it answers a `Hello`.
const SERVERS: [(&str, &str, bool); 4] = [
    (
        "quinn-by-default",
        "quinn as it comes, a connection with one stream",
        false,
    ),
    ("quinn", "quinn with our settings, the same", false),
    ("quic", "our transport, the same", false),
    ("gateway", "our gateway, a whole tunnel", true),
];

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(server) = std::env::args().nth(1) {
        return serve(&server);
    }
    println!("{}\n", machine());
    let certs = Certs::new()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut table = Table::new(&["server", "of memory each"]);
    for (server, name, greeted) in SERVERS {
        let each = runtime.block_on(measure(&certs, server, greeted))?;
        table.row([name.to_owned(), format!("{:.1} KiB", each / 1024.0)]);
    }
    println!("{DEVICES} idle devices\n\n{table}");
    Ok(())
}

/// The server's memory for each device, bytes.
async fn measure(certs: &Certs, server: &str, greeted: bool) -> Result<f64, Box<dyn Error>> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(server)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let measured = load(certs, &mut child, greeted).await;
    // It ends by itself when its standard input does; this is for the one that hangs.
    child.kill()?;
    child.wait()?;
    measured
}

async fn load(certs: &Certs, child: &mut Child, greeted: bool) -> Result<f64, Box<dyn Error>> {
    let input = child.stdin.as_mut().ok_or("no standard input")?;
    writeln!(input, "{}", certs.gateway().to_line())?;
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().ok_or("no standard output")?).read_line(&mut line)?;
    let gateway: SocketAddr = line.trim().parse()?;

    let fleet = Fleet::new(certs, FIRST + DEVICES, gateway, greeted)?;
    let (tell, mut said) = mpsc::unbounded_channel();
    let (grow, commands) = mpsc::channel(1);
    let driver = Driver::new(tunnel::socket()?, fleet, Telling(tell));
    tokio::spawn(driver.run(commands));

    let mut before = 0;
    for more in [FIRST, DEVICES] {
        before = resident(child.id())?;
        grow.send(Grow(more)).await?;
        match said.recv().await.ok_or("the fleet is gone")? {
            Said::Up => {}
            Said::Lost(reason) => return Err(reason.into()),
        }
        tokio::time::sleep(SETTLE).await;
    }
    let after = resident(child.id())?;
    if let Ok(Said::Lost(reason)) = said.try_recv() {
        return Err(reason.into());
    }
    Ok((after as f64 - before as f64) / DEVICES as f64)
}

/// Anonymous resident memory, bytes (proc_pid_status(5)).
fn resident(process: u32) -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kilobytes.ok_or("no RssAnon")?.parse::<u64>()? * 1024)
}

fn serve(server: &str) -> Result<(), Box<dyn Error>> {
    let mut line = String::new();
    stdin().read_line(&mut line)?;
    let tls = GatewayTls::from_line(&line)?;
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        let _ended = stdin().read_to_end(&mut rest);
        std::process::exit(0);
    });
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match server {
            "quinn" | "quinn-by-default" => {
                let endpoint = match server {
                    "quinn" => peer::gateway(&tls)?,
                    _ => peer::gateway_by_default(&tls)?,
                };
                println!("{}", endpoint.local_addr()?);
                peer::keep_all(endpoint).await?;
            }
            "quic" => {
                let socket = announced()?;
                let bulk = Bulk::new(tunnel::gateway(&tls)?, 0, 1);
                let forever = Until {
                    last: tunnel::Said::Sent,
                    tell: None,
                    received: 0,
                };
                let (_keep, nobody) = mpsc::channel(1);
                Driver::new(socket, bulk, forever).run(nobody).await;
            }
            "gateway" => {
                let socket = announced()?;
                let gateway = Gateway::new(tunnel::gateway(&tls)?, config())?;
                let (tell, told) = mpsc::channel(64);
                Driver::new(socket, gateway, Welcoming { tell })
                    .run(told)
                    .await;
            }
            other => return Err(format!("no server is called {other}").into()),
        }
        Ok(())
    })
}

/// A socket whose address is told on standard output.
fn announced() -> Result<Socket, Box<dyn Error>> {
    let socket = tunnel::socket()?;
    println!("{}", socket.local_addr()?);
    Ok(socket)
}

fn config() -> Config {
    Config {
        models: vec![Model {
            name: "echo".to_owned(),
            provider: "loopback".to_owned(),
            dialect: DialectName::Openai,
            provider_model: "echo".to_owned(),
            max_tokens_field: MaxTokensField::MaxTokens,
            price: Price::FREE,
        }],
        default_model: "echo".to_owned(),
        tunnels_max: 100_000,
        keeping: mesh_core::gateway::Keeping::default(),
        rates: mesh_core::gateway::Rates::default(),
    }
}

/// Lets every device in.
struct Welcoming {
    tell: mpsc::Sender<(AskId, Told)>,
}

impl Host for Welcoming {
    type Machine = Gateway<Quic>;
    type Command = (AskId, Told);

    fn command(
        &mut self,
        now: Now,
        machine: &mut Self::Machine,
        (id, told): Self::Command,
    ) -> Request {
        // An ask that has run out of time needs no answer.
        let _late = machine.handle_input(now, Input::Told { id, told });
        Request::None
    }

    fn output(
        &mut self,
        _now: Now,
        _machine: &Self::Machine,
        output: Output,
    ) -> ControlFlow<(), Request> {
        if let Output::Ask {
            id,
            ask: Ask::Admit { device, .. },
        } = output
        {
            let admitted = Admitted {
                account: AccountId::from_u128(device.as_u128()),
                epoch: 1,
            };
            // Devices come one at a time, so there is room.
            let _full = self.tell.try_send((id, Told::Admitted(Ok(admitted))));
        }
        ControlFlow::Continue(Request::None)
    }

    fn woke(&mut self, _now: Now, _machine: &mut Self::Machine, _asleep: Duration) -> Request {
        Request::None
    }
}
