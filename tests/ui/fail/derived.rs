use provenance::derived;

#[derived]
fn missing(income: f64) -> f64 {
    income
}

#[derived("Score.Credit", kind = "numbr", desciption = "x")]
fn keys(income: f64) -> f64 {
    income
}

#[derived("score.credit", skip)]
fn skip(income: f64) -> f64 {
    income
}

#[derived("score.credit")]
struct Score(f64);

struct Opaque;

#[derived("score.credit")]
fn unreadable(income: f64) -> Opaque {
    drop(income);
    Opaque
}

fn main() {
    let _ = Score(missing(keys(skip(1.0))));
    unreadable(1.0);
}
