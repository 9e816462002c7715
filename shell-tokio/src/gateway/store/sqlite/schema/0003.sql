-- Orders (payments, credits, changes of terms) are found by the reference that their giver chose, and
-- each is carried out once, for ever.

ALTER TABLE entries ADD COLUMN reference TEXT
    GENERATED ALWAYS AS (canonical ->> '$.record.reference') VIRTUAL;
CREATE UNIQUE INDEX entries_by_reference ON entries (account, reference) WHERE reference IS NOT NULL;
