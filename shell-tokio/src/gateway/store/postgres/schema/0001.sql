-- Ids are UUIDs. Times are milliseconds since 1970-01-01 UTC. Money is in nano-dollars.

CREATE TABLE about (
    -- Whose schema this is, and how far it has come.
    program text PRIMARY KEY CHECK (program = 'synesis'),
    version integer NOT NULL
);
INSERT INTO about VALUES ('synesis', 0);

CREATE TABLE accounts (
    id uuid PRIMARY KEY,
    name text NOT NULL UNIQUE,
    created_at bigint NOT NULL,
    -- Where the account stands after its last entry: what `ledger verify` finds by replaying it.
    state text NOT NULL,
    entries bigint NOT NULL,
    head bytea NOT NULL CHECK (octet_length(head) = 32)
-- Rewritten with every batch of charges: room for the new version beside the old one.
) WITH (fillfactor = 40);

-- The ledger. `canonical` is the entry, and `hash` its link in the account's chain; what can be
-- asked for is computed from the text, so that nothing can be filed under another name.
CREATE TABLE entries (
    account uuid NOT NULL,
    sequence bigint NOT NULL,
    canonical text NOT NULL,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    request text GENERATED ALWAYS AS (canonical::json #>> '{record,request}') STORED,
    reference text GENERATED ALWAYS AS (canonical::json #>> '{record,reference}') STORED,
    undoes text GENERATED ALWAYS AS (canonical::json #>> '{record,undoes}') STORED,
    PRIMARY KEY (account, sequence)
);

-- One charge per request, for ever, and one record per order.
CREATE UNIQUE INDEX entries_by_request ON entries (account, request) WHERE request IS NOT NULL;
CREATE UNIQUE INDEX entries_by_reference ON entries (account, reference) WHERE reference IS NOT NULL;
-- Refunds are found by the charge that they are of, money taken back by its payment.
CREATE INDEX entries_by_undoes ON entries (account, undoes) WHERE undoes IS NOT NULL;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the ledger is append only'; END $$;

CREATE TRIGGER entries_are_only_added BEFORE UPDATE OR DELETE OR TRUNCATE ON entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
-- In place of a foreign key from each entry, which is looked up for each entry.
CREATE TRIGGER accounts_stay BEFORE DELETE OR TRUNCATE ON accounts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What was used, added up beside the ledger in the same transaction; it can be made anew from it.
-- No device is the id of zeros, no project an empty text.
CREATE TABLE usage (
    account uuid NOT NULL REFERENCES accounts (id),
    -- Months since January of the year 0, and days since 1970-01-01.
    month integer NOT NULL,
    day integer NOT NULL,
    model text NOT NULL,
    tier text NOT NULL,
    device uuid NOT NULL,
    project text NOT NULL,
    requests bigint NOT NULL,
    estimated bigint NOT NULL,
    prompt bigint NOT NULL,
    completion bigint NOT NULL,
    cache_read bigint NOT NULL,
    cache_write bigint NOT NULL,
    base bigint NOT NULL,
    charge bigint NOT NULL,
    refunded bigint NOT NULL,
    postpaid bigint NOT NULL,
    PRIMARY KEY (account, month, day, model, tier, device, project)
) WITH (fillfactor = 70);

-- Gateways, each for one life, and their leases by this server's clock.
CREATE TABLE gateways (
    id uuid PRIMARY KEY,
    since bigint NOT NULL,
    renewed_at bigint NOT NULL
) WITH (fillfactor = 40);

-- Money set aside for requests under way. A hold of a gateway without a lease is void. `held` is one text,
-- as the rules write it: what they come to know of a hold needs no column.
CREATE TABLE holds (
    account uuid NOT NULL,
    request uuid NOT NULL,
    gateway uuid NOT NULL,
    held text NOT NULL,
    PRIMARY KEY (account, request)
-- Rows come and go by the thousand.
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000);

-- What answers under way have used: what the operator lost, should their gateway go down.
CREATE TABLE running (
    account uuid NOT NULL,
    request uuid NOT NULL,
    gateway uuid NOT NULL,
    lose text NOT NULL,
    PRIMARY KEY (account, request)
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000);

-- Keys that accounts pay their providers with, sealed with a key that is not in this database.
CREATE TABLE provider_keys (
    account uuid NOT NULL REFERENCES accounts (id),
    provider text NOT NULL,
    sealed bytea NOT NULL,
    set_at bigint NOT NULL,
    PRIMARY KEY (account, provider)
);

-- What is to be done outside of this database, once each, and has not been confirmed until it is done.
CREATE TABLE tasks (
    kind text NOT NULL,
    key text NOT NULL,
    account uuid NOT NULL REFERENCES accounts (id),
    body text NOT NULL,
    created_at bigint NOT NULL,
    done_at bigint,
    PRIMARY KEY (kind, key)
);
CREATE INDEX tasks_to_do ON tasks (kind, created_at) WHERE done_at IS NULL;

CREATE TABLE keys (
    id uuid PRIMARY KEY,
    account uuid NOT NULL REFERENCES accounts (id),
    label text NOT NULL,
    hash bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    scopes smallint NOT NULL,
    created_at bigint NOT NULL,
    revoked_at bigint
);

CREATE TABLE devices (
    id uuid PRIMARY KEY,
    account uuid NOT NULL REFERENCES accounts (id),
    key uuid NOT NULL REFERENCES keys (id),
    certificate bytea NOT NULL CHECK (octet_length(certificate) = 32),
    not_after bigint NOT NULL,
    enrolled_at bigint NOT NULL,
    revoked_at bigint,
    -- The number of the device's last session.
    epoch bigint NOT NULL DEFAULT 0,
    seen_at bigint
);

CREATE INDEX devices_by_key ON devices (key);
CREATE INDEX devices_by_account ON devices (account);

-- Revoked devices in the order of their revocation, for gateways to follow: numbered under a lock,
-- without a gap, so that nothing comes into sight below a number that was seen.
CREATE TABLE revocations (
    sequence bigint PRIMARY KEY,
    device uuid NOT NULL REFERENCES devices (id)
);
