//! What the benchmarks that load a server with `wrk` share.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

/// What `wrk` told of one round.
#[derive(Debug)]
pub struct Load {
    /// Requests a second.
    pub requests_a_second: f64,
    /// How many in all.
    pub requests: f64,
    /// Milliseconds that half of the requests took at most.
    pub p50: f64,
    /// Milliseconds that 99 % of the requests took at most.
    pub p99: f64,
    /// Answers that are no success, and connections that failed.
    pub errors: u64,
}

/// Loads `url` with one thread and so many connections; `script` says what is requested.
///
/// # Errors
/// `wrk` is missing, or what it says is not understood.
pub fn wrk(url: &str, connections: usize, seconds: u64, script: Option<&Path>) -> anyhow::Result<Load> {
    let mut command = Command::new("wrk");
    command.args(["-t1", "--latency", "--timeout", "10s"]);
    command.arg(format!("-c{connections}")).arg(format!("-d{seconds}s"));
    if let Some(script) = script {
        command.arg("-s").arg(script);
    }
    let output = command
        .arg(url)
        .output()
        .context("wrk does not start: it is in Debian's package of that name")?;
    let text = String::from_utf8_lossy(&output.stdout);
    anyhow::ensure!(output.status.success(), "wrk failed: {text}");
    let word = |begin: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(begin));
        line.map(str::trim)
            .with_context(|| format!("wrk told no {begin} in:\n{text}"))
    };
    let requests = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok())
        .context("wrk told no number of requests")?;
    // "Socket errors: connect 0, read 0, write 0, timeout 0", and only where there are some.
    let errors = ["Non-2xx or 3xx responses:", "Socket errors:"].map(|begin| {
        let said = word(begin).unwrap_or_default();
        let numbers = said.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok());
        numbers.sum::<u64>()
    });
    Ok(Load {
        requests_a_second: word("Requests/sec:")?.parse()?,
        requests,
        p50: milliseconds(word("50%")?)?,
        p99: milliseconds(word("99%")?)?,
        errors: errors.iter().sum(),
    })
}

fn milliseconds(text: &str) -> anyhow::Result<f64> {
    let number = text.trim_end_matches(char::is_alphabetic);
    let unit = match &text[number.len()..] {
        "us" => 0.001,
        "ms" => 1.0,
        "s" => 1000.0,
        "m" => 60_000.0,
        _ => anyhow::bail!("wrk told a time in no known unit: {text}"),
    };
    Ok(number.parse::<f64>()? * unit)
}

/// User and system time of a process so far.
///
/// # Errors
/// It is gone.
pub fn cpu(process: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("an unknown form of /proc/../stat")?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>())
        .sum::<Result<u64, _>>()?;
    // Linux tells a hundredth of a second on every platform.
    Ok(Duration::from_millis(ticks * 10))
}
