//! The statements of a batch, each about all of its accounts at once.

/// Locks the accounts, in the order that every gateway has.
pub(super) const LOCK: &str = "SELECT id, state, entries, head FROM accounts WHERE id = ANY($1) \
     ORDER BY id FOR NO KEY UPDATE";

/// Everything that they have set aside.
pub(super) const HOLDS: &str = "SELECT account, request, gateway, hold, body, at, month, charge, base \
     FROM holds WHERE account = ANY($1)";

/// The charges that stand under requests' ids.
pub(super) const CHARGES: &str = "SELECT e.account, e.sequence, e.canonical, e.hash, e.reference \
     FROM unnest($1::uuid[], $2::text[]) AS asked (account, request) \
     JOIN entries e ON e.account = asked.account AND e.request = asked.request \
     WHERE e.request IS NOT NULL";

/// The records that stand under orders' references.
pub(super) const RECORDS: &str = "SELECT e.account, e.sequence, e.canonical, e.hash, e.reference \
     FROM unnest($1::uuid[], $2::text[]) AS asked (account, reference) \
     JOIN entries e ON e.account = asked.account AND e.reference = asked.reference \
     WHERE e.reference IS NOT NULL";

/// The server's clock and every lease; one row without a lease if there is none.
pub(super) const LEASES: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint, id, renewed_at \
     FROM (SELECT 1) AS one LEFT JOIN gateways ON true";

/// Gives this gateway a sign of life.
pub(super) const RENEW: &str = "INSERT INTO gateways (id, renewed_at) \
     VALUES ($1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) \
     ON CONFLICT (id) DO UPDATE SET renewed_at = excluded.renewed_at";

pub(super) const DROP_HOLDS: &str = "DELETE FROM holds USING \
     unnest($1::uuid[], $2::uuid[]) AS gone (account, request) \
     WHERE holds.account = gone.account AND holds.request = gone.request";

pub(super) const ADD_HOLDS: &str = "INSERT INTO holds \
     (gateway, account, request, hold, body, at, month, charge, base) \
     SELECT $1::uuid, * FROM unnest($2::uuid[], $3::uuid[], $4::bigint[], $5::bytea[], $6::bigint[], \
       $7::integer[], $8::bigint[], $9::bigint[])";

pub(super) const ADD_ENTRIES: &str = "INSERT INTO entries (account, sequence, canonical, hash) \
     SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::bytea[])";

pub(super) const SET_STANDINGS: &str = "UPDATE accounts \
     SET state = now.state, entries = now.entries, head = now.head \
     FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bytea[]) AS now (id, state, entries, head) \
     WHERE accounts.id = now.id";
