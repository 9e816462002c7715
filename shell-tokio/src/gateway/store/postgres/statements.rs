//! The statements of a batch, each about all of its accounts at once.

/// Locks the accounts, in the order that every gateway has; with the server's clock and the asker's lease.
pub(super) const LOCK: &str = "SELECT id, state, entries, head, \
     (extract(epoch FROM clock_timestamp()) * 1000)::bigint, \
     (SELECT renewed_at FROM gateways WHERE id = $2) \
     FROM accounts WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE";

/// Everything that they have set aside, with the server's clock and the lease behind it.
pub(super) const HOLDS: &str = "SELECT h.account, h.request, h.gateway, h.hold, h.body, h.at, \
     h.month, h.charge, h.base, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, g.renewed_at \
     FROM holds h LEFT JOIN gateways g ON g.id = h.gateway WHERE h.account = ANY($1)";

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

/// The first entry of an account, and any others.
pub(super) const ADD_ENTRIES: &str = "INSERT INTO entries (account, sequence, canonical, hash) \
     SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::bytea[])";

/// Everything that a batch writes: holds that ended, holds that began, entries, standings. One
/// statement, since each is a way to the server and back for it; no two parts touch the same row.
pub(super) const WRITE: &str = "WITH ended AS (DELETE FROM holds USING \
       unnest($1::uuid[], $2::uuid[]) AS gone (account, request) \
       WHERE holds.account = gone.account AND holds.request = gone.request), \
     begun AS (INSERT INTO holds \
         (gateway, account, request, hold, body, at, month, charge, base) \
       SELECT $3::uuid, * FROM unnest($4::uuid[], $5::uuid[], $6::bigint[], $7::bytea[], \
         $8::bigint[], $9::integer[], $10::bigint[], $11::bigint[]) \
       ON CONFLICT (account, request) DO UPDATE SET gateway = excluded.gateway, \
         hold = excluded.hold, body = excluded.body, at = excluded.at, month = excluded.month, \
         charge = excluded.charge, base = excluded.base), \
     added AS (INSERT INTO entries (account, sequence, canonical, hash) \
       SELECT * FROM unnest($12::uuid[], $13::bigint[], $14::text[], $15::bytea[])) \
     UPDATE accounts SET state = now.state, entries = now.entries, head = now.head \
       FROM unnest($16::uuid[], $17::text[], $18::bigint[], $19::bytea[]) \
         AS now (id, state, entries, head) WHERE accounts.id = now.id";
