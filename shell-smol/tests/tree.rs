//! No tokio in this shell, no runtime at all in what the shells share, and nothing that brings one:
//! the trees of what they are built from are walked, as cargo itself sees them. That the walk finds
//! one where there is one is shown too: a check that cannot fail is no check.

use std::error::Error;
use std::process::Command;

type Outcome = Result<(), Box<dyn Error>>;

/// Runtimes other than smol, and what comes with them.
const OTHER_RUNTIMES: &[&str] = &[
    "tokio",
    "tokio-util",
    "tokio-rustls",
    "mio",
    "hyper",
    "hyper-util",
    "h2",
    "axum",
    "reqwest",
    "async-std",
    "async-global-executor",
    "quinn",
    "mesh-tokio",
];

/// smol, and what it is made of.
const SMOL: &[&str] = &[
    "smol",
    "async-io",
    "async-executor",
    "async-net",
    "async-process",
    "async-signal",
    "blocking",
    "futures-executor",
    "polling",
    "mesh-smol",
];

/// The packages that a package is built from, tests and benches aside, one `name v1.2.3` a line.
/// For the package alone: what another member asks of a shared dependency is not counted in.
fn tree(package: &str) -> Result<String, Box<dyn Error>> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "-p", package, "-e", "normal,build"])
        .args(["--prefix", "none", "--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Which of these packages are in a tree.
fn found<'a>(packages: &[&str], tree: &'a str) -> Vec<&'a str> {
    let names = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    names.filter(|name| packages.contains(name)).collect()
}

#[test]
fn nothing_that_this_shell_is_built_from_is_another_runtime() -> Outcome {
    let tree = tree("mesh-smol")?;
    for wanted in ["smol v2.", "async-io v2.", "quinn-udp v", "mesh-core v"] {
        assert!(
            tree.lines().any(|line| line.starts_with(wanted)),
            "{wanted}: {tree}"
        );
    }
    assert_eq!(found(OTHER_RUNTIMES, &tree), Vec::<&str>::new());
    Ok(())
}

#[test]
fn nothing_that_the_shells_share_is_built_from_is_a_runtime() -> Outcome {
    let tree = tree("mesh-shell")?;
    for wanted in ["mesh-shell v", "mesh-core v", "rustls v"] {
        assert!(
            tree.lines().any(|line| line.starts_with(wanted)),
            "{wanted}: {tree}"
        );
    }
    let runtimes = [OTHER_RUNTIMES, SMOL].concat();
    assert_eq!(found(&runtimes, &tree), Vec::<&str>::new());
    Ok(())
}

#[test]
fn the_walk_finds_a_runtime_where_there_is_one() -> Outcome {
    let other = tree("mesh-tokio")?;
    for wanted in ["tokio", "hyper", "reqwest", "mio"] {
        assert!(found(OTHER_RUNTIMES, &other).contains(&wanted), "{wanted}");
    }
    let own = tree("mesh-smol")?;
    for wanted in SMOL.iter().filter(|name| **name != "futures-executor") {
        assert!(found(SMOL, &own).contains(wanted), "{wanted}");
    }
    let planted = "mesh-smol v0.1.0 (/shell-smol)\nsmol v2.0.2\n    tokio v1.54.1 (*)\nmionic v1";
    assert_eq!(found(OTHER_RUNTIMES, planted), ["tokio"]);
    Ok(())
}
