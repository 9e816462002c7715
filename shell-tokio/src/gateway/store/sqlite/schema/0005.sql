-- What finished answers said, for devices that come back for them, until their time is over. New rows go to
-- the end and old ones leave from the start, so that what a row leaves behind is overwritten with its page.
CREATE TABLE answers (
    id INTEGER PRIMARY KEY,
    account BLOB NOT NULL REFERENCES accounts (id),
    request BLOB NOT NULL CHECK (length(request) = 16),
    device BLOB NOT NULL CHECK (length(device) = 16),
    -- From then on it is given to nobody.
    ends_at INTEGER NOT NULL,
    transcript BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX answers_by_request ON answers (account, request);
CREATE INDEX answers_by_end ON answers (ends_at);
