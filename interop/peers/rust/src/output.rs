//! JSON lines on standard output.

use std::{
    io::Write,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use serde_json::{Map, Value, json};

static QUIET: AtomicBool = AtomicBool::new(false);

/// Whether no events shall be printed.
pub fn be_quiet(quiet: bool) {
    QUIET.store(quiet, Relaxed);
}

/// Prints one line at once. Without a reader there is no reason to live on.
pub fn line(value: &Value) {
    let mut text = value.to_string();
    text.push('\n');
    let mut stdout = std::io::stdout().lock();
    if stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .is_err()
    {
        std::process::exit(1);
    }
}

/// Prints the answer to the command `id`.
pub fn answer(id: &Value, result: Result<Map<String, Value>, String>) {
    let mut fields = Map::new();
    fields.insert("id".into(), id.clone());
    fields.insert("ok".into(), result.is_ok().into());
    match result {
        Ok(results) => fields.extend(results),
        Err(error) => drop(fields.insert("error".into(), error.into())),
    }
    line(&Value::Object(fields));
}

/// Whether events shall be printed.
pub fn is_quiet() -> bool {
    QUIET.load(Relaxed)
}

pub fn connection_event(name: &str, peer: &impl ToString) {
    if !is_quiet() {
        line(&json!({"event": name, "peer": peer.to_string()}));
    }
}
