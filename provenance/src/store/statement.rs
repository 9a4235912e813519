//! Statements by their text. Diesel compiles its own UPDATEs, upserts and `sql_query` anew each time, and a
//! batch has hundreds of them; a text that never changes stays compiled.

use std::marker::PhantomData;

use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Binary, Integer, Nullable, SmallInt, Text, Untyped};
use diesel::sqlite::Sqlite;

/// A value that goes in for a `?`.
pub(super) enum Bind<'a> {
    Big(i64),
    Int(i32),
    Small(i16),
    OptBig(Option<i64>),
    OptInt(Option<i32>),
    Text(&'a str),
    Bytes(&'a [u8]),
    OptBytes(Option<&'a [u8]>),
}

macro_rules! bind_from {
    ($($variant:ident($of:ty)),*) => {
        $(impl<'a> From<$of> for Bind<'a> {
            fn from(value: $of) -> Self {
                Bind::$variant(value)
            }
        })*
    };
}
bind_from!(
    Big(i64),
    Int(i32),
    Small(i16),
    OptBig(Option<i64>),
    OptInt(Option<i32>),
    Text(&'a str)
);
bind_from!(Bytes(&'a [u8]), OptBytes(Option<&'a [u8]>));

/// Statements for one of the databases.
macro_rules! statements_for {
    ($database:ty, $connection:ty) => {
        impl QueryFragment<$database> for Bind<'_> {
            fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, $database>) -> QueryResult<()> {
                match self {
                    Bind::Big(value) => out.push_bind_param::<BigInt, _>(value),
                    Bind::Int(value) => out.push_bind_param::<Integer, _>(value),
                    Bind::Small(value) => out.push_bind_param::<SmallInt, _>(value),
                    Bind::OptBig(value) => out.push_bind_param::<Nullable<BigInt>, _>(value),
                    Bind::OptInt(value) => out.push_bind_param::<Nullable<Integer>, _>(value),
                    Bind::Text(value) => out.push_bind_param::<Text, _>(*value),
                    Bind::Bytes(value) => out.push_bind_param::<Binary, _>(*value),
                    Bind::OptBytes(value) => out.push_bind_param::<Nullable<Binary>, _>(value),
                }
            }
        }

        impl<Id, ST> QueryFragment<$database> for Statement<'_, Id, ST> {
            fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, $database>) -> QueryResult<()> {
                let mut binds = self.binds.iter();
                for (at, text) in self.sql.split('?').enumerate() {
                    if at > 0
                        && let Some(bind) = binds.next()
                    {
                        bind.walk_ast(out.reborrow())?;
                    }
                    out.push_sql(text);
                }
                Ok(())
            }
        }

        impl<Id, ST> RunQueryDsl<$connection> for Statement<'_, Id, ST> {}
    };
}
statements_for!(Sqlite, SqliteConnection);
#[cfg(feature = "postgres-store")]
statements_for!(diesel::pg::Pg, PgConnection);

/// A text with `?` in it, and what goes in for them. `Id` stands for the text.
pub(super) struct Statement<'a, Id, ST = Untyped> {
    sql: &'static str,
    binds: Vec<Bind<'a>>,
    id: PhantomData<(Id, ST)>,
}

impl<'a, Id> Statement<'a, Id> {
    pub(super) fn new(sql: &'static str, binds: Vec<Bind<'a>>) -> Self {
        Statement {
            sql,
            binds,
            id: PhantomData,
        }
    }

    /// Gives columns of these types, in their order.
    pub(super) fn typed<ST>(self) -> Statement<'a, Id, ST> {
        Statement {
            sql: self.sql,
            binds: self.binds,
            id: PhantomData,
        }
    }
}

/// A statement with these values; each place in the code keeps its own compiled.
macro_rules! statement {
    ($sql:expr $(, $bind:expr)* $(,)?) => {{
        struct Id;
        $crate::store::statement::Statement::<Id>::new(
            $sql,
            vec![$($crate::store::statement::Bind::from($bind)),*],
        )
    }};
}
pub(super) use statement;

impl<Id: 'static, ST> QueryId for Statement<'_, Id, ST> {
    type QueryId = Id;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<Id, ST> Query for Statement<'_, Id, ST> {
    type SqlType = ST;
}

/// A row of a table that only grows.
pub(super) trait Row {
    /// Stands for the table.
    type Name: 'static;
    /// Up to the rows. A failure ends the transaction: to undo one statement of it, SQLite would have
    /// to keep copies of what each changes.
    const INTO: &'static str;

    /// Calls `column` for each of its columns.
    fn columns<'b>(&'b self, column: &mut dyn FnMut(Column<'b>) -> QueryResult<()>) -> QueryResult<()>;
}

/// A row's value, where it stands.
pub(super) enum Column<'b> {
    Big(&'b i64),
    Int(&'b i32),
    Small(&'b i16),
    OptBig(&'b Option<i64>),
    OptInt(&'b Option<i32>),
    Bytes(&'b [u8]),
    OptBytes(Option<&'b [u8]>),
}

/// Rows a statement: an array of fixed length keeps its prepared statement, and 16 columns of it
/// stay below the 999 variables of older SQLite builds.
const CHUNK: usize = 32;

const NULL: Option<Vec<u8>> = None;

struct Rows<'r, R, const N: usize>(&'r [R; N]);

impl<R: Row, const N: usize> QueryFragment<Sqlite> for Rows<'_, R, N> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql(R::INTO);
        let mut between = " (";
        for row in self.0 {
            row.columns(&mut |column| {
                out.push_sql(std::mem::replace(&mut between, ", "));
                match column {
                    Column::Big(value) => out.push_bind_param::<BigInt, _>(value),
                    Column::Int(value) => out.push_bind_param::<Integer, _>(value),
                    Column::Small(value) => out.push_bind_param::<SmallInt, _>(value),
                    Column::OptBig(value) => out.push_bind_param::<Nullable<BigInt>, _>(value),
                    Column::OptInt(value) => out.push_bind_param::<Nullable<Integer>, _>(value),
                    Column::Bytes(value) => out.push_bind_param::<Binary, _>(value),
                    Column::OptBytes(Some(value)) => out.push_bind_param::<Binary, _>(value),
                    Column::OptBytes(None) => out.push_bind_param::<Nullable<Binary>, _>(&NULL),
                }
            })?;
            between = "), (";
        }
        out.push_sql(")");
        Ok(())
    }
}

impl<R: Row, const N: usize> QueryId for Rows<'_, R, N> {
    type QueryId = [R::Name; N];
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<R, const N: usize> RunQueryDsl<SqliteConnection> for Rows<'_, R, N> {}

pub(super) fn insert<R: Row>(rows: &[R], connection: &mut SqliteConnection) -> QueryResult<()> {
    let (chunks, rest) = rows.as_chunks::<CHUNK>();
    for chunk in chunks {
        Rows(chunk).execute(connection)?;
    }
    let (rest, _) = rest.as_chunks::<1>();
    for row in rest {
        Rows(row).execute(connection)?;
    }
    Ok(())
}
