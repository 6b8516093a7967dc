-- Enrolment by a TPM that the operator knows (spec/identity.md).

-- +goose Up
CREATE TABLE endorsements (
    id      BYTEA  NOT NULL PRIMARY KEY, -- SHA-256 of the endorsement key (SPKI, DER)
    note    TEXT   NOT NULL,
    added   BIGINT NOT NULL,
    revoked BIGINT NOT NULL              -- 0: not revoked
);

-- Challenges that were not answered yet. Several servers share them.
CREATE TABLE challenges (
    id          BYTEA  NOT NULL PRIMARY KEY, -- random
    endorsement BYTEA  NOT NULL,
    device      BYTEA  NOT NULL,
    hash        BYTEA  NOT NULL,             -- SHA-256 of the secret; the secret itself is nowhere
    made        BIGINT NOT NULL,
    expires     BIGINT NOT NULL
);
CREATE INDEX challenges_endorsement ON challenges (endorsement, made);
CREATE INDEX challenges_expires ON challenges (expires);

-- What holds for every server on this database.
CREATE TABLE settings (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- +goose Down
DROP TABLE settings;
DROP TABLE challenges;
DROP TABLE endorsements;
