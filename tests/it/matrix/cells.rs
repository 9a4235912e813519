//! The matrix as data: what each operation's evidence may look like, and why where it is not exact.

/// What a cell allows. Nothing allows a certain event that the database does not confirm.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Cell {
    /// Certain events, equal to what was committed.
    Exact,
    /// What was committed lies between the certain events and all events; the word stands in `extras.reason`.
    Uncertain(&'static str),
    /// Committed without an event, and counted as a blind spot.
    NotSeen(&'static str),
    /// The column has no such operation.
    Absent(&'static str),
}

use Cell::{Absent, Exact, NotSeen, Uncertain};

pub(super) const COLUMNS: [&str; 4] = [
    "SQLite",
    "SQLite, `SyncConnectionWrapper`",
    "PostgreSQL",
    "PostgreSQL, diesel-async",
];

/// Operation, and a cell a column.
pub(super) type Row = (&'static str, [Cell; 4]);

pub(super) const MATRIX: &[(&str, &[Row])] = &[
    (
        "Inserts",
        &[
            ("insert_by_value", EXACT),
            ("insert_by_reference", EXACT),
            ("insert_a_vec", [Exact, Absent("no_batch"), Exact, Exact]),
            ("insert_a_slice", [Exact, Absent("no_batch"), Exact, Exact]),
            (
                "insert_a_batch_with_defaults",
                [Exact, Absent("no_batch"), Exact, Exact],
            ),
            ("insert_a_tuple_of_models", EXACT),
            ("insert_an_embedded_model", EXACT),
            ("insert_without_optional_values", EXACT),
            ("insert_built_and_never_run", EXACT),
            ("insert_with_a_bind_that_fails", EXACT),
            ("insert_that_violates_a_constraint", EXACT),
        ],
    ),
    (
        "Updates",
        &[
            ("update_of_one_row", ROW_COUNT),
            ("update_of_no_row", ROW_COUNT),
            ("update_of_many_rows", ROW_COUNT),
            ("save_changes", RETURNING_UPDATE),
        ],
    ),
    (
        "`RETURNING`",
        &[
            ("insert_returning_the_model", RETURNING),
            ("insert_returning_an_id", RETURNING),
            ("insert_returning_that_fails", RETURNING),
            ("update_returning_the_model", RETURNING_UPDATE),
            ("update_returning_no_row", RETURNING_UPDATE),
        ],
    ),
    (
        "Conflicts",
        &[
            ("do_nothing_that_won", CONFLICT),
            ("do_nothing_that_lost", CONFLICT),
            ("upsert_that_inserts", CONFLICT),
            ("upsert_that_updates", UPSERT),
            ("upsert_of_the_same_values", SAME_UPSERT),
            ("upsert_from_excluded", UPSERT),
            ("upsert_of_another_column", UPSERT),
            (
                "replace",
                [Exact, Exact, Absent("sqlite_alone"), Absent("sqlite_alone")],
            ),
        ],
    ),
    (
        "Transactions",
        &[
            ("transaction_committed", EXACT),
            ("transaction_rolled_back", EXACT),
            ("nested_transactions_committed", EXACT),
            ("inner_transaction_rolled_back", EXACT),
            ("outer_transaction_rolled_back", EXACT),
            ("test_transaction", EXACT),
            ("panic_in_a_transaction", EXACT),
            ("commit_that_fails", EXACT),
            (
                "serialization_failure_retried",
                [Exact, Exact, Exact, Uncertain("transaction_may_have_aborted")],
            ),
            ("violation_in_a_transaction", EXACT),
            ("violation_in_a_savepoint", EXACT),
            ("violation_ignored_then_commit", EXACT),
            (
                "failed_returning_ignored_then_commit",
                [Exact, Exact, Exact, Uncertain("returning_not_confirmed")],
            ),
        ],
    ),
    (
        "Transactions in SQL text",
        &[
            ("begin_and_commit_by_batch_execute", EXACT),
            ("begin_and_rollback_by_batch_execute", EXACT),
            ("begin_and_commit_by_sql_query", EXACT),
            ("begin_and_rollback_by_sql_query", EXACT),
            ("savepoints_by_batch_execute", EXACT),
            ("savepoints_by_sql_query", EXACT),
            ("commit_among_several_statements", EXACT),
            ("rollback_among_several_statements", EXACT),
        ],
    ),
    (
        "Around the model",
        &[
            ("set_a_column", ROW_COUNT),
            ("set_a_column_of_no_row", ROW_COUNT),
            ("values_of_columns", EXACT),
            ("another_struct", EXACT),
            ("sql_query_insert_with_binds", EXACT),
            ("sql_query_update_with_binds", ROW_COUNT),
            ("literal_insert", EXACT),
            ("literal_update", ROW_COUNT),
            ("literal_inserts_in_one_text", EXACT),
            ("literal_insert_rolled_back", EXACT),
            ("insert_from_select", [NotSeen("inside_the_database"); 4]),
            (
                "copy_of_models",
                [
                    Absent("postgresql_alone"),
                    Absent("postgresql_alone"),
                    Exact,
                    Absent("no_copy"),
                ],
            ),
            (
                "copy_of_text",
                [
                    Absent("postgresql_alone"),
                    Absent("postgresql_alone"),
                    NotSeen("copied_text"),
                    Absent("no_copy"),
                ],
            ),
        ],
    ),
    (
        "Deletes",
        &[
            ("delete_one_row", ROW_COUNT),
            ("delete_all_rows", ROW_COUNT),
            ("delete_no_row", ROW_COUNT),
            ("delete_rolled_back", EXACT),
        ],
    ),
    (
        "Connections",
        &[
            ("r2d2_pool", [Exact, Absent("blocking"), Exact, Absent("blocking")]),
            (
                "multi_connection",
                [Exact, Absent("blocking"), Exact, Absent("blocking")],
            ),
            ("deadpool_pool", [Absent("async"), Exact, Absent("async"), Exact]),
            ("bb8_pool", [Absent("async"), Exact, Absent("async"), Exact]),
            (
                "rows_of_another_connection",
                [
                    Absent("async"),
                    Exact,
                    Absent("async"),
                    Uncertain("returning_not_confirmed"),
                ],
            ),
            (
                "dropped_future",
                [
                    Absent("async"),
                    Exact,
                    Absent("async"),
                    Uncertain("statements_overlapped"),
                ],
            ),
        ],
    ),
];

const EXACT: [Cell; 4] = [Exact; 4];
const ROW_COUNT: [Cell; 4] = postgresql(Uncertain("row_count_not_reported"));
const CONFLICT: [Cell; 4] = postgresql(Uncertain("on_conflict"));
/// The probe sees that a row is new; that it was there, SQLite does not say.
const UPSERT: [Cell; 4] = [Uncertain("on_conflict"); 4];
/// SQL text is not read for whether two values are the same.
const SAME_UPSERT: [Cell; 4] = [
    Exact,
    Uncertain("on_conflict"),
    Uncertain("on_conflict"),
    Uncertain("on_conflict"),
];
const RETURNING_UPDATE: [Cell; 4] = [
    Exact,
    Exact,
    Uncertain("row_count_not_reported"),
    Uncertain("returning_not_confirmed"),
];
const RETURNING: [Cell; 4] = [Exact, Exact, Exact, Uncertain("returning_not_confirmed")];

const fn postgresql(cell: Cell) -> [Cell; 4] {
    [Exact, Exact, cell, cell]
}

/// The page's notes, by word.
pub(super) const NOTES: &[(&str, &str)] = &[
    (
        "row_count_not_reported",
        "Diesel does not tell how many rows a statement met; on SQLite the probe asks the database. On PostgreSQL a \
         statement ends before the rows of its `RETURNING` are read.",
    ),
    (
        "returning_not_confirmed",
        "diesel-async reports the statement's end before the server has answered, and its rows or its error come \
         after that.",
    ),
    (
        "on_conflict",
        "Diesel does not tell whether the row was new or an existing one won. On SQLite the probe asks the database, \
         which tells of a new row alone, and not always.",
    ),
    (
        "statements_overlapped",
        "A future was dropped while its statement ran: whether the server ended it is not reported.",
    ),
    (
        "transaction_may_have_aborted",
        "diesel-async does not report that a query failed, and the last statement before COMMIT was one, or bound no \
         tracked value: PostgreSQL answers COMMIT with success when it rolls back.",
    ),
    (
        "inside_the_database",
        "The values were made by the database and never passed through the program.",
    ),
    ("copied_text", "The rows are bytes in COPY's own format."),
    ("sqlite_alone", "Diesel has `replace_into` for SQLite and MySQL."),
    ("postgresql_alone", "`COPY` is PostgreSQL's."),
    ("no_copy", "diesel-async has no `COPY`."),
    (
        "no_batch",
        "`SyncConnectionWrapper` does not insert many rows in one statement.",
    ),
    ("blocking", "For connections that block."),
    ("async", "For connections of diesel-async."),
];
