-- The public log of every set that was ever authorised (spec/setlog.md).

-- +goose Up
CREATE TABLE log_records (
    number  BIGINT NOT NULL PRIMARY KEY, -- 0, 1, 2, …
    content BYTEA  NOT NULL UNIQUE,      -- SHA-384 of text
    text    BYTEA  NOT NULL,
    at      BIGINT NOT NULL
);

CREATE TABLE log_hashes (
    number BIGINT NOT NULL PRIMARY KEY, -- tlog.StoredHashIndex
    hash   BYTEA  NOT NULL
);

CREATE TABLE log_heads (
    size BIGINT NOT NULL PRIMARY KEY, -- records under this head
    head BYTEA  NOT NULL              -- signed
);

-- +goose Down
DROP TABLE log_heads;
DROP TABLE log_hashes;
DROP TABLE log_records;
