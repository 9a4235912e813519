-- Evidence is not migrated back.
-- What each column holds: provenance/src/store/schema.rs; the formats inside: docs/format.md.
-- `at` is in milliseconds since 1970, all other times in microseconds.
-- Every primary key has the instance in it, so that the tables can be sharded by it: docs/fleet.md.

CREATE TABLE keys (
    key_id TEXT NOT NULL PRIMARY KEY,
    epoch BIGINT NOT NULL,
    check_value BYTEA NOT NULL,
    created_at BIGINT NOT NULL
);

-- Every process writes rows and a chain of its own.
CREATE TABLE instances (
    n BIGINT NOT NULL PRIMARY KEY,
    instance BIGINT NOT NULL UNIQUE,
    started_at BIGINT NOT NULL,
    service TEXT NOT NULL,
    environment TEXT,
    build TEXT NOT NULL,
    version TEXT NOT NULL,
    key_id TEXT NOT NULL,
    ended_at BIGINT,
    -- The last seq that `event_terms`, `sights` and `flows` know of.
    indexed BIGINT NOT NULL DEFAULT 0,
    -- How often others have changed its events: erasures, retentions.
    changed BIGINT NOT NULL DEFAULT 0,
    -- No event of it stands so many milliseconds later than it was seen.
    late BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX instances_by_service ON instances (service, started_at);

-- As bytes: a text may hold what PostgreSQL's do not (U+0000).
CREATE TABLE texts (
    n BIGINT NOT NULL,
    id INT4 NOT NULL,
    text BYTEA NOT NULL,
    PRIMARY KEY (n, id)
);

CREATE TABLE events (
    n BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    at BIGINT NOT NULL,
    -- created_at - 1000 * at
    after BIGINT NOT NULL,
    event_type INT4 NOT NULL,
    actor INT4 NOT NULL,
    target INT4,
    recipient INT4,
    outcome_of BIGINT,
    owner BYTEA,
    user_id BYTEA,
    request_id BYTEA,
    payload BYTEA NOT NULL,
    extras BYTEA NOT NULL,
    tags BYTEA NOT NULL,
    proof BYTEA NOT NULL,
    PRIMARY KEY (n, seq)
);
-- Outcomes are rows of their own, shown only within their share.
CREATE INDEX events_by_type ON events (event_type, at, n, seq) WHERE outcome_of IS NULL;
CREATE INDEX events_by_share ON events (n, outcome_of) WHERE outcome_of IS NOT NULL;

CREATE TABLE batches (
    n BIGINT NOT NULL,
    batch_no BIGINT NOT NULL,
    first_seq BIGINT NOT NULL,
    events BIGINT NOT NULL,
    root BYTEA NOT NULL,
    chain BYTEA NOT NULL,
    PRIMARY KEY (n, batch_no)
);

-- Kept with each batch, so that totals need no scan.
CREATE TABLE event_counts (
    n BIGINT NOT NULL,
    event_type INT4 NOT NULL,
    name TEXT NOT NULL,
    events BIGINT NOT NULL,
    PRIMARY KEY (n, event_type)
);

CREATE TABLE fingerprints (
    n BIGINT NOT NULL,
    id BIGINT NOT NULL,
    fingerprint BYTEA NOT NULL,
    tag INT4 NOT NULL,
    category INT4 NOT NULL,
    owner BYTEA,
    kind INT2 NOT NULL,
    entry BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (n, id)
);
CREATE INDEX fingerprints_by_time ON fingerprints (created_at, n, id);
CREATE INDEX fingerprints_by_category ON fingerprints (category, created_at, n, id);

-- What follows is made from the rows above, a few thousand events at a time, and is no evidence by itself. Room is left
-- for rows that are counted up.
CREATE TABLE sights (
    n BIGINT NOT NULL,
    id BIGINT NOT NULL,
    first_at BIGINT NOT NULL,
    first_n BIGINT NOT NULL,
    first_seq BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    events BIGINT NOT NULL,
    PRIMARY KEY (n, id)
) WITH (fillfactor = 50);

CREATE TABLE flows (
    n BIGINT NOT NULL,
    day INT4 NOT NULL,
    event_type INT4 NOT NULL,
    actor INT4 NOT NULL,
    target INT4 NOT NULL,
    recipient INT4 NOT NULL,
    tag INT4 NOT NULL,
    events BIGINT NOT NULL,
    PRIMARY KEY (n, day, event_type, actor, target, recipient, tag)
) WITH (fillfactor = 50);

CREATE TABLE owner_links (
    a TEXT NOT NULL,
    b TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    -- Who said so, numbered among the values of that instance.
    n BIGINT NOT NULL,
    id BIGINT NOT NULL,
    PRIMARY KEY (a, b)
);
CREATE INDEX owner_links_by_b ON owner_links (b);
CREATE INDEX owner_links_by_instance ON owner_links (n, id);

-- Which events a fingerprint, a person, a request, a recipient or a category is in: the first of some events of an
-- instance within a minute, and those that follow it (postgres/terms.rs).
CREATE TABLE event_terms (
    term BIGINT NOT NULL,
    at BIGINT NOT NULL,
    n BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    more BYTEA NOT NULL,
    PRIMARY KEY (term, at, n, seq)
);

CREATE TABLE replays (
    spill BYTEA NOT NULL PRIMARY KEY,
    "offset" BIGINT NOT NULL
);

-- People who were erased: a load of their old rows does not register them again.
CREATE TABLE erasures (
    -- Keyed hash of an identifier's pseudonym.
    person BYTEA NOT NULL PRIMARY KEY,
    -- Counts the changes of this table, for those who follow them.
    version BIGINT NOT NULL,
    -- The same for all identifiers of a person.
    erasure BYTEA NOT NULL,
    -- The pseudonym itself, until nothing of it is left.
    owner BYTEA,
    at BIGINT NOT NULL,
    touched_at BIGINT NOT NULL,
    done_at BIGINT,
    -- The person came back.
    lifted_at BIGINT
);
CREATE INDEX erasures_by_version ON erasures (version);
CREATE INDEX fingerprints_by_owner ON fingerprints (owner) WHERE owner IS NOT NULL;
