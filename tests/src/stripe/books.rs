//! What the fake knows, and its endpoints.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::{error, wall};
use crate::upstream::Request;

/// How long an identifier is known, and an idempotency key.
const DAY: u64 = 24 * 60 * 60;

/// How a session comes to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Paid.
    Paid,
    /// Paid with what takes days.
    Processing,
    /// That has failed.
    Failed,
    /// Not paid in time.
    Expired,
}

/// What a meter has counted once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterEvent {
    /// As it was named.
    pub identifier: String,
    /// Whom.
    pub customer: String,
    /// How much.
    pub value: i64,
    /// When, as the event says.
    pub timestamp: u64,
    /// When it came.
    pub at: u64,
}

type Form = BTreeMap<String, String>;

#[derive(Debug)]
pub(super) struct Books {
    /// How far the clock is ahead of this machine's.
    pub(super) ahead: Duration,
    pub(super) counted: Vec<MeterEvent>,
    address: SocketAddr,
    names: u64,
    objects: BTreeMap<String, Value>,
    /// Which were made, in order.
    sessions: Vec<String>,
    /// What was said under which key, and answered.
    said: BTreeMap<String, (u64, String, u16, Value)>,
}

impl Books {
    pub(super) const fn new(address: SocketAddr) -> Self {
        Self {
            ahead: Duration::ZERO,
            counted: Vec::new(),
            address,
            names: 0,
            objects: BTreeMap::new(),
            sessions: Vec::new(),
            said: BTreeMap::new(),
        }
    }

    pub(super) fn now(&self) -> u64 {
        wall() + self.ahead.as_secs()
    }

    pub(super) fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}_test_{:024}", self.names)
    }

    pub(super) fn sessions(&self) -> Vec<(String, i64)> {
        let cents = |id: &String| {
            self.objects[id]["amount_total"]
                .as_i64()
                .unwrap_or_default()
        };
        self.sessions
            .iter()
            .map(|id| (id.clone(), cents(id)))
            .collect()
    }

    pub(super) fn session(&mut self, id: &str) -> &mut Value {
        match self.objects.get_mut(id) {
            Some(session) => session,
            None => panic!("there is no {id}"),
        }
    }

    pub(super) fn pay(&mut self, id: &str, standing: Standing) -> Value {
        let (intent, charge, customer) = (self.name("pi"), self.name("ch"), self.name("cus"));
        let session = self.session(id);
        let (status, paid, intent_status) = match standing {
            Standing::Paid => ("complete", "paid", "succeeded"),
            Standing::Processing => ("complete", "unpaid", "processing"),
            Standing::Failed => ("complete", "unpaid", "requires_payment_method"),
            Standing::Expired => ("expired", "unpaid", "canceled"),
        };
        session["status"] = status.into();
        session["payment_status"] = paid.into();
        session["url"] = Value::Null;
        if session["payment_intent"].is_null() {
            session["payment_intent"] = intent.clone().into();
        }
        if session["customer"].is_null() {
            session["customer"] = customer.into();
        }
        let session = session.clone();
        let intent = session["payment_intent"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let object = json!({
            "id": intent, "object": "payment_intent", "status": intent_status,
            "latest_charge": charge, "amount": session["amount_total"], "currency": session["currency"],
        });
        self.objects.insert(intent, object);
        session
    }

    fn taken_back(&mut self, id: &str, session: &str, object: Value) -> Value {
        let session = self.session(session);
        assert_eq!(session["payment_status"], "paid", "{session}");
        let (intent, currency) = (
            session["payment_intent"].clone(),
            session["currency"].clone(),
        );
        let charge = self.objects[intent.as_str().unwrap_or_default()]["latest_charge"].clone();
        let mut object = object;
        object["id"] = id.into();
        object["payment_intent"] = intent;
        object["charge"] = charge;
        object["currency"] = currency;
        self.objects.insert(id.to_owned(), object.clone());
        object
    }

    pub(super) fn refund(&mut self, session: &str, cents: i64, status: &str) -> Value {
        let id = self.name("re");
        let object = json!({"object": "refund", "amount": cents, "status": status});
        self.taken_back(&id, session, object)
    }

    pub(super) fn dispute(&mut self, session: &str, cents: i64) -> Value {
        let id = self.name("dp");
        let object = json!({"object": "dispute", "amount": cents, "status": "needs_response"});
        self.taken_back(&id, session, object)
    }

    pub(super) fn becomes(&mut self, id: &str, status: &str) -> Value {
        let object = self.session(id);
        object["status"] = status.into();
        object.clone()
    }

    /// Answers a request that has shown its key.
    pub(super) fn answer(&mut self, request: &Request) -> (u16, Value) {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        if request.method == "GET" {
            let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
            return self.get(path, &form(query));
        }
        let now = self.now();
        let Some(key) = request.header("idempotency-key") else {
            return self.post(&request.path, &form(&body));
        };
        self.said.retain(|_, (at, ..)| now < *at + DAY);
        if let Some((_, before, status, answer)) = self.said.get(key) {
            return if *before == body {
                (*status, answer.clone())
            } else {
                (
                    400,
                    error("idempotency_error", "Keys for idempotent requests"),
                )
            };
        }
        let (status, answer) = self.post(&request.path, &form(&body));
        let said = (now, body, status, answer.clone());
        self.said.insert(key.to_owned(), said);
        (status, answer)
    }

    fn get(&self, path: &str, query: &Form) -> (u16, Value) {
        let parts: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
        match parts.as_slice() {
            ["checkout", "sessions"] => self.list("checkout.session", "payment_intent", query),
            ["refunds"] if query.contains_key("charge") => self.list("refund", "charge", query),
            ["refunds"] => self.list("refund", "payment_intent", query),
            ["checkout", "sessions", id] => {
                let (status, mut session) = self.object(id, "checkout.session");
                let intent = session["payment_intent"].as_str().map(str::to_owned);
                if query
                    .get("expand[]")
                    .is_some_and(|what| what == "payment_intent")
                    && let Some(intent) = intent.and_then(|id| self.objects.get(&id))
                {
                    session["payment_intent"] = intent.clone();
                }
                (status, session)
            }
            ["refunds", id] => self.object(id, "refund"),
            ["disputes", id] => self.object(id, "dispute"),
            ["billing", "meters", _, "event_summaries"] => self.summaries(query),
            _ => (
                404,
                error("invalid_request_error", "Unrecognized request URL"),
            ),
        }
    }

    fn object(&self, id: &str, kind: &str) -> (u16, Value) {
        match self
            .objects
            .get(id)
            .filter(|object| object["object"] == kind)
        {
            Some(object) => (200, object.clone()),
            None => {
                let mut missing = error("invalid_request_error", "No such object");
                missing["error"]["code"] = "resource_missing".into();
                (404, missing)
            }
        }
    }

    fn list(&self, kind: &str, by: &str, query: &Form) -> (u16, Value) {
        let wanted = query.get(by).map(String::as_str);
        let data: Vec<&Value> = self
            .objects
            .values()
            .filter(|object| object["object"] == kind && object[by].as_str() == wanted)
            .collect();
        (
            200,
            json!({"object": "list", "data": data, "has_more": false}),
        )
    }

    fn summaries(&self, query: &Form) -> (u16, Value) {
        let number = |name: &str| query.get(name).and_then(|n| n.parse::<u64>().ok());
        let (Some(from), Some(to)) = (number("start_time"), number("end_time")) else {
            return (400, error("invalid_request_error", "from when to when?"));
        };
        if from % 60 != 0 || to % 60 != 0 || from >= to {
            return (
                400,
                error("invalid_request_error", "must align with minutes"),
            );
        }
        let customer = query.get("customer");
        let within = self.counted.iter().filter(|event| {
            (from..to).contains(&event.timestamp) && Some(&event.customer) == customer
        });
        let sum: i64 = within.map(|event| event.value).sum();
        let data = if sum == 0 {
            json!([])
        } else {
            // A float, as Stripe's is.
            json!([{"object": "billing.meter_event_summary", "aggregated_value": sum as f64}])
        };
        (
            200,
            json!({"object": "list", "data": data, "has_more": false}),
        )
    }

    fn post(&mut self, path: &str, form: &Form) -> (u16, Value) {
        match path {
            "/v1/checkout/sessions" => self.make_session(form),
            "/v1/billing/meter_events" => self.count(form),
            _ => (
                404,
                error("invalid_request_error", "Unrecognized request URL"),
            ),
        }
    }

    fn make_session(&mut self, form: &Form) -> (u16, Value) {
        let said = |name: &str| form.get(name).cloned().unwrap_or_default();
        let cents: i64 = said("line_items[0][price_data][unit_amount]")
            .parse()
            .unwrap_or_default();
        let complete = said("mode") == "payment"
            && said("line_items[0][quantity]") == "1"
            && !said("success_url").is_empty()
            && !said("line_items[0][price_data][product_data][name]").is_empty();
        if !complete || cents < 50 {
            return (
                400,
                error("invalid_request_error", "Missing required param"),
            );
        }
        let id = self.name("cs");
        let session = json!({
            "id": id, "object": "checkout.session", "mode": "payment", "status": "open",
            "payment_status": "unpaid", "amount_total": cents, "livemode": false,
            "currency": said("line_items[0][price_data][currency]"),
            "client_reference_id": said("client_reference_id"),
            "metadata": {"account": said("metadata[account]"), "cents": said("metadata[cents]")},
            "payment_intent": null, "customer": form.get("customer"),
            "url": format!("http://{}/pay/{id}", self.address),
        });
        self.objects.insert(id.clone(), session.clone());
        self.sessions.push(id);
        (200, session)
    }

    fn count(&mut self, form: &Form) -> (u16, Value) {
        let said = |name: &str| form.get(name).cloned().unwrap_or_default();
        let (now, identifier) = (self.now(), said("identifier"));
        let value = said("payload[value]").parse();
        let timestamp: Result<u64, _> = said("timestamp").parse();
        let (Ok(value), Ok(timestamp)) = (value, timestamp) else {
            return (
                400,
                error("invalid_request_error", "Missing required param"),
            );
        };
        if timestamp > now + 300 || timestamp + 35 * DAY < now {
            return (
                400,
                error("invalid_request_error", "timestamp out of range"),
            );
        }
        let mut known = self.counted.iter().filter(|event| now < event.at + DAY);
        if known.any(|event| event.identifier == identifier) {
            let words = format!("An event already exists with identifier {identifier}.");
            return (400, error("invalid_request_error", &words));
        }
        let event = MeterEvent {
            identifier: identifier.clone(),
            customer: said("payload[stripe_customer_id]"),
            value,
            timestamp,
            at: now,
        };
        self.counted.push(event);
        (
            200,
            json!({"object": "billing.meter_event", "identifier": identifier}),
        )
    }
}

/// Reads `application/x-www-form-urlencoded`.
fn form(text: &str) -> Form {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (unescaped(name), unescaped(value)))
        .collect()
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&digits, 16).unwrap_or(b'?')
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
