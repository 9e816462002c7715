-- Where an account stands is one text now, as the rules write it: what they come to know of an
-- account needs no column. It is made anew from the ledger where it is missing.

ALTER TABLE accounts ADD COLUMN state TEXT;
ALTER TABLE accounts DROP COLUMN tier;
ALTER TABLE accounts DROP COLUMN ceiling;
ALTER TABLE accounts DROP COLUMN month;
ALTER TABLE accounts DROP COLUMN spent;
ALTER TABLE accounts DROP COLUMN used;
ALTER TABLE accounts DROP COLUMN owed;
