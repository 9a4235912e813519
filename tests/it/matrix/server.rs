//! The PostgreSQL server that the tests share.

use std::path::Path;
use std::process::Command;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use provenance_tests::postgres::Database;

diesel::table! {
    only_here (id) {
        id -> Integer,
    }
}

#[test]
fn each_test_has_a_database_of_its_own() {
    let schema = "CREATE TABLE only_here (id INTEGER)";
    let (one, two) = (Database::new(schema), Database::new(schema));
    let insert = "INSERT INTO only_here VALUES (1)";
    one.connect().batch_execute(insert).unwrap();
    let found: i64 = only_here::table.count().get_result(&mut two.connect()).unwrap();
    assert_eq!(found, 0);
    let url = one.url();
    let _open = one.connect();
    drop(one);
    assert!(PgConnection::establish(&url).is_err(), "the database is gone");
}

#[test]
fn the_server_ends_with_its_command() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/postgres");
    let run = Command::new(script)
        .args(["sh", "-c", "echo $PROVENANCE_TEST_POSTGRES; exit 7"])
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(7), "{}", String::from_utf8_lossy(&run.stderr));
    let url = String::from_utf8(run.stdout).unwrap();
    let folder = url.trim_end().rsplit('@').next().unwrap().replace("%2F", "/");
    assert!(folder.starts_with('/') && !Path::new(&folder).exists(), "{folder}");
}
