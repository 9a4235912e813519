//! What Diesel's operations leave in the database, and what the evidence says of it: `cells` holds what each
//! may look like, the page `docs/diesel-matrix.md` what was seen.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;

use futures_util::future::LocalBoxFuture;

use cells::{COLUMNS, Cell, MATRIX};
use facts::{Told, beyond, committed, either_way, evidence, sum};
use place::Place;

/// What an operation is to a column: its name in the matrix, and what it does.
type Operation = for<'p> fn(&'p Place) -> LocalBoxFuture<'p, ()>;
type Operations = &'static [(&'static str, Operation)];

/// Lists the operations of a module: those that take a connection, then those that open their own.
macro_rules! operations {
    ($($connected:ident),* ; $($placed:ident),*) => {
        pub(in crate::matrix) const OPERATIONS: crate::matrix::Operations = &[
            $((stringify!($connected), |place| Box::pin(async move {
                let mut db = connect(place).await;
                $connected(&mut db).await
            })),)*
            $((stringify!($placed), |place| Box::pin($placed(place))),)*
        ];
    };
}

// The columns share the text of their operations, and compile it with connections of their own.
#[allow(clippy::duplicate_mod)]
mod asynchronous;
#[allow(clippy::duplicate_mod)]
mod blocking;
mod cells;
mod facts;
mod models;
mod mysql;
mod page;
mod place;
mod server;
mod stress;

/// A kind of connection, in the order of `cells::COLUMNS`.
struct Column {
    place: fn() -> Place,
    operations: &'static [Operations],
    run: fn(Operation, &Place, &provenance::Tracker),
}

const ALL: [Column; 4] = [
    Column {
        place: Place::sqlite,
        operations: &[
            blocking::sqlite::batches::OPERATIONS,
            blocking::sqlite::operations::OPERATIONS,
            blocking::sqlite::pools::OPERATIONS,
            blocking::sqlite::replace::OPERATIONS,
        ],
        run: blocking::run,
    },
    Column {
        place: Place::sqlite,
        operations: &[
            asynchronous::sqlite::operations::OPERATIONS,
            asynchronous::sqlite::pools::OPERATIONS,
            asynchronous::sqlite::replace::OPERATIONS,
        ],
        run: asynchronous::run,
    },
    Column {
        place: Place::postgres,
        operations: &[
            blocking::postgres::batches::OPERATIONS,
            blocking::postgres::operations::OPERATIONS,
            blocking::postgres::pools::OPERATIONS,
            blocking::postgres::copy::OPERATIONS,
        ],
        run: blocking::run,
    },
    Column {
        place: Place::postgres,
        operations: &[
            asynchronous::postgres::batches::OPERATIONS,
            asynchronous::postgres::operations::OPERATIONS,
            asynchronous::postgres::pools::OPERATIONS,
        ],
        run: asynchronous::run,
    },
];

/// What a cell turned out to be.
#[derive(PartialEq, Debug)]
enum Outcome {
    Exact,
    Uncertain(BTreeSet<String>),
    NotSeen(String),
    Absent(&'static str),
    /// What must not be, in any cell.
    Wrong(String),
}

#[test]
fn every_cell() {
    let columns: Vec<Vec<Outcome>> = std::thread::scope(|threads| {
        let columns: Vec<_> = ALL
            .iter()
            .enumerate()
            .map(|(at, column)| threads.spawn(move || column.outcomes(at)))
            .collect();
        columns.into_iter().map(|column| column.join().unwrap()).collect()
    });
    let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
    let mut seen = Vec::new();
    let mut unlike = String::new();
    for (operation, cells) in rows() {
        let outcomes: Vec<Outcome> = columns.iter_mut().map(|column| column.next().unwrap()).collect();
        for ((cell, outcome), column) in cells.iter().zip(&outcomes).zip(COLUMNS) {
            if !cell.is(outcome) {
                unlike += &format!("{operation}, {column}: {cell:?} in the matrix, but {outcome:?}\n");
            }
        }
        seen.push(outcomes);
    }
    assert!(unlike.is_empty(), "\n{unlike}");
    page::compare(&page::page(&seen));
}

fn rows() -> impl Iterator<Item = &'static cells::Row> {
    MATRIX.iter().flat_map(|(_, rows)| *rows)
}

impl Cell {
    /// Better than the matrix allows is no more right: then the matrix is out of date.
    fn is(self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (Cell::Exact, Outcome::Exact) => true,
            (Cell::Uncertain(word), Outcome::Uncertain(words)) => words.iter().eq([word]),
            (Cell::NotSeen(_), Outcome::NotSeen(_)) | (Cell::Absent(_), Outcome::Absent(_)) => true,
            _ => false,
        }
    }
}

impl Column {
    fn outcomes(&self, at: usize) -> Vec<Outcome> {
        let place = (self.place)();
        let named: BTreeSet<&str> = rows().map(|(name, _)| *name).collect();
        let mut operations = self.operations.iter().copied().flatten();
        assert!(
            operations.all(|(name, _)| named.contains(name)),
            "an operation without a row"
        );
        rows()
            .map(|(name, cells)| match cells[at] {
                Cell::Absent(why) => Outcome::Absent(why),
                cell => self.outcome(&place, name, cell),
            })
            .collect()
    }

    fn outcome(&self, place: &Place, name: &str, cell: Cell) -> Outcome {
        let operations = || self.operations.iter().copied().flatten();
        let Some((_, operation)) = operations().find(|(known, _)| *known == name) else {
            return Outcome::Wrong("a row without an operation".into());
        };
        place.seed();
        let evidence = evidence();
        let ran = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let _tracker = evidence.scoped();
            (self.run)(*operation, place, &evidence.tracker);
        }));
        if ran.is_err() {
            return Outcome::Wrong("the operation itself failed".into());
        }
        let mut committed = committed(&place.journal());
        let mut told = Told::by(&evidence.of("DATA_STORAGE"));
        if name.starts_with("upsert") {
            for facts in [&mut committed, &mut told.certain, &mut told.uncertain] {
                either_way(facts);
            }
        }
        let invented = beyond(&told.certain, &committed);
        let all = sum(&told.certain, &told.uncertain);
        let missing = beyond(&committed, &all);
        match (invented.is_empty(), missing.is_empty(), cell) {
            (false, ..) => Outcome::Wrong(format!("certain, and not committed: {invented:?}")),
            (_, true, _) if told.uncertain.is_empty() => Outcome::Exact,
            (_, true, _) => Outcome::Uncertain(told.reasons),
            (_, false, Cell::NotSeen(why)) if !evidence.blind_spots().is_empty() => Outcome::NotSeen(why.into()),
            (_, false, _) => Outcome::Wrong(format!(
                "committed, and not recorded: {missing:?}; blind spots: {:?}",
                evidence.blind_spots()
            )),
        }
    }
}
