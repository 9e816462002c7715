//! The core stays pure, and the workspace keeps its promises.
//!
//! Two nets, since each has holes of its own: the sources of core are scanned for clocks, sockets,
//! files, threads, runtimes, chance and unordered maps (outside comments, strings and tests), and
//! the tree of its dependencies is walked for runtimes and sockets. `core/clippy.toml` is a third.
//! Every rule is shown to catch a planted violation: a check that cannot fail is no check.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Words that core's sources do not contain, and why.
const FORBIDDEN: &[(&str, &str)] = &[
    ("Instant::now", "time is an input"),
    ("SystemTime::now", "time is an input"),
    (".elapsed(", "time is an input"),
    ("Utc::now", "time is an input"),
    ("Local::now", "time is an input"),
    ("UnixTime::now", "time is an input"),
    ("UdpSocket", "no sockets"),
    ("TcpStream", "no sockets"),
    ("TcpListener", "no sockets"),
    ("UnixStream", "no sockets"),
    ("ToSocketAddrs", "no name resolution"),
    ("std::fs", "no files"),
    ("fs::", "no files"),
    ("File::", "no files"),
    ("std::env", "configuration is an input"),
    ("env::var", "configuration is an input"),
    ("process::", "no processes"),
    ("stdin", "no terminal"),
    ("stdout", "no terminal"),
    ("stderr", "no terminal"),
    ("std::thread", "no threads"),
    ("thread::", "no threads"),
    ("thread_local", "no threads"),
    ("async", "no runtime"),
    ("await", "no runtime"),
    ("tokio", "no runtime"),
    ("smol", "no runtime"),
    ("async_std", "no runtime"),
    ("mio", "no runtime"),
    ("OsRng", "chance comes from the seed"),
    ("SysRng", "chance comes from the seed"),
    ("ThreadRng", "chance comes from the seed"),
    ("thread_rng", "chance comes from the seed"),
    ("getrandom", "chance comes from the seed"),
    ("rand::rng", "chance comes from the seed"),
    ("rand::random", "chance comes from the seed"),
    ("from_os_rng", "chance comes from the seed"),
    ("new_v4", "chance comes from the seed"),
    ("now_v7", "time and chance are inputs"),
    ("HashMap", "its order is chance"),
    ("HashSet", "its order is chance"),
    ("RandomState", "its order is chance"),
    ("Mutex", "a machine is owned by one task"),
    ("RwLock", "a machine is owned by one task"),
    ("Condvar", "a machine is owned by one task"),
    ("print!", "outputs are returned"),
    ("println!", "outputs are returned"),
    ("eprint!", "outputs are returned"),
    ("eprintln!", "outputs are returned"),
    ("static mut", "no global state"),
];

/// Words allowed in one file after all: (path below `core/src`, word, why). One that is no longer
/// needed fails the scan.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// Packages that nothing core depends on may bring in.
const FORBIDDEN_PACKAGES: &[&str] = &[
    "tokio",
    "tokio-util",
    "tokio-rustls",
    "smol",
    "async-io",
    "async-std",
    "async-executor",
    "async-global-executor",
    "futures-executor",
    "mio",
    "polling",
    "socket2",
    "quinn",
    "quinn-udp",
    "reqwest",
    "hyper",
    "axum",
    "h2",
    "rusqlite",
    "sqlx",
    "rayon",
    "sysinfo",
    "nvml-wrapper",
    // chrono's `clock` feature.
    "iana-time-zone",
];

/// Rust source with comments and the insides of strings and characters blanked, line ends kept.
fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = blank_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(
                chars[at..end]
                    .iter()
                    .map(|&c| if c == '\n' { c } else { ' ' }),
            );
            at = end;
        }
    }
    out
}

/// Where the comment, string or character that begins at `at` ends; `at` itself if none does.
fn blank_end(chars: &[char], at: usize) -> usize {
    let look = |ahead: usize| chars.get(at + ahead).copied().unwrap_or('\0');
    let from = |start: usize, end: char| {
        let found = chars.iter().skip(start).position(|&c| c == end);
        found.map_or(chars.len(), |n| start + n)
    };
    let in_word = at > 0 && is_word(chars[at - 1]) && chars[at - 1] != 'b';
    match look(0) {
        '/' if look(1) == '/' => from(at, '\n'),
        '/' if look(1) == '*' => block_comment_end(chars, at),
        '"' => {
            let mut i = at + 1;
            while i < chars.len() && chars[i] != '"' {
                i += if chars[i] == '\\' { 2 } else { 1 };
            }
            (i + 1).min(chars.len())
        }
        'r' if !in_word && matches!(look(1), '"' | '#') => raw_string_end(chars, at),
        '\'' if look(1) == '\\' => (from(at + 3, '\'') + 1).min(chars.len()),
        '\'' if look(2) == '\'' => at + 3,
        _ => at,
    }
}

/// Block comments nest.
fn block_comment_end(chars: &[char], at: usize) -> usize {
    let mut depth = 1;
    let mut i = at + 2;
    while i < chars.len() && depth > 0 {
        match (chars[i], chars.get(i + 1)) {
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            _ => i += 1,
        }
    }
    i
}

/// A raw string ends with as many `#` as it began with; `at` itself for a raw identifier.
fn raw_string_end(chars: &[char], at: usize) -> usize {
    let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
    let open = at + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return at;
    }
    let closing: Vec<char> = std::iter::once('"')
        .chain(std::iter::repeat_n('#', hashes))
        .collect();
    (open + 1..chars.len())
        .find(|&i| chars[i..].starts_with(&closing))
        .map_or(chars.len(), |i| i + closing.len())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

const TEST_MARK: &str = "#[cfg(test)]";

/// Blanks every item behind `#[cfg(test)]`; the names of modules so marked that have a file of
/// their own.
fn without_tests(code: &str) -> (String, Vec<String>) {
    let mut out = String::with_capacity(code.len());
    let mut modules = Vec::new();
    let mut rest = code;
    while let Some(found) = rest.find(TEST_MARK) {
        out.push_str(&rest[..found]);
        let item = &rest[found + TEST_MARK.len()..];
        let (item, behind) = item.split_at(item_end(item));
        let mut words = item
            .split(|c: char| !is_word(c))
            .filter(|word| !word.is_empty());
        if item.ends_with(';') && words.any(|word| word == "mod") {
            modules.extend(words.next().map(str::to_owned));
        }
        out.extend(item.chars().filter(|&c| c == '\n'));
        rest = behind;
    }
    out.push_str(rest);
    (out, modules)
}

/// Just behind an item: its closing brace, or the semicolon outside of any bracket.
fn item_end(item: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in item.char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    item.len()
}

/// The lines (from 1) in which `word` stands as a word of its own.
fn lines_with(code: &str, word: &str) -> Vec<usize> {
    let found_in = |line: &str| {
        line.match_indices(word).any(|(at, _)| {
            let joined_before = word.starts_with(is_word) && line[..at].ends_with(is_word);
            let joined_after =
                word.ends_with(is_word) && line[at + word.len()..].starts_with(is_word);
            !joined_before && !joined_after
        })
    };
    let numbered = (1..).zip(code.lines());
    numbered
        .filter(|(_, line)| found_in(line))
        .map(|(number, _)| number)
        .collect()
}

/// What is wrong with one file's code, a line each.
fn impurities(path: &str, code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for &(word, why) in FORBIDDEN {
        if EXCEPTIONS
            .iter()
            .any(|&(file, allowed, _)| file == path && allowed == word)
        {
            continue;
        }
        for line in lines_with(code, word) {
            found.push(format!("core/src/{path}:{line}: `{word}`: {why}"));
        }
    }
    found
}

/// Every Rust file below `folder`, sorted.
fn rust_files(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Core's own code: (path below `core/src`, code without comments, strings and tests).
fn core_code() -> Outcome<Vec<(String, String)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut test_files = Vec::new();
    let mut sources = Vec::new();
    for file in rust_files(&root)? {
        let (code, test_modules) = without_tests(&code_only(&std::fs::read_to_string(&file)?));
        let own_folder = file
            .file_name()
            .is_some_and(|name| name == "mod.rs" || name == "lib.rs");
        let folder = if own_folder {
            file.with_file_name("")
        } else {
            file.with_extension("")
        };
        for module in test_modules {
            test_files.push(folder.join(format!("{module}.rs")));
            test_files.push(folder.join(module).join("mod.rs"));
        }
        sources.push((file, code));
    }
    sources.retain(|(file, _)| !test_files.contains(file));
    sources
        .into_iter()
        .map(|(file, code)| {
            Ok((
                file.strip_prefix(&root)?.to_string_lossy().into_owned(),
                code,
            ))
        })
        .collect()
}

/// What cargo prints, run in the workspace without touching the network.
fn cargo(arguments: &[&str]) -> Outcome<String> {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The packages that a package is built from, one `name v1.2.3` a line.
fn tree(package: &str) -> Outcome<String> {
    cargo(&[
        "tree",
        "-p",
        package,
        "-e",
        "normal,build",
        "--prefix",
        "none",
    ])
}

fn forbidden_packages(tree: &str) -> Vec<&str> {
    let names = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| FORBIDDEN_PACKAGES.contains(name))
        .collect()
}

/// The workspace's packages: name and folder.
fn members() -> Outcome<Vec<(String, PathBuf)>> {
    let metadata: serde_json::Value =
        serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps"])?)?;
    let packages = metadata["packages"].as_array().ok_or("no packages")?;
    packages
        .iter()
        .map(|package| {
            let name = package["name"].as_str().ok_or("no name")?;
            let manifest = Path::new(package["manifest_path"].as_str().ok_or("no manifest")?);
            Ok((
                name.to_owned(),
                manifest.parent().ok_or("no folder")?.to_path_buf(),
            ))
        })
        .collect()
}

/// Whether a file of core may name the QUIC library: `quic.rs`, or a file of its module.
fn is_quic(path: &str) -> bool {
    path == "quic.rs" || path.starts_with("quic/")
}

/// Whether a table of a manifest has exactly this line.
fn table_has(manifest: &str, table: &str, line: &str) -> bool {
    let mut inside = false;
    manifest.lines().map(str::trim).any(|here| {
        if here.starts_with('[') {
            inside = here == table;
        }
        inside && here == line
    })
}

fn inherits_lints(manifest: &str) -> bool {
    table_has(manifest, "[lints]", "workspace = true")
}

fn forbids_unsafe(workspace: &str) -> bool {
    table_has(
        workspace,
        "[workspace.lints.rust]",
        r#"unsafe_code = "forbid""#,
    )
}

#[test]
fn the_sources_of_core_have_no_clock_socket_file_thread_runtime_or_chance() -> Outcome<()> {
    let code = core_code()?;
    assert!(code.len() > 10, "only {} files were found", code.len());
    let found: Vec<String> = code
        .iter()
        .flat_map(|(path, code)| impurities(path, code))
        .collect();
    assert!(
        found.is_empty(),
        "core is no longer pure:\n{}",
        found.join("\n")
    );
    for (file, word, why) in EXCEPTIONS {
        let used = code
            .iter()
            .any(|(path, code)| path == file && !lines_with(code, word).is_empty());
        assert!(
            used,
            "the exception for `{word}` in {file} ({why}) is no longer needed"
        );
    }
    Ok(())
}

#[test]
fn nothing_that_core_depends_on_is_a_runtime_or_a_socket() -> Outcome<()> {
    let tree = tree("mesh-core")?;
    assert!(
        tree.lines().any(|line| line.starts_with("quinn-proto v")),
        "{tree}"
    );
    assert_eq!(forbidden_packages(&tree), Vec::<&str>::new());
    Ok(())
}

#[test]
fn the_walk_of_the_tree_finds_the_runtime_where_there_is_one() -> Outcome<()> {
    let shell = tree("mesh-tokio")?;
    assert!(forbidden_packages(&shell).contains(&"tokio"));
    let planted = "mesh-core v0.1.0 (/core)\nbytes v1.12.0\nasync-io v2.6.0\nmionic v1\nmio v1 (*)";
    assert_eq!(forbidden_packages(planted), ["async-io", "mio"]);
    Ok(())
}

#[test]
fn every_forbidden_word_is_found_when_it_is_planted() {
    for (word, _) in FORBIDDEN {
        let planted = format!("fn a() {{}}\nfn b() {{ let x = {word}; }}\n");
        let (code, _) = without_tests(&code_only(&planted));
        let found = impurities("planted.rs", &code);
        let expected = format!("core/src/planted.rs:2: `{word}`:");
        assert!(
            found.iter().any(|line| line.starts_with(&expected)),
            "{word}: {found:?}"
        );
    }
}

#[test]
fn the_scan_sees_through_disguises_and_leaves_comments_strings_and_tests_alone() {
    let found = |source: &str| {
        let (code, _) = without_tests(&code_only(source));
        impurities("sample.rs", &code).len()
    };
    for clean in [
        "// Instant::now",
        "/// A `HashMap` would be\nfn f() {}",
        "/* tokio /* smol */ async */ fn f() {}",
        r#"const A: &str = "Instant::now \" HashMap";"#,
        r##"const A: &str = r#"tokio " smol"#;"##,
        "const A: char = '\"'; // HashMap",
        "fn f<'a>(x: &'a str) -> &'a str { x }",
        "use std::net::{IpAddr, SocketAddr};",
        "use std::time::{Duration, Instant};",
        "struct MyHashMapper; fn asynchronous() {} fn tokio_like() {}",
        "#[cfg(test)]\nmod tests { fn f() { Instant::now(); if true { tokio } } }",
        "#[cfg(test)]\n#[expect(x)]\npub(crate) fn origin(a: [u8; 2]) { Instant::now() }",
        "#[cfg(test)]\nuse std::collections::HashMap;",
    ] {
        assert_eq!(found(clean), 0, "{clean}");
    }
    for impure in [
        "use std::collections::{BTreeMap, HashMap};",
        "fn f() { let t = std::time::Instant::now(); }",
        "const A: &str = \"\"; async fn f() {}",
        "const A: char = '\"'; use tokio::net; // \"",
        "const A: &str = r\"\\\"; fn f(x: &Mutex<u8>) {}",
        "/* /* */ */ fn f() { println!(); }",
        "#[cfg(test)]\nmod tests { fn f() {} }\nfn g() { thread_rng(); }",
        "#[cfg(test)]\nmod tests;\nfn g() { getrandom(); }",
        "#[cfg(any(test, feature = \"x\"))]\nfn g() { getrandom(); }",
    ] {
        assert_ne!(found(impure), 0, "{impure}");
    }
}

#[test]
fn a_file_of_tests_is_known_by_the_module_that_declares_it() {
    let source = "fn a() {}\n#[cfg(test)]\nmod tests;\n#[cfg(test)]\nmod inline { }\nmod real;\n";
    let (code, modules) = without_tests(&code_only(source));
    assert_eq!(modules, ["tests"]);
    assert!(code.contains("mod real;") && !code.contains("inline"));
}

#[test]
fn the_quic_library_is_named_in_one_place_only() -> Outcome<()> {
    let mut files = 0;
    for (name, folder) in members()? {
        let source = folder.join("src");
        for file in rust_files(&source)? {
            files += 1;
            let path = file.strip_prefix(&source)?.to_string_lossy().into_owned();
            if name == "mesh-core" && is_quic(&path) {
                continue;
            }
            let lines = lines_with(&code_only(&std::fs::read_to_string(&file)?), "quinn_proto");
            assert!(
                lines.is_empty(),
                "{name}: {path}: `quinn_proto` in lines {lines:?}"
            );
        }
    }
    assert!(files > 20, "only {files} files were found");
    assert_eq!(lines_with("use quinn_proto::Endpoint;", "quinn_proto"), [1]);
    assert!(is_quic("quic.rs") && is_quic("quic/streams.rs"));
    assert!(!is_quic("device/quic.rs") && !is_quic("quicker.rs"));
    Ok(())
}

/// The one crate that may not forbid it, and its one file with unsafe code: an allocator that counts,
/// for fuzz targets and their replay. It denies it everywhere else, and nothing that ships links it.
const COUNTS_MEMORY: (&str, &str) = ("mesh-fuzz", "memory.rs");

#[test]
fn unsafe_code_is_forbidden_in_every_crate_by_the_workspaces_lints() -> Outcome<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    assert!(forbids_unsafe(&std::fs::read_to_string(workspace)?));
    let members = members()?;
    assert!(members.iter().any(|(name, _)| name == "mesh-core"));
    for (name, folder) in members {
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml"))?;
        if name == COUNTS_MEMORY.0 {
            assert!(manifest.contains("unsafe_code = \"deny\""), "{name}");
            for file in rust_files(&folder.join("src"))? {
                let code = code_only(&std::fs::read_to_string(&file)?);
                let lines = lines_with(&code, "unsafe_code");
                let may = file.ends_with(COUNTS_MEMORY.1);
                assert!(may || lines.is_empty(), "{}: {lines:?}", file.display());
            }
            continue;
        }
        assert!(
            inherits_lints(&manifest),
            "{name} does not take over the workspace's lints"
        );
    }
    Ok(())
}

#[test]
fn a_manifest_without_the_lints_is_noticed() {
    let good = "[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n\n[dependencies]\n";
    assert!(inherits_lints(good));
    assert!(!inherits_lints(&good.replace("[lints]", "[lint]")));
    assert!(!inherits_lints(
        "[lints]\n[dependencies.b]\nworkspace = true\n"
    ));
    let root = "[workspace]\n\n[workspace.lints.rust]\nunsafe_code = \"forbid\"\n";
    assert!(forbids_unsafe(root));
    assert!(!forbids_unsafe(&root.replace("forbid", "deny")));
    assert!(!forbids_unsafe(&root.replace("lints.rust", "lints.clippy")));
}
