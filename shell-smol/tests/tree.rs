//! No tokio, and nothing that brings it: the tree of what this shell is built from is walked, as
//! cargo itself sees it. That the walk finds one where there is one is shown too: a check that
//! cannot fail is no check.

use std::error::Error;
use std::process::Command;

type Outcome = Result<(), Box<dyn Error>>;

/// Runtimes other than smol, and what comes with them.
const FORBIDDEN: &[&str] = &[
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

fn forbidden(tree: &str) -> Vec<&str> {
    let names = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    names.filter(|name| FORBIDDEN.contains(name)).collect()
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
    assert_eq!(forbidden(&tree), Vec::<&str>::new());
    Ok(())
}

#[test]
fn the_walk_finds_a_runtime_where_there_is_one() -> Outcome {
    let other = tree("mesh-tokio")?;
    for wanted in ["tokio", "hyper", "reqwest", "mio"] {
        assert!(forbidden(&other).contains(&wanted), "{wanted}");
    }
    let planted = "mesh-smol v0.1.0 (/shell-smol)\nsmol v2.0.2\n    tokio v1.54.1 (*)\nmionic v1";
    assert_eq!(forbidden(planted), ["tokio"]);
    Ok(())
}
