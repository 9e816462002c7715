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
    PRIMARY KEY (account, sequence)
);

-- One charge per request, for ever, and one record per order.
CREATE UNIQUE INDEX entries_by_request ON entries (account, request) WHERE request IS NOT NULL;
CREATE UNIQUE INDEX entries_by_reference ON entries (account, reference) WHERE reference IS NOT NULL;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the ledger is append only'; END $$;

CREATE TRIGGER entries_are_only_added BEFORE UPDATE OR DELETE OR TRUNCATE ON entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
-- In place of a foreign key from each entry, which is looked up for each entry.
CREATE TRIGGER accounts_stay BEFORE DELETE OR TRUNCATE ON accounts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Gateways, each for one life, and their last signs of it by this server's clock.
CREATE TABLE gateways (
    id uuid PRIMARY KEY,
    renewed_at bigint NOT NULL
) WITH (fillfactor = 40);

-- Money set aside for requests under way. A hold of a gateway without a lease is void.
CREATE TABLE holds (
    account uuid NOT NULL,
    request uuid NOT NULL,
    gateway uuid NOT NULL,
    -- A 64-bit number without a sign, kept as one with.
    hold bigint NOT NULL,
    body bytea NOT NULL CHECK (octet_length(body) = 32),
    at bigint NOT NULL,
    month integer NOT NULL,
    charge bigint NOT NULL,
    base bigint NOT NULL,
    PRIMARY KEY (account, request)
-- Rows come and go by the thousand.
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000);

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
