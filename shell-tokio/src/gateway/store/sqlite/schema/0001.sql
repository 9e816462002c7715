-- Ids are the 16 bytes of their number, big-endian. Times are milliseconds since 1970-01-01 UTC.
-- Money is in nano-dollars. Holds are not here: they live in the gateway's memory.

CREATE TABLE accounts (
    id BLOB PRIMARY KEY CHECK (length(id) = 16),
    name TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    -- Where the account stands after its last entry: what `ledger verify` finds by replaying it.
    tier TEXT NOT NULL,
    ceiling INTEGER NOT NULL,
    month INTEGER NOT NULL,
    spent INTEGER NOT NULL,
    used INTEGER NOT NULL,
    owed INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    head BLOB NOT NULL CHECK (length(head) = 32)
) STRICT, WITHOUT ROWID;

-- The ledger. `canonical` is the entry, and `hash` its link in the account's chain; what can be
-- asked for is computed from the text, so that nothing is written twice.
CREATE TABLE entries (
    account BLOB NOT NULL REFERENCES accounts (id),
    sequence INTEGER NOT NULL,
    canonical TEXT NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    request TEXT GENERATED ALWAYS AS (canonical ->> '$.record.request') VIRTUAL,
    PRIMARY KEY (account, sequence)
) STRICT, WITHOUT ROWID;

-- One charge per request, for ever.
CREATE UNIQUE INDEX entries_by_request ON entries (account, request) WHERE request IS NOT NULL;

CREATE TRIGGER entries_are_never_changed BEFORE UPDATE ON entries
BEGIN SELECT RAISE(ABORT, 'the ledger is append only'); END;
CREATE TRIGGER entries_are_never_deleted BEFORE DELETE ON entries
BEGIN SELECT RAISE(ABORT, 'the ledger is append only'); END;

CREATE TABLE keys (
    id BLOB PRIMARY KEY CHECK (length(id) = 16),
    account BLOB NOT NULL REFERENCES accounts (id),
    label TEXT NOT NULL,
    hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    scopes INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE devices (
    id BLOB PRIMARY KEY CHECK (length(id) = 16),
    account BLOB NOT NULL REFERENCES accounts (id),
    key BLOB NOT NULL REFERENCES keys (id),
    certificate BLOB NOT NULL CHECK (length(certificate) = 32),
    not_after INTEGER NOT NULL,
    enrolled_at INTEGER NOT NULL,
    revoked_at INTEGER,
    -- The number of the device's last session.
    epoch INTEGER NOT NULL DEFAULT 0,
    seen_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX devices_by_key ON devices (key);

-- Revoked devices in the order of their revocation, for gateways to follow.
CREATE TABLE revocations (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    device BLOB NOT NULL REFERENCES devices (id)
) STRICT;
