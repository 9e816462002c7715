-- The certificate authorities of the gateway that this file belongs to: one fingerprint over both.
CREATE TABLE authorities (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32)
) STRICT;
