-- The certificate authorities of the gateways that share this database: one fingerprint over both.
CREATE TABLE authorities (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32)
)
