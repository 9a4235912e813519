//! A request's scope goes where its work goes, and nowhere else.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use provenance::{
    EventType, Scope, Tracked, Tracker, derived, egress, in_scope, provenance_input, record_event, scoped,
};
use provenance_tests::{Evidence, fields, text};

fn step(task: usize, at: &str) {
    let event_type: EventType = "X_STEP".parse().unwrap();
    record_event(event_type).extra("task", task).extra("at", at).submit();
}

fn source() -> Option<String> {
    Scope::current().map(|scope| scope.source().to_string())
}

/// Numbers that only have to look unlike each other.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    async fn pause(&mut self) {
        for _ in 0..self.roll(4) {
            tokio::task::yield_now().await;
        }
        if self.roll(8) == 0 {
            tokio::time::sleep(Duration::from_micros(self.roll(400))).await;
        }
    }
}

/// Everything that one request may do with its scope, in an order of its own.
async fn wander(tracker: Tracker, task: usize) {
    let mut dice = Dice(task as u64 * 7919 + 1);
    for _ in 0..6 {
        dice.pause().await;
        match dice.roll(6) {
            0 => step(task, "await"),
            1 => {
                let one = async {
                    tokio::task::yield_now().await;
                    step(task, "join");
                };
                tokio::join!(one, async { step(task, "join") });
            }
            2 => {
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_micros(dice.roll(200))) => step(task, "select"),
                    () = tokio::task::yield_now() => step(task, "select"),
                }
            }
            3 => {
                let spawned = scoped(async move {
                    tokio::task::yield_now().await;
                    step(task, "spawn");
                });
                let spawned = provenance::test::scoped_future(&tracker, spawned);
                tokio::spawn(spawned).await.unwrap();
            }
            4 => {
                let tracker = tracker.clone();
                let blocking = in_scope(move || {
                    let _tracker = provenance::test::scoped(&tracker);
                    step(task, "spawn_blocking");
                });
                tokio::task::spawn_blocking(blocking).await.unwrap();
            }
            _ => {
                // A spawned task that nobody gave a scope has none.
                let bare = tokio::spawn(async { source() });
                assert_eq!(bare.await.unwrap(), None);
                step(task, "await");
            }
        }
        assert_eq!(source(), Some(format!("job {task}")));
    }
}

fn keep_their_scopes(runtime: &tokio::runtime::Runtime) {
    const TASKS: usize = 200;
    let evidence = Evidence::default();
    let scopes: Vec<Scope> = (0..TASKS).map(|task| Scope::new(format!("job {task}"))).collect();
    runtime.block_on(async {
        let tasks: Vec<_> = scopes
            .iter()
            .enumerate()
            .map(|(task, scope)| {
                let work = scope.run(wander(evidence.tracker.clone(), task));
                tokio::spawn(provenance::test::scoped_future(&evidence.tracker, work))
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(source(), None);

    let events = evidence.of("X_STEP");
    assert!(events.len() >= TASKS * 6, "{}", events.len());
    let mut hops: HashMap<String, usize> = HashMap::new();
    for event in &events {
        let task = usize::try_from(event["extras"]["task"].as_u64().unwrap()).unwrap();
        let hop = text(&event["extras"]["at"]);
        assert_eq!(event["request_id"], **scopes[task].request_id(), "{hop} of task {task}");
        assert_eq!(event["actor"], format!("job {task}").as_str(), "{hop}");
        *hops.entry(hop).or_default() += 1;
    }
    assert_eq!(hops.len(), 5, "every kind of hop was made: {hops:?}");
}

#[test]
fn tasks_on_one_thread_keep_their_scopes() {
    keep_their_scopes(
        &tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap(),
    );
}

#[test]
fn tasks_on_many_threads_keep_their_scopes() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    keep_their_scopes(&builder.worker_threads(4).enable_time().build().unwrap());
}

#[test]
fn threads_and_pools_take_the_scope_along() {
    let scope = Scope::new("job report");
    let _scope = scope.enter();
    let expected = Some("job report".to_owned());
    assert_eq!(std::thread::spawn(source).join().unwrap(), None);
    assert_eq!(std::thread::spawn(in_scope(source)).join().unwrap(), expected);
    let borrowed = String::from("borrowed");
    std::thread::scope(|threads| {
        let thread = threads.spawn(in_scope(|| (source(), borrowed.len())));
        assert_eq!(thread.join().unwrap(), (expected.clone(), 8));
    });

    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    pool.spawn(in_scope(move || sender.send(source()).unwrap()));
    assert_eq!(receiver.recv().unwrap(), expected);
    pool.install(|| {
        use rayon::prelude::*;
        let sources: Vec<_> = (0..64)
            .into_par_iter()
            .map(|_| {
                let _scope = scope.enter();
                source()
            })
            .collect();
        assert!(sources.iter().all(|source| *source == expected));
        // Nothing of it stays on the pool's threads, but for the one that the guard below lives on.
        let left: Vec<_> = (0..64).into_par_iter().map(|_| source()).collect();
        assert!(left.iter().all(Option::is_none), "{left:?}");
    });
}

#[test]
fn a_closure_that_panics_leaves_no_scope_behind() {
    let scope = Scope::new("job report");
    let closure = {
        let _scope = scope.enter();
        in_scope(|| {
            assert_eq!(source().as_deref(), Some("job report"));
            std::panic::resume_unwind(Box::new(()));
        })
    };
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(closure)).is_err());
    assert_eq!(source(), None);

    let poll = scope.run(async { std::panic::resume_unwind(Box::new(())) });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let poll = || runtime.block_on(poll);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(poll)).is_err());
    assert_eq!(source(), None);
}

#[derive(Tracked)]
#[tracked(owner(email))]
struct Person {
    #[tracked("contact.email")]
    email: String,
    #[tracked("financial.income")]
    income: f64,
}

#[async_trait::async_trait]
trait Desk {
    async fn enrol(&self, person: Person, (city, _): (String, u8)) -> Result<usize, std::num::ParseIntError>;
    async fn score(&self, income: f64) -> f64;
    async fn write(&self, email: &str) -> usize;
}

struct Office {
    fee: f64,
}

#[async_trait::async_trait]
impl Desk for Office {
    #[provenance_input]
    async fn enrol(&self, person: Person, (city, _): (String, u8)) -> Result<usize, std::num::ParseIntError> {
        tokio::task::yield_now().await;
        let fee: u8 = self.fee.to_string().parse()?;
        let score = self.score(person.income).await;
        let written = self.write(&person.email).await;
        Ok(usize::from(fee) + city.len() + written + usize::from(score > 0.0))
    }

    #[derived("score.credit")]
    async fn score(&self, income: f64) -> f64 {
        tokio::task::yield_now().await;
        income / self.fee
    }

    #[egress(recipient = "post")]
    async fn write(&self, #[payload] email: &str) -> usize {
        tokio::task::yield_now().await;
        email.len()
    }
}

#[test]
fn attributes_in_an_async_trait_see_the_same_request() {
    let evidence = Evidence::default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let desk: Arc<dyn Desk + Send + Sync> = Arc::new(Office { fee: 2.0 });
    let person = Person {
        email: "ada@example.com".into(),
        income: 4217.35,
    };
    let work = async move { desk.enrol(person, ("Turin".into(), 0)).await };
    let work = provenance::test::scoped_future(&evidence.tracker, work);
    assert_eq!(runtime.block_on(runtime.spawn(work)).unwrap(), Ok(2 + 5 + 15 + 1));

    let events = evidence.events();
    let types: Vec<_> = events.iter().map(|event| text(&event["event_type"])).collect();
    assert_eq!(types, ["DATA_COLLECTION", "DATA_DERIVATION", "DATA_SHARE"]);
    assert_eq!(fields(&events[0]), ["email", "income"]);
    assert!(text(&events[0]["actor"]).ends_with("::enrol"), "{}", events[0]["actor"]);
    for event in &events {
        assert_eq!(event["request_id"], events[0]["request_id"]);
        assert_eq!(event["actor"], events[0]["actor"]);
    }
}

/// What `scoped` promises of the future: it is polled inside, and dropped like any other.
#[test]
fn a_future_that_is_dropped_half_way_leaves_no_scope_behind() {
    let scope = Scope::new("job report");
    let mut future = Box::pin(scope.run(std::future::pending::<()>()));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(future.as_mut().poll(&mut context).is_pending());
    assert_eq!(source(), None);
    drop(future);
    assert_eq!(source(), None);
}
