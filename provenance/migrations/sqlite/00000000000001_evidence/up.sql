-- Every instance of a service writes its own rows and its own chain: (instance, seq) is the key.
-- Times are microseconds since 1970. What each column holds: provenance/src/store/schema.rs.

CREATE TABLE keys (
    key_id TEXT NOT NULL PRIMARY KEY,
    epoch BIGINT NOT NULL,
    check_value BLOB NOT NULL,
    created_at BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE instances (
    instance BIGINT NOT NULL PRIMARY KEY,
    started_at BIGINT NOT NULL,
    service TEXT NOT NULL,
    environment TEXT,
    build TEXT NOT NULL,
    version TEXT NOT NULL,
    key_id TEXT NOT NULL,
    ended_at BIGINT
) WITHOUT ROWID;
CREATE INDEX instances_by_service ON instances (service, started_at);

CREATE TABLE events (
    instance BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    event_type TEXT NOT NULL,
    actor TEXT NOT NULL,
    target TEXT,
    payload TEXT NOT NULL,
    owner TEXT,
    recipient TEXT,
    request_id TEXT,
    user_id TEXT,
    extras TEXT NOT NULL,
    outcome_of BIGINT,
    outcome TEXT,
    salt BLOB NOT NULL,
    leaf BLOB NOT NULL,
    PRIMARY KEY (instance, seq)
) WITHOUT ROWID;
-- Outcomes are rows of their own, shown only within their share.
CREATE INDEX events_by_time ON events (created_at) WHERE outcome_of IS NULL;
CREATE INDEX events_by_type ON events (event_type, created_at) WHERE outcome_of IS NULL;
CREATE INDEX events_by_recipient ON events (recipient, created_at) WHERE outcome_of IS NULL AND recipient IS NOT NULL;
CREATE INDEX events_by_request ON events (request_id, created_at) WHERE outcome_of IS NULL AND request_id IS NOT NULL;
CREATE INDEX events_by_share ON events (instance, outcome_of) WHERE outcome_of IS NOT NULL;

CREATE TABLE event_tags (
    instance BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    idx BIGINT NOT NULL,
    event_at BIGINT NOT NULL,
    fingerprint BLOB,
    category TEXT NOT NULL,
    canonical TEXT NOT NULL,
    field TEXT NOT NULL,
    description TEXT NOT NULL,
    owner TEXT,
    source TEXT NOT NULL,
    pii BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (instance, seq, idx)
) WITHOUT ROWID;
CREATE INDEX event_tags_by_category ON event_tags (canonical, event_at);

CREATE TABLE batches (
    instance BIGINT NOT NULL,
    batch_no BIGINT NOT NULL,
    first_seq BIGINT NOT NULL,
    events BIGINT NOT NULL,
    chain BLOB NOT NULL,
    PRIMARY KEY (instance, batch_no)
) WITHOUT ROWID;

-- Kept with each batch, so that totals need no scan.
CREATE TABLE event_counts (
    instance BIGINT NOT NULL,
    event_type TEXT NOT NULL,
    events BIGINT NOT NULL,
    PRIMARY KEY (instance, event_type)
) WITHOUT ROWID;

-- Owner '' stands for none: it is part of the key.
CREATE TABLE fingerprints (
    fingerprint BLOB NOT NULL,
    canonical TEXT NOT NULL,
    owner TEXT NOT NULL,
    category TEXT NOT NULL,
    field TEXT NOT NULL,
    description TEXT NOT NULL,
    source TEXT NOT NULL,
    pii BIGINT NOT NULL,
    kind TEXT NOT NULL,
    entry BLOB NOT NULL,
    first_instance BIGINT,
    first_seq BIGINT,
    first_seen_at BIGINT NOT NULL,
    last_seen_at BIGINT NOT NULL,
    events BIGINT NOT NULL,
    PRIMARY KEY (fingerprint, canonical, owner)
) WITHOUT ROWID;
CREATE INDEX fingerprints_by_time ON fingerprints (first_seen_at);
CREATE INDEX fingerprints_by_category ON fingerprints (canonical, first_seen_at);

CREATE TABLE owner_links (
    a TEXT NOT NULL,
    b TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (a, b)
) WITHOUT ROWID;

-- How far each recorder has come: what its spill file holds up to there is in the tables above.
CREATE TABLE replays (
    spill BLOB NOT NULL PRIMARY KEY,
    "offset" BIGINT NOT NULL
) WITHOUT ROWID;
