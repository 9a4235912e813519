//! Many tasks at once, each with operations in an order that a seed decides, many of which fail. Afterwards the
//! evidence must agree with the database's journal, as in the matrix.

use std::sync::Arc;

use provenance_tests::Evidence;

use super::facts::{Told, beyond, committed, either_way, evidence, sum};
use super::place::Place;
use super::{asynchronous, blocking};

const TASKS: u64 = 32;

/// Operations a task; `PROVENANCE_STRESS` sets another number.
const OPERATIONS: usize = 100;

/// What a seed decides: SplitMix64.
pub(super) struct Dice(u64);

impl Dice {
    /// Of `task`.
    pub(super) fn of(task: u64) -> Self {
        Dice(task.wrapping_mul(0xD1B5_4A32_D192_ED03))
    }

    /// Below `sides`.
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % sides
    }
}

type Places = Vec<Arc<Place>>;

/// The place of a task.
fn of(task: u64, places: &Places) -> Arc<Place> {
    places[usize::try_from(task).unwrap() % places.len()].clone()
}

fn operations() -> usize {
    std::env::var("PROVENANCE_STRESS").map_or(OPERATIONS, |number| number.parse().unwrap())
}

/// What `run` does to the places, judged: what was committed, and what the evidence is certain of, and of what not.
fn stress(places: Vec<Place>, run: impl FnOnce(&Places, &Evidence)) -> Told {
    let places: Places = places.into_iter().map(Arc::new).collect();
    let evidence = evidence();
    run(&places, &evidence);
    let journal: Vec<_> = places.iter().flat_map(|place| place.journal()).collect();
    let mut committed = committed(&journal);
    let mut told = Told::by(&evidence.of("DATA_STORAGE"));
    for facts in [&mut committed, &mut told.certain, &mut told.uncertain] {
        either_way(facts);
        // A DELETE has no values to tell it from another.
        facts.retain(|(action, ..), _| action != "delete");
    }
    println!(
        "{} values committed, {} certain, {} uncertain {:?}; blind spots: {:?}",
        committed.len(),
        told.certain.len(),
        told.uncertain.len(),
        told.reasons,
        evidence.blind_spots(),
    );
    assert!(committed.len() > operations() * 10, "{}", committed.len());
    let invented = beyond(&told.certain, &committed);
    assert!(invented.is_empty(), "certain, and not committed: {invented:?}");
    let missing = beyond(&committed, &sum(&told.certain, &told.uncertain));
    assert!(missing.is_empty(), "committed, and not recorded: {missing:?}");
    told
}

/// A thread a task.
macro_rules! on_threads {
    ($column:ident) => {
        |places: &Places, evidence: &Evidence| {
            std::thread::scope(|threads| {
                for task in 0..TASKS {
                    threads.spawn(move || {
                        let _tracker = evidence.scoped();
                        let task = blocking::$column::mixed::task(of(task, places), Dice::of(task), operations());
                        futures_util::FutureExt::now_or_never(task).unwrap();
                    });
                }
            })
        }
    };
}

/// All tasks on two threads, so that they meet on one and move between them.
macro_rules! on_tasks {
    ($column:ident) => {
        |places: &Places, evidence: &Evidence| {
            let runtime = asynchronous::runtime(2, &evidence.tracker);
            let tasks: Vec<_> = (0..TASKS)
                .map(|task| {
                    let task = asynchronous::$column::mixed::task(of(task, places), Dice::of(task), operations());
                    runtime.spawn(task)
                })
                .collect();
            for task in tasks {
                runtime.block_on(task).unwrap();
            }
        }
    };
}

/// SQLite lets one write at a time, and has the others sleep: more files are more at once.
fn files() -> Vec<Place> {
    (0..8).map(|_| Place::sqlite()).collect()
}

/// All but what the matrix allows the column.
fn is_exact_but(told: &Told, allowed: &[&str]) {
    assert!(told.reasons.iter().eq(allowed), "{:?}", told.reasons);
}

#[test]
fn sqlite() {
    is_exact_but(&stress(files(), on_threads!(sqlite)), &["on_conflict"]);
}

#[test]
fn sqlite_behind_an_async_wrapper() {
    let told = stress(files(), on_tasks!(sqlite));
    is_exact_but(&told, &["on_conflict"]);
}

#[test]
fn postgres() {
    stress(vec![Place::postgres()], on_threads!(postgres));
}

#[test]
fn postgres_async() {
    stress(vec![Place::postgres()], on_tasks!(postgres));
}
