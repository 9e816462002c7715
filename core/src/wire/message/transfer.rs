//! Typed calls, and adapters that are uploaded.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::ErrorMessage;

/// Device → gateway, call: one typed call (see `api`).
#[derive(Clone, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the device, echoed in the reply.
    pub id: u64,
    /// Which one.
    pub method: String,
    /// Its parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<Box<RawValue>>,
}

/// Gateway → device, call: exactly one per call.
#[derive(Clone, Serialize, Deserialize)]
pub struct Reply {
    /// The call's id.
    pub id: u64,
    /// Present when it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    /// Present when it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorMessage>,
}

/// Device → gateway, upload, first: announces an adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadBegin {
    /// The adapter's name.
    pub name: String,
    /// The model it was trained for.
    pub base_model: String,
    /// `safetensors` or `gguf`.
    pub format: String,
    /// The file's size.
    pub size_bytes: u64,
    /// The file's SHA-256, lower-case hex.
    pub sha256: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Gateway → device, upload: where to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadReady {
    /// The upload's name, for going on after a drop.
    pub upload_id: String,
    /// The first byte wanted.
    pub offset: u64,
}

/// Gateway → device, upload: durable so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadAck {
    /// Bytes before this one are durable.
    pub offset: u64,
}

/// Gateway → device, upload, last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadDone {
    /// The adapter's id.
    pub adapter_id: String,
}
