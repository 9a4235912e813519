//! A database of either kind that keeps a journal of its own: triggers write down, inside the same
//! transaction, what a statement stored. So the journal holds exactly what was committed.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use provenance_tests::postgres::Database;

/// A connection of either kind, as a host has it that chooses at run time.
#[derive(diesel::MultiConnection)]
pub(super) enum Either {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

pub(super) enum Place {
    Sqlite(tempfile::TempDir),
    Postgres(Database),
}

/// One column's value that the database stored; of a DELETE, that it happened.
#[derive(QueryableByName, Clone)]
pub(super) struct Entry {
    #[diesel(sql_type = Text)]
    pub(super) action: String,
    #[diesel(sql_type = Text)]
    pub(super) field: String,
    #[diesel(sql_type = Text)]
    pub(super) value: String,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

const SQLITE: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = OFF;
    CREATE TABLE people (
        id INTEGER PRIMARY KEY,
        email TEXT NOT NULL UNIQUE,
        income DOUBLE,
        plan TEXT NOT NULL DEFAULT 'free'
    );
    CREATE TABLE notes (
        id INTEGER PRIMARY KEY,
        person_id INTEGER NOT NULL REFERENCES people (id) DEFERRABLE INITIALLY DEFERRED
    );
    CREATE TABLE journal (action TEXT NOT NULL, field TEXT NOT NULL, value TEXT NOT NULL);
    CREATE TRIGGER people_insert AFTER INSERT ON people BEGIN
        INSERT INTO journal SELECT 'insert', 'email', NEW.email;
        INSERT INTO journal SELECT 'insert', 'income', NEW.income WHERE NEW.income IS NOT NULL;
    END;
    CREATE TRIGGER people_email AFTER UPDATE OF email ON people BEGIN
        INSERT INTO journal SELECT 'update', 'email', NEW.email;
    END;
    CREATE TRIGGER people_income AFTER UPDATE OF income ON people WHEN NEW.income IS NOT NULL BEGIN
        INSERT INTO journal SELECT 'update', 'income', NEW.income;
    END;
    CREATE TRIGGER people_delete AFTER DELETE ON people BEGIN
        INSERT INTO journal SELECT 'delete', '', '';
    END;";

const POSTGRES: &str = "
    CREATE TABLE people (
        id SERIAL PRIMARY KEY,
        email TEXT NOT NULL UNIQUE,
        income DOUBLE PRECISION,
        plan TEXT NOT NULL DEFAULT 'free'
    );
    CREATE TABLE notes (
        id SERIAL PRIMARY KEY,
        person_id INTEGER NOT NULL REFERENCES people (id) DEFERRABLE INITIALLY DEFERRED
    );
    CREATE TABLE journal (action TEXT NOT NULL, field TEXT NOT NULL, value TEXT NOT NULL);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF TG_OP = 'DELETE' THEN
            INSERT INTO journal VALUES ('delete', '', '');
        ELSE
            INSERT INTO journal SELECT lower(TG_OP), field, value
                FROM (VALUES ('email', NEW.email), ('income', NEW.income::text)) AS row (field, value)
                WHERE value IS NOT NULL AND field IN (SELECT unnest(TG_ARGV));
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER people_insert AFTER INSERT ON people FOR EACH ROW EXECUTE FUNCTION note('email', 'income');
    CREATE TRIGGER people_email AFTER UPDATE OF email ON people FOR EACH ROW EXECUTE FUNCTION note('email');
    CREATE TRIGGER people_income AFTER UPDATE OF income ON people FOR EACH ROW EXECUTE FUNCTION note('income');
    CREATE TRIGGER people_delete AFTER DELETE ON people FOR EACH ROW EXECUTE FUNCTION note();";

impl Place {
    pub(super) fn sqlite() -> Self {
        let place = Place::Sqlite(tempfile::tempdir().unwrap());
        place.run(SQLITE);
        place
    }

    pub(super) fn postgres() -> Self {
        Place::Postgres(Database::new(POSTGRES))
    }

    pub(super) fn url(&self) -> String {
        match self {
            Place::Sqlite(folder) => folder.path().join("app.db").to_str().unwrap().to_owned(),
            Place::Postgres(database) => database.url(),
        }
    }

    /// A connection of its own.
    pub(super) fn open(&self) -> Either {
        let url = self.url();
        match self {
            Place::Sqlite(_) => Either::Sqlite(SqliteConnection::establish(&url).unwrap()),
            Place::Postgres(_) => Either::Postgres(PgConnection::establish(&url).unwrap()),
        }
    }

    /// Runs `sql` on a connection of its own.
    pub(super) fn run(&self, sql: &str) {
        self.open().batch_execute(sql).unwrap();
    }

    /// Three rows, and nothing in the journal.
    pub(super) fn seed(&self) {
        self.run(
            "DELETE FROM notes;
             DELETE FROM people;
             INSERT INTO people (id, email) VALUES
                (1, 'seed1@example.org'), (2, 'seed2@example.org'), (3, 'seed3@example.org');
             DELETE FROM journal;",
        );
        if let Place::Postgres(_) = self {
            self.run("ALTER SEQUENCE people_id_seq RESTART WITH 1000");
        }
    }

    /// What was committed since the seed. Waits for the end of what still runs.
    pub(super) fn journal(&self) -> Vec<Entry> {
        let mut db = self.open();
        if let Place::Postgres(_) = self {
            let others = "SELECT count(*) AS count FROM pg_stat_activity
                          WHERE datname = current_database() AND pid <> pg_backend_pid()";
            let patience = Instant::now() + Duration::from_secs(10);
            while diesel::sql_query(others).get_result::<Count>(&mut db).unwrap().count > 0 {
                assert!(Instant::now() < patience, "a connection is still open");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        diesel::sql_query("SELECT action, field, value FROM journal")
            .load(&mut db)
            .unwrap()
    }
}
