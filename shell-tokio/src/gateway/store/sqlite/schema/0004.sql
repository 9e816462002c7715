-- What was used, added up beside the ledger in the same transaction; it can be made anew from it.
-- No device is an empty blob, no project an empty text.
CREATE TABLE usage (
    account BLOB NOT NULL REFERENCES accounts (id),
    -- Months since January of the year 0, and days since 1970-01-01.
    month INTEGER NOT NULL,
    day INTEGER NOT NULL,
    model TEXT NOT NULL,
    tier TEXT NOT NULL,
    device BLOB NOT NULL,
    project TEXT NOT NULL,
    requests INTEGER NOT NULL,
    estimated INTEGER NOT NULL,
    prompt INTEGER NOT NULL,
    completion INTEGER NOT NULL,
    cache_read INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    base INTEGER NOT NULL,
    charge INTEGER NOT NULL,
    refunded INTEGER NOT NULL,
    postpaid INTEGER NOT NULL,
    PRIMARY KEY (account, month, day, model, tier, device, project)
) STRICT, WITHOUT ROWID;

-- Refunds are found by the charge that they are of, money taken back by its payment.
ALTER TABLE entries ADD COLUMN undoes TEXT
    GENERATED ALWAYS AS (canonical ->> '$.record.undoes') VIRTUAL;
CREATE INDEX entries_by_undoes ON entries (account, undoes) WHERE undoes IS NOT NULL;

-- What answers under way have used: what the operator lost, should the gateway go down.
CREATE TABLE running (
    account BLOB NOT NULL REFERENCES accounts (id),
    request TEXT NOT NULL,
    lose TEXT NOT NULL,
    PRIMARY KEY (account, request)
) STRICT, WITHOUT ROWID;

-- Keys that accounts pay their providers with, sealed with a key that is not in this file.
CREATE TABLE provider_keys (
    account BLOB NOT NULL REFERENCES accounts (id),
    provider TEXT NOT NULL,
    sealed BLOB NOT NULL,
    set_at INTEGER NOT NULL,
    PRIMARY KEY (account, provider)
) STRICT, WITHOUT ROWID;

-- What is to be done outside of this file, once each, and has not been confirmed until it is done.
CREATE TABLE tasks (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    account BLOB NOT NULL REFERENCES accounts (id),
    body TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    done_at INTEGER,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX tasks_to_do ON tasks (kind, created_at) WHERE done_at IS NULL;

-- Accounts know more of themselves now: made anew from the ledger.
UPDATE accounts SET state = NULL;
