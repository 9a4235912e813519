//! Rows as `COPY .. FROM STDIN` takes them in its binary form.

use diesel::pg::{CopyFormat, CopyTarget};
use diesel::prelude::*;
use diesel::query_builder::QueryFragment;

use crate::store::statement::{Column, Row};

/// Signature, flags, length of the header's extension.
const HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Bytes that go to libpq at once.
const CHUNK: usize = 60_000;

/// Adds rows to a table, all of whose columns they have, in its order.
pub(super) fn copy<T, R>(table: T, rows: &[R], connection: &mut PgConnection) -> QueryResult<()>
where
    T: Table + CopyTarget<Table = T> + Clone + QueryFragment<diesel::pg::Pg>,
    R: Row,
{
    copy_of(table, rows, |row, column| row.columns(column), connection)
}

/// As [`copy`]; `columns` gives those of an item.
pub(super) fn copy_of<T, I>(
    table: T,
    rows: &[I],
    columns: impl for<'b> Fn(&'b I, &mut dyn FnMut(Column<'b>) -> QueryResult<()>) -> QueryResult<()>,
    connection: &mut PgConnection,
) -> QueryResult<()>
where
    T: Table + CopyTarget<Table = T> + Clone + QueryFragment<diesel::pg::Pg>,
{
    if rows.is_empty() {
        return Ok(());
    }
    diesel::copy_from(table.clone())
        .from_raw_data(table, |out: &mut dyn std::io::Write| -> QueryResult<()> {
            let mut bytes = HEADER.to_vec();
            for row in rows {
                put(row, &columns, &mut bytes)?;
                if bytes.len() >= CHUNK {
                    out.write_all(&bytes).map_err(unsent)?;
                    bytes.clear();
                }
            }
            bytes.extend((-1_i16).to_be_bytes());
            out.write_all(&bytes).map_err(unsent)
        })
        .with_format(CopyFormat::Binary)
        .execute(connection)
        .map(drop)
}

fn unsent(error: std::io::Error) -> diesel::result::Error {
    diesel::result::Error::SerializationError(Box::new(error))
}

fn put<I>(
    row: &I,
    columns: impl for<'b> Fn(&'b I, &mut dyn FnMut(Column<'b>) -> QueryResult<()>) -> QueryResult<()>,
    out: &mut Vec<u8>,
) -> QueryResult<()> {
    let start = out.len();
    out.extend([0; 2]);
    let mut count: i16 = 0;
    columns(row, &mut |column| {
        count += 1;
        match column {
            Column::Big(value) => field(out, &value.to_be_bytes()),
            Column::Int(value) => field(out, &value.to_be_bytes()),
            Column::Small(value) => field(out, &value.to_be_bytes()),
            Column::OptBig(Some(value)) => field(out, &value.to_be_bytes()),
            Column::OptInt(Some(value)) => field(out, &value.to_be_bytes()),
            Column::OptBytes(Some(value)) => field(out, value),
            Column::Bytes(value) => field(out, value),
            Column::OptBig(None) | Column::OptInt(None) | Column::OptBytes(None) => {
                out.extend((-1_i32).to_be_bytes());
                Ok(())
            }
        }
    })?;
    if let Some(columns) = out.get_mut(start..start + 2) {
        columns.copy_from_slice(&count.to_be_bytes());
    }
    Ok(())
}

fn field(out: &mut Vec<u8>, bytes: &[u8]) -> QueryResult<()> {
    let length = i32::try_from(bytes.len()).map_err(|e| diesel::result::Error::SerializationError(Box::new(e)))?;
    out.extend(length.to_be_bytes());
    out.extend(bytes);
    Ok(())
}
