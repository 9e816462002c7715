//! The statements of a batch, each about all of its accounts at once.

/// Locks the accounts, in the order that every gateway has; with the providers that each pays itself, the
/// server's clock and the asker's lease.
pub(super) const LOCK: &str = "SELECT id, state, entries, head, \
     ARRAY(SELECT provider FROM provider_keys WHERE provider_keys.account = accounts.id), \
     (extract(epoch FROM clock_timestamp()) * 1000)::bigint, \
     (SELECT since FROM gateways WHERE id = $2), (SELECT renewed_at FROM gateways WHERE id = $2) \
     FROM accounts WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE";

/// Everything that they have set aside, with the lease behind it.
pub(super) const HOLDS: &str = "SELECT h.account, h.request, h.gateway, h.held, g.renewed_at \
     FROM holds h LEFT JOIN gateways g ON g.id = h.gateway WHERE h.account = ANY($1)";

/// What stands under requests' ids.
pub(super) const REQUESTED: &str = "SELECT e.account, e.request, e.sequence, e.canonical, e.hash \
     FROM unnest($1::uuid[], $2::text[]) AS asked (account, request) \
     JOIN entries e ON e.account = asked.account AND e.request = asked.request \
     WHERE e.request IS NOT NULL";

/// What stands under orders' references.
pub(super) const ORDERED: &str = "SELECT e.account, e.reference, e.sequence, e.canonical, e.hash \
     FROM unnest($1::uuid[], $2::text[]) AS asked (account, reference) \
     JOIN entries e ON e.account = asked.account AND e.reference = asked.reference \
     WHERE e.reference IS NOT NULL";

/// What has been undone of something.
pub(super) const UNDONE: &str = "SELECT sequence, canonical, hash FROM entries \
     WHERE account = $1 AND undoes = $2 AND undoes IS NOT NULL ORDER BY sequence";

/// Every lease, with the server's clock; one row without a lease if there is none.
pub(super) const LEASES: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint, \
     id, since, renewed_at FROM (SELECT 1) AS one LEFT JOIN gateways ON true";

/// Renews a gateway's lease.
pub(super) const RENEW: &str = "INSERT INTO gateways (id, since, renewed_at) VALUES ($1, $2, $3) \
     ON CONFLICT (id) DO UPDATE SET since = excluded.since, renewed_at = excluded.renewed_at";

pub(super) const PUT_TASK: &str = "INSERT INTO tasks (kind, key, account, body, created_at) \
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";

/// The first entry of an account, and any others.
pub(super) const ADD_ENTRIES: &str = "INSERT INTO entries (account, sequence, canonical, hash) \
     SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::bytea[])";

/// Everything that a batch writes: holds that ended, holds that began, entries, what was used, standings.
/// One statement, since each is a way to the server and back for it; no two parts touch the same row.
pub(super) const WRITE: &str = "WITH ended AS (DELETE FROM holds USING \
       unnest($1::uuid[], $2::uuid[]) AS gone (account, request) \
       WHERE holds.account = gone.account AND holds.request = gone.request), \
     forgotten AS (DELETE FROM running USING \
       unnest($32::uuid[], $33::uuid[]) AS gone (account, request) \
       WHERE running.account = gone.account AND running.request = gone.request), \
     begun AS (INSERT INTO holds (gateway, account, request, held) \
       SELECT $3::uuid, * FROM unnest($4::uuid[], $5::uuid[], $6::text[]) \
       ON CONFLICT (account, request) DO UPDATE \
       SET gateway = excluded.gateway, held = excluded.held), \
     added AS (INSERT INTO entries (account, sequence, canonical, hash) \
       SELECT * FROM unnest($7::uuid[], $8::bigint[], $9::text[], $10::bytea[])), \
     used AS (INSERT INTO usage (account, month, day, model, tier, device, project, requests, \
         estimated, prompt, completion, cache_read, cache_write, base, charge, refunded, postpaid) \
       SELECT * FROM unnest($11::uuid[], $12::integer[], $13::integer[], $14::text[], $15::text[], \
         $16::uuid[], $17::text[], $18::bigint[], $19::bigint[], $20::bigint[], $21::bigint[], \
         $22::bigint[], $23::bigint[], $24::bigint[], $25::bigint[], $26::bigint[], $27::bigint[]) \
       ON CONFLICT (account, month, day, model, tier, device, project) DO UPDATE SET \
         requests = usage.requests + excluded.requests, \
         estimated = usage.estimated + excluded.estimated, \
         prompt = usage.prompt + excluded.prompt, \
         completion = usage.completion + excluded.completion, \
         cache_read = usage.cache_read + excluded.cache_read, \
         cache_write = usage.cache_write + excluded.cache_write, \
         base = usage.base + excluded.base, charge = usage.charge + excluded.charge, \
         refunded = usage.refunded + excluded.refunded, \
         postpaid = usage.postpaid + excluded.postpaid), \
     kept AS (INSERT INTO answers (account, request, device, ends_at, transcript) \
       SELECT * FROM unnest($34::uuid[], $35::uuid[], $36::uuid[], $37::bigint[], $38::bytea[]) \
       ON CONFLICT (account, request) DO NOTHING) \
     UPDATE accounts SET state = now.state, entries = now.entries, head = now.head \
       FROM unnest($28::uuid[], $29::text[], $30::bigint[], $31::bytea[]) \
         AS now (id, state, entries, head) WHERE accounts.id = now.id";
