//! One layer over the other: the defaults, the file, the environment, flags.

use std::collections::BTreeSet;

use super::shape::{File, Partial};
use super::{DOCUMENTED, Sources};

/// Before the path of a setting in the environment.
const ENVIRONMENT: &str = "SYNESIS_GATEWAY_";

/// All settings: what the text does not say is the default, what the environment or a flag says goes
/// before both.
pub(super) fn read(text: &str, sources: Sources<'_>) -> Result<File, String> {
    let unreadable = |error: toml::de::Error| shown(&error, text);
    let said: toml::Table = toml::from_str(text).map_err(unreadable)?;
    // Once as it stands, so that an unknown or ill-typed setting is shown with its line.
    let _shape: Partial = toml::from_str(text).map_err(unreadable)?;
    let mut merged: toml::Table = toml::from_str(DOCUMENTED).map_err(|error| error.to_string())?;
    overlay(&mut merged, said);
    for path in scalar_paths(&merged) {
        let name = format!("{ENVIRONMENT}{}", path.replace('.', "_").to_uppercase());
        if let Some(value) = (sources.env)(&name) {
            set(&mut merged, &path, &value).map_err(|what| format!("{name}: {what}"))?;
        }
    }
    for (path, value) in sources.flags {
        set(&mut merged, path, value).map_err(|what| format!("{path}: {what}"))?;
    }
    merged
        .try_into()
        .map_err(|error: toml::de::Error| error.message().to_owned())
}

/// What is wrong with the text, with its line, unless that may hold a secret.
fn shown(error: &toml::de::Error, text: &str) -> String {
    let words = error.to_string();
    let url = words.contains("://") && (words.contains('@') || words.contains("postgres"));
    // Written where the name of a file belongs.
    let secret = ["sk_", "rk_", "whsec_"]
        .iter()
        .any(|prefix| words.contains(prefix));
    if !url && !secret {
        return words;
    }
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = 1 + before.map_or(0, |before| before.matches('\n').count());
    format!("line {line} cannot be read, or is no setting (it may hold a secret, and is not shown)")
}

fn overlay(base: &mut toml::Table, over: toml::Table) {
    for (name, value) in over {
        match (base.get_mut(&name), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(value)) => overlay(inner, value),
            (_, value) => {
                base.insert(name, value);
            }
        }
    }
}

/// The paths of all settings that have one value.
fn scalar_paths(table: &toml::Table) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (name, value) in table {
        if let toml::Value::Table(inner) = value {
            paths.extend(inner.keys().map(|key| format!("{name}.{key}")));
        } else if !value.is_array() {
            paths.insert(name.clone());
        }
    }
    paths
}

/// Sets one value from text, of the type that it has already.
fn set(table: &mut toml::Table, path: &str, text: &str) -> Result<(), String> {
    let (table, name) = match path.split_once('.') {
        Some((outer, name)) => {
            let inner = table.get_mut(outer).and_then(toml::Value::as_table_mut);
            (inner.ok_or("there is no such setting")?, name)
        }
        None => (table, path),
    };
    let slot = table.get_mut(name).ok_or("there is no such setting")?;
    *slot = if slot.is_integer() {
        toml::Value::Integer(text.parse().map_err(|_| "must be a number".to_owned())?)
    } else if slot.is_bool() {
        toml::Value::Boolean(
            text.parse()
                .map_err(|_| "must be true or false".to_owned())?,
        )
    } else {
        toml::Value::String(text.to_owned())
    };
    Ok(())
}
