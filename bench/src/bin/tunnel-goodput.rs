//! Processor time of the tunnel per gigabyte, both ends and the kernel together, beside quinn's.
//!
//! One connection with mutual TLS over loopback carries one stream of bulk; both ends run in this
//! process. The certificates, the windows, the congestion controller and the socket buffers are the
//! same for both.

use std::error::Error;
use std::time::Duration;

use mesh_bench::certs::Certs;
use mesh_bench::harness::{Contender, Table, machine, ratio, take_turns};
use mesh_bench::{peer, tunnel};
use tokio::runtime::{Builder, Runtime};

const ROUNDS: usize = 15;

struct Case {
    name: &'static str,
    threads: usize,
    bytes: u64,
    piece: usize,
}

const CASES: [Case; 3] = [
    Case {
        name: "64 KiB writes, one thread",
        threads: 1,
        bytes: 256 << 20,
        piece: tunnel::WRITE_BYTES,
    },
    Case {
        name: "64 KiB writes, two threads",
        threads: 2,
        bytes: 256 << 20,
        piece: tunnel::WRITE_BYTES,
    },
    Case {
        name: "1 kB writes, two threads",
        threads: 2,
        bytes: 32 << 20,
        piece: 1000,
    },
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("{}\n", machine());
    let certs = Certs::new()?;
    let mut table = Table::new(&["case", "quinn", "ours", "ratio", "quinn", "ours", "spread"]);
    for case in &CASES {
        let runtime = runtime(case.threads)?;
        let mut failed = Vec::new();
        let failures = std::cell::RefCell::new(&mut failed);
        let note = |result: Result<(), Box<dyn Error>>| {
            if let Err(error) = result {
                failures.borrow_mut().push(error.to_string());
            }
        };
        let rounds = take_turns(
            ROUNDS,
            &mut [
                Contender::new("quinn", || {
                    note(runtime.block_on(peer::transfer(&certs, case.bytes, case.piece)));
                }),
                Contender::new("ours", || {
                    note(runtime.block_on(tunnel::transfer(&certs, case.bytes, case.piece)));
                }),
            ],
        );
        if let Some(error) = failed.first() {
            return Err(error.clone().into());
        }
        let [quinn, ours] = &rounds[..] else {
            return Err("two contenders were sent".into());
        };
        table.row([
            case.name.to_owned(),
            per_gigabyte(quinn.cpu(), case.bytes),
            per_gigabyte(ours.cpu(), case.bytes),
            format!("{:.2}×", ratio(ours.cpu(), quinn.cpu())),
            speed(quinn.wall(), case.bytes),
            speed(ours.wall(), case.bytes),
            format!("±{:.0} %", quinn.spread().max(ours.spread()) * 100.0),
        ]);
    }
    println!("{table}");
    Ok(())
}

fn runtime(threads: usize) -> std::io::Result<Runtime> {
    match threads {
        1 => Builder::new_current_thread().enable_all().build(),
        n => Builder::new_multi_thread()
            .worker_threads(n)
            .enable_all()
            .build(),
    }
}

fn per_gigabyte(cpu: Duration, bytes: u64) -> String {
    format!("{:.2} CPU-s/GB", cpu.as_secs_f64() * 1e9 / bytes as f64)
}

fn speed(wall: Duration, bytes: u64) -> String {
    format!("{:.0} MB/s", bytes as f64 / 1e6 / wall.as_secs_f64())
}
