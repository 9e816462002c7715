//! A client's body on its way to the provider.
//!
//! Where both speak the same dialect, the body goes on as it is, but for the model, the longest
//! answer and the stream. Fields that would make the provider do what no hold covers, or answer in a
//! form that is not carried back, are refused.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::fields::{BadField, Fields};
use super::translate;
use crate::dialect::{MaxTokensField, Target};
use crate::limits;
use crate::privacy::json as strings;
use crate::wire::message::{Chat, DialectName};

/// OpenAI's fields whose effect is not carried back or not charged.
const OPENAI_REFUSED: [&str; 6] = [
    "audio",
    "functions",
    "function_call",
    "top_logprobs",
    "web_search_options",
    "prediction",
];
/// Anthropic's fields of that kind.
const ANTHROPIC_REFUSED: [&str; 2] = ["container", "mcp_servers"];
/// Beginnings of the names of tools that Anthropic runs itself, for a charge of its own.
const ANTHROPIC_SERVER_TOOLS: [&str; 4] = ["web_search", "web_fetch", "code_execution", "mcp"];

/// The provider's body, and a bound of the prompt's tokens.
pub(in crate::dialect) fn build(
    target: &Target<'_>,
    chat: &Chat,
    max_tokens: u32,
) -> Result<(Vec<u8>, u64), BadField> {
    let text = chat.body.get();
    let fields = Fields::read(text)?;
    match chat.dialect {
        DialectName::Openai => check_openai(&fields)?,
        DialectName::Anthropic => check_anthropic(&fields)?,
    }
    let body = match (chat.dialect, target.dialect) {
        (DialectName::Openai, DialectName::Openai) => openai(target, fields, max_tokens)?,
        (DialectName::Anthropic, DialectName::Anthropic) => anthropic(target, fields, max_tokens)?,
        (DialectName::Openai, DialectName::Anthropic) => {
            written(&translate::to_anthropic(target, &fields, max_tokens)?)?
        }
        (DialectName::Anthropic, DialectName::Openai) => {
            written(&translate::to_openai(target, &fields, max_tokens)?)?
        }
    };
    let tokens = input_tokens_max(&body)?;
    Ok((body, tokens))
}

fn unwritable() -> BadField {
    BadField::new("the body", "cannot be written as JSON")
}

fn written(value: &Value) -> Result<Vec<u8>, BadField> {
    serde_json::to_vec(value).map_err(|_| unwritable())
}

fn raw(value: &Value) -> Result<Box<RawValue>, BadField> {
    serde_json::value::to_raw_value(value).map_err(|_| unwritable())
}

fn check_openai(fields: &Fields<'_>) -> Result<(), BadField> {
    if let Some(name) = OPENAI_REFUSED.into_iter().find(|name| fields.has(name)) {
        return Err(BadField::not_carried(name));
    }
    if fields.optional::<u32>("n")?.is_some_and(|n| n != 1) {
        return Err(BadField::new("n", "must be 1"));
    }
    if fields.optional::<bool>("logprobs")? == Some(true) {
        return Err(BadField::not_carried("logprobs"));
    }
    let modalities: Option<Vec<String>> = fields.optional("modalities")?;
    if modalities.is_some_and(|kinds| kinds.iter().any(|kind| kind != "text")) {
        return Err(BadField::new("modalities", "must be text only"));
    }
    Ok(())
}

fn check_anthropic(fields: &Fields<'_>) -> Result<(), BadField> {
    if let Some(name) = ANTHROPIC_REFUSED.into_iter().find(|name| fields.has(name)) {
        return Err(BadField::not_carried(name));
    }
    let tools: Vec<Value> = fields.optional("tools")?.unwrap_or_default();
    for (at, tool) in tools.iter().enumerate() {
        let kind = tool["type"].as_str().unwrap_or_default();
        let server = ANTHROPIC_SERVER_TOOLS
            .iter()
            .any(|name| kind.starts_with(name));
        if server {
            return Err(BadField::not_carried(format!("tools[{at}].type")));
        }
    }
    Ok(())
}

fn openai(
    target: &Target<'_>,
    mut fields: Fields<'_>,
    max_tokens: u32,
) -> Result<Vec<u8>, BadField> {
    let (model, max_tokens) = (raw(&json!(target.model))?, raw(&json!(max_tokens))?);
    let (stream, options) = (raw(&json!(true))?, raw(&json!({"include_usage": true}))?);
    let mut fields = {
        fields.remove("max_tokens");
        fields.remove("max_completion_tokens");
        fields
    };
    fields.set("model", &model);
    fields.set("stream", &stream);
    fields.set("stream_options", &options);
    let name = match target.max_tokens_field {
        MaxTokensField::MaxTokens => "max_tokens",
        MaxTokensField::MaxCompletionTokens => "max_completion_tokens",
    };
    fields.set(name, &max_tokens);
    fields.write().map_err(|_| unwritable())
}

fn anthropic(
    target: &Target<'_>,
    fields: Fields<'_>,
    max_tokens: u32,
) -> Result<Vec<u8>, BadField> {
    let (model, max_tokens) = (raw(&json!(target.model))?, raw(&json!(max_tokens))?);
    let stream = raw(&json!(true))?;
    let mut fields = fields;
    fields.set("model", &model);
    fields.set("max_tokens", &max_tokens);
    fields.set("stream", &stream);
    fields.write().map_err(|_| unwritable())
}

/// No tokenizer makes more of a body: a token stands for at least one byte of UTF-8, a message has a
/// fixed allowance, and a picture or a file, whose bytes are no text, one of its own.
fn input_tokens_max(body: &[u8]) -> Result<u64, BadField> {
    let text = std::str::from_utf8(body).map_err(|_| unwritable())?;
    let mut tokens = limits::TEMPLATE_TOKENS_MAX.saturating_add(text.len() as u64);
    strings::rewrite(text, |literal| {
        match (literal.is_name, literal.of, literal.text.as_ref()) {
            (true, _, "role") => tokens = tokens.saturating_add(limits::MESSAGE_TOKENS_MAX),
            (false, Some("type"), "image_url" | "image" | "document" | "file" | "input_audio") => {
                tokens = tokens.saturating_add(limits::MEDIA_TOKENS_MAX);
            }
            _ if strings::is_media(literal) => {
                tokens = tokens.saturating_sub(literal.text.len() as u64);
            }
            _ => {}
        }
        None
    })
    .map_err(|half| BadField::new("the body", half.to_string()))?;
    Ok(tokens)
}
