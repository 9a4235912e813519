//! PostgreSQL for the tests: one server for a whole run where `scripts/postgres` began it, else one for this
//! process, and a database of its own for each test.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
        let database = Database::named();
        // The strategy copies files instead of logging each page: faster for what is empty.
        let create = format!("CREATE DATABASE {} STRATEGY file_copy", database.name);
        administer(&create).unwrap_or_else(|error| panic!("{create}: {error}"));
        database.connect().batch_execute(schema).unwrap();
        database
    }

    /// One with the content of another one, which nobody has open.
    pub fn copy_of(other: &Database) -> Self {
        let database = Database::named();
        let create = format!(
            "CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy",
            database.name, other.name
        );
        administer(&create).unwrap_or_else(|error| panic!("{create}: {error}"));
        database
    }

    fn named() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Database {
            name: format!("test_{}_{count}_{now}", std::process::id()),
        }
    }

    /// For libpq and tokio-postgres: a Unix socket, no password.
    pub fn url(&self) -> String {
        format!("{}/{}", server(), self.name)
    }

    /// The Unix socket of its server.
    pub fn socket(&self) -> PathBuf {
        let (_, folder) = server().rsplit_once('@').unwrap();
        Path::new(&folder.replace("%2F", "/")).join(".s.PGSQL.5432")
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

/// A server of one test, which may be killed.
pub struct Private {
    folder: tempfile::TempDir,
    programs: PathBuf,
    postmaster: Option<Child>,
}

impl Private {
    /// Begins one in a folder of its own.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Private {
            folder,
            programs: programs(),
            postmaster: None,
        };
        if is_root() {
            let path = server.folder.path().to_str().unwrap();
            assert!(
                Command::new("chown")
                    .args(["postgres:", path])
                    .status()
                    .unwrap()
                    .success()
            );
        }
        let data = server.data();
        let made = server
            .command("initdb")
            .args([
                "--username",
                "postgres",
                "--auth",
                "trust",
                "--encoding",
                "UTF8",
                "--locale",
                "C",
                "--no-sync",
            ])
            .args(["--pgdata", &data])
            .status()
            .unwrap();
        assert!(made.success());
        server.start_again();
        server
    }

    /// Where it keeps everything.
    pub fn data(&self) -> String {
        self.folder.path().join("data").to_str().unwrap().to_owned()
    }

    /// Its database.
    pub fn url(&self) -> String {
        let folder = self.folder.path().to_str().unwrap().replace('/', "%2F");
        format!("postgres://postgres@{folder}/postgres")
    }

    /// The server refuses to be root.
    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = match is_root() {
            true => {
                let mut command = Command::new("setpriv");
                command
                    .args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"])
                    .arg(program);
                command
            }
            false => Command::new(program),
        };
        command
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// After [`Private::kill`].
    pub fn start_again(&mut self) {
        let folder = self.folder.path().to_str().unwrap().to_owned();
        let until = Instant::now() + Duration::from_secs(30);
        // Right after a kill, backends may still hold the memory.
        while Instant::now() < until {
            let data = self.data();
            let mut command = self.command("postgres");
            command.args([
                "-D",
                &data,
                "-k",
                &folder,
                "-c",
                "listen_addresses=",
                "-c",
                "fsync=off",
                "-c",
                "wal_recycle=off",
            ]);
            let mut child = command.spawn().unwrap();
            while child.try_wait().unwrap().is_none() && Instant::now() < until {
                if PgConnection::establish(&self.url()).is_ok() {
                    self.postmaster = Some(child);
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("the server did not start");
    }

    /// As `kill -9` does it.
    pub fn kill(&mut self) {
        let mut child = self.postmaster.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Some(mut child) = self.postmaster.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}

/// Debian keeps the server's programs out of PATH, a folder a version.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders
        .into_iter()
        .rev()
        .find(|folder| folder.join("postgres").exists())
        .unwrap_or_else(|| Path::new("").to_owned())
}
