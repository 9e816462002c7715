//! From one dialect to the other. What has no counterpart is refused by its name.

use serde_json::{Map, Value, json};

use super::fields::{BadField, Fields};
use crate::dialect::{MaxTokensField, Target};

/// OpenAI's fields that have a counterpart, or change nothing of the answer.
const FROM_OPENAI: [&str; 19] = [
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "stream",
    "stream_options",
    "temperature",
    "top_p",
    "stop",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "user",
    "n",
    "logprobs",
    "modalities",
    "response_format",
    "store",
    "metadata",
];
/// Anthropic's.
const FROM_ANTHROPIC: [&str; 12] = [
    "model",
    "messages",
    "max_tokens",
    "stream",
    "system",
    "temperature",
    "top_p",
    "stop_sequences",
    "tools",
    "tool_choice",
    "metadata",
    "thinking",
];

type Translated<T> = Result<T, BadField>;

fn only(fields: &Fields<'_>, known: &[&str]) -> Translated<()> {
    match fields.names().find(|name| !known.contains(name)) {
        Some(name) => Err(BadField::not_carried(name)),
        None => Ok(()),
    }
}

fn copy(
    fields: &Fields<'_>,
    from: &str,
    to: &str,
    body: &mut Map<String, Value>,
) -> Translated<()> {
    if let Some(value) = fields.optional::<Value>(from)? {
        body.insert(to.to_owned(), value);
    }
    Ok(())
}

fn text_of(value: &Value, place: impl Fn() -> String) -> Translated<&str> {
    value
        .as_str()
        .ok_or_else(|| BadField::new(place(), "must be a string"))
}

fn list(value: Value, place: &str) -> Translated<Vec<Value>> {
    match value {
        Value::Array(list) => Ok(list),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            Err(BadField::new(place, "must be a list"))
        }
    }
}

/// An OpenAI body for a server that speaks Anthropic's dialect.
pub(super) fn to_anthropic(
    target: &Target<'_>,
    fields: &Fields<'_>,
    max_tokens: u32,
) -> Translated<Value> {
    only(fields, &FROM_OPENAI)?;
    let format: Option<Value> = fields.optional("response_format")?;
    if format.is_some_and(|format| format["type"] != "text") {
        return Err(BadField::not_carried("response_format"));
    }
    let mut body = Map::new();
    body.insert("model".to_owned(), target.model.into());
    body.insert("max_tokens".to_owned(), max_tokens.into());
    body.insert("stream".to_owned(), true.into());
    copy(fields, "temperature", "temperature", &mut body)?;
    copy(fields, "top_p", "top_p", &mut body)?;
    if let Some(user) = fields.optional::<String>("user")? {
        body.insert("metadata".to_owned(), json!({"user_id": user}));
    }
    match fields.optional::<Value>("stop")? {
        Some(Value::String(one)) => body.insert("stop_sequences".to_owned(), json!([one])),
        Some(list) => body.insert("stop_sequences".to_owned(), list),
        None => None,
    };
    let mut system = Vec::new();
    let mut turns = Turns::default();
    for (at, message) in list(fields.required("messages")?, "messages")?
        .iter()
        .enumerate()
    {
        openai_message(at, message, &mut system, &mut turns)?;
    }
    if !system.is_empty() {
        body.insert("system".to_owned(), system.join("\n\n").into());
    }
    body.insert("messages".to_owned(), turns.0.into());
    let tools = fields
        .optional("tools")?
        .unwrap_or(Value::Array(Vec::new()));
    let tools = list(tools, "tools")?;
    let translated: Vec<Value> = tools
        .iter()
        .enumerate()
        .map(|(at, tool)| openai_tool(at, tool))
        .collect::<Translated<_>>()?;
    if !translated.is_empty() {
        body.insert("tools".to_owned(), translated.into());
    }
    let parallel: Option<bool> = fields.optional("parallel_tool_calls")?;
    let choice = openai_choice(fields.optional("tool_choice")?, parallel)?;
    if let Some(choice) = choice.filter(|_| !tools.is_empty()) {
        body.insert("tool_choice".to_owned(), choice);
    }
    Ok(body.into())
}

fn openai_tool(at: usize, tool: &Value) -> Translated<Value> {
    if tool["type"] != "function" {
        return Err(BadField::not_carried(format!("tools[{at}].type")));
    }
    let function = &tool["function"];
    let name = text_of(&function["name"], || format!("tools[{at}].function.name"))?;
    let mut out = json!({"name": name, "input_schema": {"type": "object"}});
    if let Some(description) = function["description"].as_str() {
        out["description"] = description.into();
    }
    if function["parameters"].is_object() {
        out["input_schema"] = function["parameters"].clone();
    }
    Ok(out)
}

fn openai_choice(choice: Option<Value>, parallel: Option<bool>) -> Translated<Option<Value>> {
    let named = choice.as_ref().map(|choice| match choice.as_str() {
        Some("auto") => Ok(json!({"type": "auto"})),
        Some("none") => Ok(json!({"type": "none"})),
        Some("required") => Ok(json!({"type": "any"})),
        Some(_) => Err(BadField::not_carried("tool_choice")),
        None if choice["type"] == "function" => {
            let name = text_of(&choice["function"]["name"], || "tool_choice".to_owned())?;
            Ok(json!({"type": "tool", "name": name}))
        }
        None => Err(BadField::not_carried("tool_choice")),
    });
    let named = named.transpose()?;
    if parallel != Some(false) {
        return Ok(named);
    }
    let mut choice = named.unwrap_or_else(|| json!({"type": "auto"}));
    if choice["type"] != "none" {
        choice["disable_parallel_tool_use"] = true.into();
    }
    Ok(Some(choice))
}

/// Anthropic's turns, where two of one role in a row are one.
#[derive(Default)]
struct Turns(Vec<Value>);

impl Turns {
    fn push(&mut self, role: &str, mut blocks: Vec<Value>) {
        if blocks.is_empty() {
            return;
        }
        if let Some(last) = self.0.last_mut()
            && last["role"] == role
            && let Some(content) = last["content"].as_array_mut()
        {
            content.append(&mut blocks);
            return;
        }
        self.0.push(json!({"role": role, "content": blocks}));
    }
}

fn openai_message(
    at: usize,
    message: &Value,
    system: &mut Vec<String>,
    turns: &mut Turns,
) -> Translated<()> {
    let place = || format!("messages[{at}].content");
    match message["role"].as_str() {
        Some("system" | "developer") => {
            for block in openai_content(at, &message["content"])? {
                system.push(text_of(&block["text"], place)?.to_owned());
            }
        }
        Some("user") => turns.push("user", openai_content(at, &message["content"])?),
        Some("assistant") => {
            let mut blocks = openai_content(at, &message["content"])?;
            for call in message["tool_calls"].as_array().into_iter().flatten() {
                blocks.push(openai_call(at, call)?);
            }
            turns.push("assistant", blocks);
        }
        Some("tool") => {
            let place = || format!("messages[{at}].tool_call_id");
            let id = text_of(&message["tool_call_id"], place)?;
            let content = openai_content(at, &message["content"])?;
            let block = json!({"type": "tool_result", "tool_use_id": id, "content": content});
            turns.push("user", vec![block]);
        }
        Some(_) | None => return Err(BadField::not_carried(format!("messages[{at}].role"))),
    }
    Ok(())
}

fn openai_call(at: usize, call: &Value) -> Translated<Value> {
    let place = || format!("messages[{at}].tool_calls");
    let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
    let input: Value = match arguments.trim() {
        "" => json!({}),
        text => serde_json::from_str(text)
            .ok()
            .filter(Value::is_object)
            .ok_or_else(|| BadField::new(place(), "must have arguments that are a JSON object"))?,
    };
    Ok(json!({
        "type": "tool_use",
        "id": text_of(&call["id"], place)?,
        "name": text_of(&call["function"]["name"], place)?,
        "input": input,
    }))
}

/// A message's content as Anthropic's blocks.
fn openai_content(at: usize, content: &Value) -> Translated<Vec<Value>> {
    match content {
        Value::Null => Ok(Vec::new()),
        Value::String(text) if text.is_empty() => Ok(Vec::new()),
        Value::String(text) => Ok(vec![json!({"type": "text", "text": text})]),
        Value::Array(parts) => parts
            .iter()
            .enumerate()
            .map(|(part, value)| openai_part(at, part, value))
            .collect(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => Err(BadField::new(
            format!("messages[{at}].content"),
            "must be a string or a list of parts",
        )),
    }
}

fn openai_part(at: usize, part: usize, value: &Value) -> Translated<Value> {
    let place = || format!("messages[{at}].content[{part}]");
    match value["type"].as_str() {
        Some("text") => Ok(json!({"type": "text", "text": text_of(&value["text"], place)?})),
        Some("refusal") => Ok(json!({"type": "text", "text": text_of(&value["refusal"], place)?})),
        Some("image_url") => {
            let url = text_of(&value["image_url"]["url"], place)?;
            let inline = url
                .strip_prefix("data:")
                .and_then(|rest| rest.split_once(";base64,"));
            let source = match inline {
                Some((kind, data)) => {
                    json!({"type": "base64", "media_type": kind, "data": data})
                }
                None => json!({"type": "url", "url": url}),
            };
            Ok(json!({"type": "image", "source": source}))
        }
        Some(_) | None => Err(BadField::not_carried(format!("{}.type", place()))),
    }
}

/// An Anthropic body for a server that speaks OpenAI's dialect.
pub(super) fn to_openai(
    target: &Target<'_>,
    fields: &Fields<'_>,
    max_tokens: u32,
) -> Translated<Value> {
    only(fields, &FROM_ANTHROPIC)?;
    let thinking: Option<Value> = fields.optional("thinking")?;
    if thinking.is_some_and(|thinking| thinking["type"] != "disabled") {
        return Err(BadField::not_carried("thinking"));
    }
    let mut body = Map::new();
    body.insert("model".to_owned(), target.model.into());
    let longest = match target.max_tokens_field {
        MaxTokensField::MaxTokens => "max_tokens",
        MaxTokensField::MaxCompletionTokens => "max_completion_tokens",
    };
    body.insert(longest.to_owned(), max_tokens.into());
    body.insert("stream".to_owned(), true.into());
    body.insert("stream_options".to_owned(), json!({"include_usage": true}));
    copy(fields, "temperature", "temperature", &mut body)?;
    copy(fields, "top_p", "top_p", &mut body)?;
    copy(fields, "stop_sequences", "stop", &mut body)?;
    let metadata: Option<Value> = fields.optional("metadata")?;
    if let Some(user) = metadata.as_ref().and_then(|m| m["user_id"].as_str()) {
        body.insert("user".to_owned(), user.into());
    }
    let mut messages = Vec::new();
    if let Some(system) = fields.optional::<Value>("system")? {
        let text = anthropic_text(&system, || "system".to_owned())?;
        messages.push(json!({"role": "system", "content": text}));
    }
    for (at, message) in list(fields.required("messages")?, "messages")?
        .iter()
        .enumerate()
    {
        anthropic_message(at, message, &mut messages)?;
    }
    body.insert("messages".to_owned(), messages.into());
    let tools = fields
        .optional("tools")?
        .unwrap_or(Value::Array(Vec::new()));
    let tools: Vec<Value> = list(tools, "tools")?
        .iter()
        .enumerate()
        .map(|(at, tool)| anthropic_tool(at, tool))
        .collect::<Translated<_>>()?;
    if !tools.is_empty() {
        body.insert("tools".to_owned(), tools.into());
        anthropic_choice(fields.optional("tool_choice")?, &mut body)?;
    }
    Ok(body.into())
}

fn anthropic_tool(at: usize, tool: &Value) -> Translated<Value> {
    let custom = tool["type"].is_null() || tool["type"] == "custom";
    if !custom {
        return Err(BadField::not_carried(format!("tools[{at}].type")));
    }
    let name = text_of(&tool["name"], || format!("tools[{at}].name"))?;
    let mut function = json!({"name": name, "parameters": tool["input_schema"]});
    if let Some(description) = tool["description"].as_str() {
        function["description"] = description.into();
    }
    Ok(json!({"type": "function", "function": function}))
}

fn anthropic_choice(choice: Option<Value>, body: &mut Map<String, Value>) -> Translated<()> {
    let Some(choice) = choice else {
        return Ok(());
    };
    let translated = match choice["type"].as_str() {
        Some("auto") => json!("auto"),
        Some("none") => json!("none"),
        Some("any") => json!("required"),
        Some("tool") => {
            let name = text_of(&choice["name"], || "tool_choice.name".to_owned())?;
            json!({"type": "function", "function": {"name": name}})
        }
        Some(_) | None => return Err(BadField::not_carried("tool_choice.type")),
    };
    body.insert("tool_choice".to_owned(), translated);
    if choice["disable_parallel_tool_use"] == true {
        body.insert("parallel_tool_calls".to_owned(), false.into());
    }
    Ok(())
}

/// Text, or text blocks joined.
fn anthropic_text(value: &Value, place: impl Fn() -> String) -> Translated<String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(blocks) => {
            let texts: Vec<&str> = blocks
                .iter()
                .map(|block| text_of(&block["text"], &place))
                .collect::<Translated<_>>()?;
            Ok(texts.join("\n\n"))
        }
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => Err(BadField::new(
            place(),
            "must be a string or a list of blocks",
        )),
    }
}

fn anthropic_message(at: usize, message: &Value, out: &mut Vec<Value>) -> Translated<()> {
    let place = || format!("messages[{at}].content");
    let role = match message["role"].as_str() {
        Some(role @ ("user" | "assistant")) => role,
        Some(_) | None => return Err(BadField::not_carried(format!("messages[{at}].role"))),
    };
    let blocks = match &message["content"] {
        Value::String(text) => {
            out.push(json!({"role": role, "content": text}));
            return Ok(());
        }
        Value::Array(blocks) => blocks,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            return Err(BadField::new(
                place(),
                "must be a string or a list of blocks",
            ));
        }
    };
    let (mut parts, mut calls) = (Vec::new(), Vec::new());
    for (block_at, block) in blocks.iter().enumerate() {
        let place = || format!("messages[{at}].content[{block_at}]");
        match block["type"].as_str() {
            Some("text") => {
                parts.push(json!({"type": "text", "text": text_of(&block["text"], place)?}));
            }
            Some("image") => parts.push(anthropic_image(&block["source"], place)?),
            // Results stand before what the person says besides.
            Some("tool_result") => out.push(json!({
                "role": "tool",
                "tool_call_id": text_of(&block["tool_use_id"], place)?,
                "content": anthropic_text(&block["content"], place)?,
            })),
            Some("tool_use") => calls.push(json!({
                "id": text_of(&block["id"], place)?,
                "type": "function",
                "function": {
                    "name": text_of(&block["name"], place)?,
                    "arguments": block["input"].to_string(),
                },
            })),
            // Of an earlier turn: another model has no use for it.
            Some("thinking" | "redacted_thinking") => {}
            Some(_) | None => return Err(BadField::not_carried(format!("{}.type", place()))),
        }
    }
    if parts.is_empty() && calls.is_empty() {
        return Ok(());
    }
    let mut translated = json!({"role": role, "content": content_of(role, parts)});
    if !calls.is_empty() {
        translated["tool_calls"] = calls.into();
    }
    out.push(translated);
    Ok(())
}

/// The parts of a message; as one string where only texts are allowed or there is only one.
fn content_of(role: &str, parts: Vec<Value>) -> Value {
    let texts: Option<Vec<&str>> = parts.iter().map(|part| part["text"].as_str()).collect();
    match texts {
        Some(texts) if texts.is_empty() => Value::Null,
        Some(texts) if role == "assistant" || texts.len() == 1 => texts.concat().into(),
        Some(_) | None => parts.into(),
    }
}

fn anthropic_image(source: &Value, place: impl Fn() -> String) -> Translated<Value> {
    let url = match source["type"].as_str() {
        Some("base64") => format!(
            "data:{};base64,{}",
            text_of(&source["media_type"], &place)?,
            text_of(&source["data"], &place)?
        ),
        Some("url") => text_of(&source["url"], &place)?.to_owned(),
        Some(_) | None => return Err(BadField::not_carried(format!("{}.source", place()))),
    };
    Ok(json!({"type": "image_url", "image_url": {"url": url}}))
}
