//! `COPY .. FROM STDIN`.

use diesel::pg::CopyFormat;
use diesel::prelude::*;
use diesel::result::Error;

use super::{Db, connect};
use crate::matrix::models::*;

operations! { copy_of_models, copy_of_text; }

async fn copy_of_models(db: &mut Db) {
    let rows = [row(), row()];
    let copied = diesel::copy_from(people::table).from_insertable(&rows[..]).execute(db);
    assert_eq!(copied, Ok(2));
}

async fn copy_of_text(db: &mut Db) {
    let line = format!("{},{}\n", email(), income());
    let copy = diesel::copy_from(people::table).from_raw_data((people::email, people::income), |into| {
        into.write_all(line.as_bytes()).unwrap();
        Ok::<_, Error>(())
    });
    assert_eq!(copy.with_format(CopyFormat::Csv).execute(db), Ok(1));
}
