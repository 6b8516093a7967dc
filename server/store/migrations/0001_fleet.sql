-- The fleet as the server knows it. The same statements run on SQLite and on
-- PostgreSQL: times are Unix microseconds, digests and keys are raw bytes, and
-- no key is made by the database. (SQLite takes any type name; a BYTEA column
-- stores the bytes it is given.)

-- +goose Up
CREATE TABLE tokens (
    id      TEXT   NOT NULL PRIMARY KEY, -- the public name of the token
    hash    BYTEA  NOT NULL UNIQUE,      -- SHA-256 of the secret; the secret itself is nowhere
    note    TEXT   NOT NULL,
    uses    BIGINT NOT NULL,             -- how many enrolments it is good for
    used    BIGINT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    revoked BIGINT NOT NULL              -- 0: not revoked
);

CREATE TABLE devices (
    id           BYTEA  NOT NULL PRIMARY KEY, -- SHA-256 of public_key
    public_key   BYTEA  NOT NULL,             -- SubjectPublicKeyInfo, DER
    product      TEXT   NOT NULL,
    baseline     BYTEA  NOT NULL,             -- of the latest request
    release      TEXT   NOT NULL,             -- latest release a ticket was issued for; '' the baseline
    token        TEXT   NOT NULL,             -- id of the token it enrolled with
    enrolled     BIGINT NOT NULL,
    seen         BIGINT NOT NULL,
    nonce        BYTEA  NOT NULL,             -- of the latest ticket that has one; empty: none yet
    before       BYTEA  NOT NULL,             -- the nonce that the latest ticket found there
    blocked      BIGINT NOT NULL,             -- 0: not blocked
    block_reason TEXT   NOT NULL,
    diverged     BIGINT NOT NULL,             -- when a dead nonce last came back; 0: never
    divergences  BIGINT NOT NULL
);

-- One row for each ticket, written while a device waits: it has no index but
-- its key, which also finds a device's tickets.
CREATE TABLE tickets (
    device   BYTEA  NOT NULL,
    domain   BIGINT NOT NULL,             -- of the nonce; -1: none
    nonce    BYTEA  NOT NULL,             -- empty for a baseline ticket
    release  TEXT   NOT NULL,             -- '' for the baseline itself
    digest   BYTEA  NOT NULL,             -- SHA-256 of the ticket as it was sent
    product  TEXT   NOT NULL,
    baseline BYTEA  NOT NULL,
    content  BYTEA  NOT NULL,             -- digest of the set without the device: what was authorised
    leaf     BYTEA  NOT NULL,             -- SHA-256 of the key that signed
    issued   BIGINT NOT NULL,
    served   BIGINT NOT NULL,             -- how often it was sent: retries count here
    PRIMARY KEY (device, domain, nonce, release, digest)
);

-- Releases that must not be signed any more, whatever the catalog on disk says.
CREATE TABLE stops (
    release TEXT   NOT NULL PRIMARY KEY,
    reason  TEXT   NOT NULL,
    stopped BIGINT NOT NULL
);

-- Rollouts that must not get wider for now.
CREATE TABLE pauses (
    release TEXT   NOT NULL PRIMARY KEY,
    paused  BIGINT NOT NULL
);

-- What operators did, each row chained to the one before by its hash.
CREATE TABLE events (
    seq    BIGINT NOT NULL PRIMARY KEY, -- 1, 2, 3, …
    at     BIGINT NOT NULL,
    actor  TEXT   NOT NULL,
    action TEXT   NOT NULL,
    target TEXT   NOT NULL,
    detail TEXT   NOT NULL,
    hash   BYTEA  NOT NULL
);

-- Counts that people agreed to share. No row belongs to a device.
CREATE TABLE daily (
    release  TEXT   NOT NULL,
    os_build TEXT   NOT NULL,
    arch     TEXT   NOT NULL,
    arm      TEXT   NOT NULL, -- offered, control
    day      TEXT   NOT NULL, -- UTC, 2026-11-23
    app      TEXT   NOT NULL,
    at_risk  BIGINT NOT NULL,
    crashed  BIGINT NOT NULL, -- first crashes
    PRIMARY KEY (release, os_build, arch, arm, day, app)
);

CREATE TABLE recommendations (
    release TEXT   NOT NULL,
    app     TEXT   NOT NULL,
    outcome TEXT   NOT NULL, -- shown, accepted, dismissed
    count   BIGINT NOT NULL,
    PRIMARY KEY (release, app, outcome)
);

-- Random names of reports already counted, kept for two days.
CREATE TABLE report_ids (
    id BYTEA  NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL
);
CREATE INDEX report_ids_at ON report_ids (at);

-- +goose Down
DROP TABLE report_ids;
DROP TABLE recommendations;
DROP TABLE daily;
DROP TABLE events;
DROP TABLE pauses;
DROP TABLE stops;
DROP TABLE tickets;
DROP TABLE devices;
DROP TABLE tokens;
