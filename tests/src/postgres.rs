//! PostgreSQL for the tests: one server for a whole run where `scripts/postgres` began it, else one for this
//! process, and a database of its own for each test.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use diesel::connection::{Connection, SimpleConnection};
use diesel::{PgConnection, RunQueryDsl};

/// Where `scripts/postgres` says what it began.
const VARIABLE: &str = "PROVENANCE_TEST_POSTGRES";

/// An empty database that no other test uses; dropped at the end.
pub struct Database {
    name: String,
}

impl Database {
    /// Creates one and runs `schema` in it. Panics, naming the Debian package, where there is no PostgreSQL: a
    /// test without its database has not passed.
    pub fn new(schema: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let database = Database {
            name: format!("test_{}_{count}_{now}", std::process::id()),
        };
        // The strategy copies files instead of logging each page: faster for what is empty.
        let create = format!("CREATE DATABASE {} STRATEGY file_copy", database.name);
        administer(&create).unwrap_or_else(|error| panic!("{create}: {error}"));
        database.connect().batch_execute(schema).unwrap();
        database
    }

    /// For libpq and tokio-postgres: a Unix socket, no password.
    pub fn url(&self) -> String {
        format!("{}/{}", server(), self.name)
    }

    /// A connection with Diesel's default instrumentation, as a host would have it.
    pub fn connect(&self) -> PgConnection {
        PgConnection::establish(&self.url()).unwrap()
    }
}

impl Drop for Database {
    /// Also while connections are open. What fails here ends with the server.
    fn drop(&mut self) {
        let _ = administer(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
    }
}

fn administer(sql: &str) -> Result<usize, String> {
    let mut db = PgConnection::establish(&format!("{}/postgres", server())).map_err(|error| error.to_string())?;
    diesel::sql_query(sql)
        .execute(&mut db)
        .map_err(|error| error.to_string())
}

/// The URL of the server, without a database.
fn server() -> &'static str {
    static SERVER: OnceLock<Server> = OnceLock::new();
    let server = SERVER.get_or_init(|| match std::env::var(VARIABLE) {
        Ok(url) if !url.is_empty() => Server { url, _until: None },
        _ => Server::start(),
    });
    &server.url
}

struct Server {
    url: String,
    /// The script waits for the end of its input, which comes when this process ends, however it ends.
    _until: Option<ChildStdin>,
}

impl Server {
    // The script outlives this process, and is nobody's zombie.
    #[allow(clippy::zombie_processes)]
    fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/postgres");
        let mut child = Command::new(script)
            .args(["sh", "-c"])
            .arg(format!("echo \"${VARIABLE}\"; exec cat >/dev/null"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // What kills this process and its group must leave the script time to tidy up.
            .process_group(0)
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut url)
            .unwrap();
        if url.is_empty() {
            let mut why = String::new();
            child.stderr.take().unwrap().read_to_string(&mut why).unwrap();
            panic!("these tests need PostgreSQL. {why}");
        }
        Server {
            url: url.trim_end().to_owned(),
            _until: child.stdin.take(),
        }
    }
}
