-- What each column holds: provenance/src/store/schema.rs; the formats inside: docs/format.md.
-- `at` is in milliseconds since 1970, all other times in microseconds.

CREATE TABLE keys (
    key_id TEXT NOT NULL PRIMARY KEY,
    epoch BIGINT NOT NULL,
    check_value BLOB NOT NULL,
    created_at BIGINT NOT NULL
) WITHOUT ROWID;

-- Every process writes rows and a chain of its own.
CREATE TABLE instances (
    n INTEGER NOT NULL PRIMARY KEY,
    instance BIGINT NOT NULL UNIQUE,
    started_at BIGINT NOT NULL,
    service TEXT NOT NULL,
    environment TEXT,
    build TEXT NOT NULL,
    version TEXT NOT NULL,
    key_id TEXT NOT NULL,
    ended_at BIGINT,
    -- The last seq that `postings`, `sights` and `flows` know of.
    indexed BIGINT NOT NULL DEFAULT 0,
    -- No event of it stands so many milliseconds later than it was seen.
    late BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX instances_by_service ON instances (service, started_at);

CREATE TABLE texts (
    n BIGINT NOT NULL,
    id INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (n, id)
) WITHOUT ROWID;

CREATE TABLE events (
    n BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    at BIGINT NOT NULL,
    -- created_at - 1000 * at
    after BIGINT NOT NULL,
    event_type INTEGER NOT NULL,
    actor INTEGER NOT NULL,
    target INTEGER,
    recipient INTEGER,
    outcome_of BIGINT,
    owner BLOB,
    user_id BLOB,
    request_id BLOB,
    payload BLOB NOT NULL,
    extras BLOB NOT NULL,
    tags BLOB NOT NULL,
    proof BLOB NOT NULL,
    PRIMARY KEY (n, seq)
) WITHOUT ROWID;
-- Outcomes are rows of their own, shown only within their share.
CREATE INDEX events_by_type ON events (event_type, at) WHERE outcome_of IS NULL;
CREATE INDEX events_by_share ON events (n, outcome_of) WHERE outcome_of IS NOT NULL;

CREATE TABLE batches (
    n BIGINT NOT NULL,
    batch_no BIGINT NOT NULL,
    first_seq BIGINT NOT NULL,
    events BIGINT NOT NULL,
    root BLOB NOT NULL,
    chain BLOB NOT NULL,
    PRIMARY KEY (n, batch_no)
) WITHOUT ROWID;

-- Kept with each batch, so that totals need no scan.
CREATE TABLE event_counts (
    n BIGINT NOT NULL,
    event_type INTEGER NOT NULL,
    name TEXT NOT NULL,
    events BIGINT NOT NULL,
    PRIMARY KEY (n, event_type)
) WITHOUT ROWID;

CREATE TABLE fingerprints (
    n BIGINT NOT NULL,
    id BIGINT NOT NULL,
    fingerprint BLOB NOT NULL,
    tag INTEGER NOT NULL,
    category INTEGER NOT NULL,
    owner BLOB,
    kind SMALLINT NOT NULL,
    entry BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (n, id)
) WITHOUT ROWID;
CREATE INDEX fingerprints_by_time ON fingerprints (created_at);
CREATE INDEX fingerprints_by_category ON fingerprints (category, created_at);

-- What follows is made from the rows above, a few thousand events at a time, and is no evidence by itself.
CREATE TABLE sights (
    n BIGINT NOT NULL,
    id BIGINT NOT NULL,
    first_at BIGINT NOT NULL,
    first_n BIGINT NOT NULL,
    first_seq BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    events BIGINT NOT NULL,
    PRIMARY KEY (n, id)
) WITHOUT ROWID;

CREATE TABLE flows (
    n BIGINT NOT NULL,
    day INTEGER NOT NULL,
    event_type INTEGER NOT NULL,
    actor INTEGER NOT NULL,
    target INTEGER NOT NULL,
    recipient INTEGER NOT NULL,
    tag INTEGER NOT NULL,
    events BIGINT NOT NULL,
    PRIMARY KEY (n, day, event_type, actor, target, recipient, tag)
) WITHOUT ROWID;

CREATE TABLE owner_links (
    a TEXT NOT NULL,
    b TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    -- Who said so, numbered among the values of that instance.
    n BIGINT NOT NULL,
    id BIGINT NOT NULL,
    PRIMARY KEY (a, b)
) WITHOUT ROWID;
CREATE INDEX owner_links_by_b ON owner_links (b);
CREATE INDEX owner_links_by_instance ON owner_links (n, id);

CREATE TABLE segments (
    id INTEGER NOT NULL PRIMARY KEY,
    level INTEGER NOT NULL,
    state INTEGER NOT NULL,
    n BIGINT NOT NULL,
    entries BIGINT NOT NULL
);

CREATE TABLE postings (
    id INTEGER NOT NULL PRIMARY KEY,
    segment BIGINT NOT NULL,
    term BIGINT NOT NULL,
    at BIGINT NOT NULL,
    n BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    entries BLOB NOT NULL
);
CREATE INDEX postings_by_term ON postings (segment, term, at, n, seq);

-- How far each recorder has come: what its spill file holds up to there is in the tables above.
CREATE TABLE replays (
    spill BLOB NOT NULL PRIMARY KEY,
    "offset" BIGINT NOT NULL
) WITHOUT ROWID;

-- People who were erased: a load of their old rows does not register them again.
CREATE TABLE erasures (
    -- Keyed hash of an identifier's pseudonym.
    person BLOB NOT NULL PRIMARY KEY,
    -- Counts the changes of this table, for those who follow them.
    version BIGINT NOT NULL,
    -- The same for all identifiers of a person.
    erasure BLOB NOT NULL,
    -- The pseudonym itself, until nothing of it is left.
    owner BLOB,
    at BIGINT NOT NULL,
    touched_at BIGINT NOT NULL,
    done_at BIGINT,
    -- The person came back.
    lifted_at BIGINT
) WITHOUT ROWID;
CREATE INDEX erasures_by_version ON erasures (version);
