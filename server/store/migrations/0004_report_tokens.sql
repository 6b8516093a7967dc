-- Tokens that bound anonymous reports (spec/token.md). The two tables have
-- nothing in common but the day: which device was given which token is in
-- neither of them.

-- +goose Up
CREATE TABLE token_batches (
    device BYTEA NOT NULL, -- that was given a batch
    day    TEXT  NOT NULL, -- UTC, 2026-11-23
    PRIMARY KEY (device, day)
);
CREATE INDEX token_batches_day ON token_batches (day);

CREATE TABLE tokens_spent (
    nonce BYTEA NOT NULL PRIMARY KEY,
    day   TEXT  NOT NULL -- that it was issued for
);
CREATE INDEX tokens_spent_day ON tokens_spent (day);

-- +goose Down
DROP TABLE tokens_spent;
DROP TABLE token_batches;
