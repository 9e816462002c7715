-- What finished answers said, for devices that come back for them, until their time is over. Not logged: its
-- text is in no write-ahead log, no archive of it and no standby, and a crash of the server forgets it.
CREATE UNLOGGED TABLE answers (
    account uuid NOT NULL,
    request uuid NOT NULL,
    device uuid NOT NULL,
    -- From then on it is given to nobody.
    ends_at bigint NOT NULL,
    transcript bytea NOT NULL,
    PRIMARY KEY (account, request)
-- Rows come and go by the thousand, and what they leave behind is to be overwritten soon.
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000);
-- It does not stay long enough to be worth compressing.
ALTER TABLE answers ALTER COLUMN transcript SET STORAGE EXTERNAL;
CREATE INDEX answers_by_end ON answers (ends_at)
