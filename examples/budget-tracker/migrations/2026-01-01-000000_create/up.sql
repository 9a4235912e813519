CREATE TABLE users (
    id INTEGER PRIMARY KEY NOT NULL,
    email TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    birthday TEXT NOT NULL,
    gender TEXT NOT NULL,
    income DOUBLE NOT NULL,
    currency TEXT NOT NULL,
    budget_style TEXT NOT NULL,
    goals TEXT NOT NULL,
    week_start TEXT NOT NULL
);

CREATE TABLE expenses (
    id INTEGER PRIMARY KEY NOT NULL,
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    amount DOUBLE NOT NULL,
    category TEXT NOT NULL,
    description TEXT NOT NULL,
    date TEXT NOT NULL
);
CREATE INDEX expenses_by_user ON expenses (user_id, date);

CREATE TABLE sessions (
    token_sha256 TEXT PRIMARY KEY NOT NULL,
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    expires_at BIGINT NOT NULL
);
