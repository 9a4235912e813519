#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::binds::{Binds, Bound};
use super::plan::{Dialect, Literal, Plan, Term};
use crate::columns::ColumnMap;
use crate::config::Config;
use crate::vocabulary::Action;

fn map() -> ColumnMap {
    let field = |name: &str| format!(r#"{{"name":"{name}","category":"contact.{name}"}}"#);
    let fields = ["email", "phone", "type_"].map(field).join(",");
    let model = format!(
        r#"{{"v":1,"kind":"model","path":"crm::User","at":"src/m.rs:1","table":"users","fields":[{fields}],"owner":["user","email"],"owner_columns":["id","email"]}}"#
    );
    let inventory = crate::inventory::parse((model + "\n").as_bytes()).unwrap();
    ColumnMap::new(&Config::default(), &inventory)
}

/// A plan as text: `insert users [email=?0 phone=!] [..]`, owners in angle brackets.
fn plan(sql: &str, dialect: Dialect) -> String {
    shown(&Plan::of(sql, false, Some(dialect), &map()))
}

fn shown(plan: &Plan) -> String {
    let term = |term: &Term| match term {
        Term::Bind(index) => format!("?{index}"),
        Term::Literal { index, negative } => format!("{}#{index}", if *negative { "-" } else { "" }),
        Term::Nothing => "_".to_owned(),
        Term::Opaque => "!".to_owned(),
    };
    let mut said: Vec<String> = Vec::new();
    for write in &plan.writes {
        let mut text = format!("{} {}", write.action.as_str(), write.table.table);
        for row in &write.rows {
            let values = row
                .values
                .iter()
                .map(|(column, of)| format!("{}={}", column.name, term(of)));
            let owners = row
                .owners
                .iter()
                .map(|(kind, of)| format!("<{}={}>", write.kinds[*kind], term(of)));
            text += &format!(" [{}]", values.chain(owners).collect::<Vec<_>>().join(" "));
        }
        for (flag, word) in [
            (write.on_conflict, " conflict"),
            (write.returning, " returning"),
            (write.uncounted, " uncounted"),
        ] {
            text += if flag { word } else { "" };
        }
        said.push(text);
    }
    said.extend(plan.reads.iter().map(|table| format!("reads {table}")));
    said.extend(plan.unread.iter().map(|table| format!("unread {table}")));
    said.join("; ")
}

#[track_caller]
fn plans(dialect: Dialect, cases: &[(&str, &str)]) {
    for (sql, expected) in cases {
        assert_eq!(plan(sql, dialect), *expected, "{sql}");
    }
}

#[test]
fn statements_as_diesel_writes_them() {
    plans(
        Dialect::Sqlite,
        &[
            (
                "INSERT INTO `users` (`email`, `name`, `phone`) VALUES (?, ?, ?)",
                "insert users [email=?0 phone=?2 <email=?0>]",
            ),
            (
                "INSERT INTO `users` (`email`) VALUES (?), (NULL), (?)",
                "insert users [email=?0 <email=?0>] [email=_ <email=_>] [email=?1 <email=?1>]",
            ),
            (
                "INSERT OR IGNORE INTO `users` (`id`, `type`) VALUES (?, ?)",
                "insert users [type_=?1 <user=?0>] conflict",
            ),
            (
                "REPLACE INTO `users` (`email`) VALUES (?)",
                "insert users [email=?0 <email=?0>]",
            ),
            (
                "UPDATE `users` SET `email` = ? WHERE (`users`.`id` = ?)",
                "update users [email=?0 <user=?1> <email=?0>] uncounted",
            ),
            ("UPDATE `users` SET `name` = ? WHERE (`users`.`id` = ?)", ""),
            (
                "DELETE FROM `users` WHERE (`users`.`id` = ?)",
                "delete users [<user=?0>] uncounted",
            ),
            ("DELETE FROM `users`", "delete users [] uncounted"),
            (
                "DELETE FROM `users` WHERE ((`users`.`email` = ?) AND (`users`.`name` = ?))",
                "delete users [email=?0 <email=?0>] uncounted",
            ),
            (
                "DELETE FROM `users` WHERE (`users`.`email` IN (?, ?))",
                "delete users [email=?0 email=?1] uncounted",
            ),
            (
                "DELETE FROM `users` WHERE ((`users`.`email` = ?) OR (`users`.`name` = ?))",
                "delete users [] uncounted",
            ),
            ("INSERT INTO `notes` (`email`) VALUES (?)", ""),
            ("INSERT INTO `users` DEFAULT VALUES", ""),
            (
                "INSERT INTO `users` (`email`, `phone`) VALUES (?, ?) ON CONFLICT (`email`) DO UPDATE SET `phone` = ?, `email` = excluded.`email` RETURNING `id`",
                "insert users [email=?0 phone=?1 <email=?0>] conflict returning; update users [phone=?2 email=_ <email=_>] conflict returning",
            ),
            (
                "SELECT `users`.`email` FROM `users` WHERE (`users`.`id` = ?)",
                "reads users",
            ),
            ("SELECT `users`.`id` FROM `users` WHERE (`users`.`email` = ?)", ""),
            ("SELECT COUNT(*) FROM `users`", ""),
            ("SELECT * FROM users", "reads users"),
        ],
    );
    plans(
        Dialect::Postgres,
        &[
            (
                r#"INSERT INTO "users" ("email", "name") VALUES ($1, DEFAULT) ON CONFLICT DO NOTHING"#,
                "insert users [email=$1 <email=$1>] conflict"
                    .replace("$1", "?0")
                    .as_str(),
            ),
            (
                r#"UPDATE "users" SET "phone" = $2 WHERE ("users"."email" = $1) RETURNING "users"."id""#,
                "update users [phone=?1 <email=?0>] returning uncounted",
            ),
            (
                r#"UPDATE public.users u SET email = $1::text WHERE u.id = $2 AND other.id = $3"#,
                "update users [email=?0 <user=?1> <email=?0>] uncounted",
            ),
            (
                r#"WITH gone AS (DELETE FROM users WHERE email = $1 RETURNING id) SELECT id FROM gone"#,
                "delete users [email=?0 <email=?0>] returning uncounted",
            ),
            (r#"COPY "users" ("email", "name") FROM STDIN"#, "insert users [email=!]"),
            (r#"COPY "users" TO STDOUT"#, ""),
            ("TRUNCATE TABLE users", "delete users [] uncounted"),
        ],
    );
    plans(
        Dialect::MySql,
        &[
            (
                "INSERT IGNORE INTO `users` (`email`) VALUES (?)",
                "insert users [email=?0 <email=?0>] conflict",
            ),
            (
                r#"INSERT INTO users SET email = "it's", phone = 'a\'b'"#,
                "insert users [email=#0 phone=#1 <email=#0>]",
            ),
            (
                "INSERT INTO `users` (`email`) VALUES (?) ON DUPLICATE KEY UPDATE `email` = VALUES(`email`), `phone` = ?",
                "insert users [email=?0 <email=?0>] conflict; update users [email=_ phone=?1 <email=_>] conflict",
            ),
        ],
    );
}

#[test]
fn texts_of_the_hosts_own() {
    plans(
        Dialect::Sqlite,
        &[
            (
                "insert into Users(EMAIL, phone) values('a@x.org', -5)",
                "insert users [email=#0 phone=-#1 <email=#0>]",
            ),
            (
                "/* ? */ update main.users set phone = (?2), email=cast(?1 as text) -- users ?",
                "update users [email=?0 phone=?1 <email=?0>] uncounted"
                    .replace("email=?0 phone=?1", "phone=?1 email=?0")
                    .as_str(),
            ),
            (
                "UPDATE users SET phone = lower(?), email = email || ?",
                "update users [phone=! email=! <email=!>] uncounted",
            ),
            (
                "UPDATE users SET email = email, phone = NULL",
                "update users [email=_ phone=_ <email=_>] uncounted",
            ),
            (
                "UPDATE users SET (email, phone) = (?, ?)",
                "update users [email=?0 phone=?1 <email=?0>] uncounted",
            ),
            ("UPDATE users SET phone = \"ada\"", "update users [phone=!] uncounted"),
            ("INSERT INTO users VALUES (1, 'a')", "unread users"),
            (
                "INSERT INTO users (email) SELECT ?",
                "insert users [email=?0 <email=?0>]",
            ),
            (
                "INSERT INTO users (email) SELECT mail FROM old",
                "insert users [email=! <email=!>] uncounted",
            ),
            ("INSERT INTO users (email, phone) VALUES (?)", "unread users"),
            ("DELETE FROM users WHERE", "unread users"),
            ("UPDATE users SET", "unread users"),
            ("INSERT INTO users (email) VALUES ('a')); DROP", "unread users"),
            (
                "INSERT INTO notes (a) VALUES (1); UPDATE users SET phone = 'x' WHERE id = 7; SELECT 1",
                "update users [phone=#1 <user=#2>] uncounted",
            ),
            ("BEGIN; UPDATE users SET phone = 'x'; ROLLBACK", "unread users"),
            ("CREATE TABLE users (email TEXT REFERENCES a ON DELETE CASCADE)", ""),
            (
                "CREATE TRIGGER t AFTER INSERT ON notes BEGIN DELETE FROM users; UPDATE users SET phone = 'x'; END",
                "",
            ),
            ("SELECT email FROM users FOR UPDATE", "reads users"),
            ("EXPLAIN DELETE FROM users", ""),
            (
                "UPDATE users SET phone = :phone WHERE id = @id",
                "update users [phone=!] uncounted",
            ),
        ],
    );
}

#[test]
fn what_depends_on_the_database_is_not_guessed() {
    let map = map();
    let unknown = |sql: &str| shown(&Plan::of(sql, false, None, &map));
    assert_eq!(unknown(r"UPDATE users SET phone = 'a\', email = '"), "unread users");
    assert_eq!(
        unknown(r#"UPDATE "users" SET "phone" = $1"#),
        "update users [phone=?0] uncounted"
    );
    assert_eq!(
        unknown("UPDATE `users` SET `phone` = ?"),
        "update users [phone=?0] uncounted"
    );
}

#[test]
fn hostile_texts_end_in_time_and_without_a_panic() {
    let deep = 20_000;
    for sql in [
        format!("DELETE FROM users WHERE {}1{}", "(".repeat(deep), ")".repeat(deep)),
        format!("DELETE FROM users WHERE {}1{}", "(".repeat(40), ")".repeat(40)),
        format!("DELETE FROM users WHERE {}1{}", "(SELECT ".repeat(40), ")".repeat(40)),
        format!("DELETE FROM users WHERE 1{}", " OR 1".repeat(deep)),
        format!("DELETE FROM users WHERE {}1", "NOT ".repeat(deep)),
        format!("DELETE FROM users WHERE {}1", "- ".repeat(deep)),
        format!("UPDATE users SET email = 1{}", "::int".repeat(deep)),
        format!("UPDATE users SET email = 1{}", "[1]".repeat(deep)),
        format!("UPDATE users SET email = {}1", "CASE WHEN ".repeat(deep)),
        format!(
            "WITH a AS (SELECT 1{}) DELETE FROM users",
            " UNION SELECT 1".repeat(deep)
        ),
        format!("DELETE FROM users WHERE id IN ({}1)", "?,".repeat(200_000)),
        format!("DELETE FROM users{}", ";".repeat(deep)),
        format!("INSERT INTO users (email) VALUES ('{}')", "x".repeat(2 << 20)),
        "DELETE FROM users WHERE a = '".to_owned() + &"'".repeat(deep),
        "/*".repeat(deep) + "DELETE FROM users",
        "DELETE FROM users WHERE ?99999999999999999999 = id".to_owned(),
        "\u{feff}DELETE\u{a0}FROM users\0".to_owned(),
    ] {
        for dialect in [Dialect::Sqlite, Dialect::Postgres, Dialect::MySql] {
            let start = std::time::Instant::now();
            let _ = plan(&sql, dialect);
            let taken = start.elapsed();
            assert!(taken.as_secs() < 10, "{taken:?}: {}", sql.get(..60).unwrap_or_default());
        }
    }
}

fn bound(text: &str) -> Option<Vec<String>> {
    let binds = Binds::parse(text)?;
    let word = |bound: &Bound| match bound {
        Bound::Null => "null".to_owned(),
        Bound::Bool(truth) => truth.to_string(),
        Bound::Integer(number) => number.to_string(),
        Bound::Float(number) => format!("{number:?}"),
        Bound::Text(text) => format!("'{}'", text.as_str()),
        Bound::Texts(texts) => format!("{:?}", texts.iter().map(|text| text.as_str()).collect::<Vec<_>>()),
        Bound::Opaque => "!".to_owned(),
    };
    Some(binds.values.iter().map(word).collect())
}

#[test]
fn binds_are_read_as_debug_shows_them() {
    let uuid = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    for (shown, read) in [
        (
            "\"it's \\\"5\\\\ \\u{1f600}\\n, -- binds: [\"".to_owned(),
            "'it's \"5\\ \u{1f600}\n, -- binds: ['",
        ),
        ("Some(Some(\"a, b)\"))".into(), "'a, b)'"),
        ("None".into(), "null"),
        ("'\\''".into(), "'''"),
        ("-5".into(), "-5"),
        ("4200.5".into(), "4200.5"),
        ("1e300".into(), "1e300"),
        ("NaN".into(), "null"),
        ("true".into(), "true"),
        ("1990-01-02".into(), "'1990-01-02'"),
        ("1990-01-02T03:04:05.123Z".into(), "'1990-01-02T03:04:05.123Z'"),
        (
            "1990-01-02 3:04:05.0 +00:00:00".into(),
            "'1990-01-02 3:04:05.0 +00:00:00'",
        ),
        (
            "2024-07-15T16:24:59-04:00[America/New_York]".into(),
            "'2024-07-15T16:24:59-04:00[America/New_York]'",
        ),
        ("03:04:05".into(), "'03:04:05'"),
        ("127.0.0.1".into(), "'127.0.0.1'"),
        (uuid.into(), "'67e55044-10b1-426f-9247-bb680e5fe0c8'"),
        ("[\"a\", \"b\"]".into(), "[\"a\", \"b\"]"),
        ("[1, 2, 255]".into(), "!"),
        ("Email(\"a@x.org\")".into(), "!"),
        ("User { name: \"x, y\", at: 'c' }".into(), "!"),
        ("1990-01-02; DROP".into(), "!"),
        ("1-2".into(), "!"),
        ("\"a\" \"b\"".into(), "!"),
        ("\"\\q\"".into(), "!"),
        ("\"\\u{110000}\"".into(), "!"),
        ("String(\"x\")".into(), "'x'"),
    ] {
        assert_eq!(bound(&format!("[{shown}]")).unwrap(), [read], "{shown}");
        let among = bound(&format!("[\"]\", {shown}, 7]")).unwrap();
        assert_eq!(among, ["']'", read, "7"], "{shown}");
    }
    assert_eq!(bound("[]").unwrap(), Vec::<String>::new());
    for broken in ["", "[", "]", "[\"]", "[(]", "[)]", "[\"a\"", "[1,2]", "[\"\\"] {
        assert_eq!(bound(broken), None, "{broken}");
    }
    assert_eq!(bound(&format!("[{}]", "(".repeat(10_000))), None);
    assert!(Binds::parse("[I32(7), Null]").unwrap().collected);
    assert!(!Binds::parse("[7, None]").unwrap().collected);
}

/// A value of a statement, as it is written and what it is.
#[derive(Clone, Debug)]
enum Cell {
    Bind(String),
    Text(String),
    Number(i64),
    Null,
    Computed(String),
}

fn cell() -> impl Strategy<Value = Cell> {
    prop_oneof![
        any::<String>().prop_map(Cell::Bind),
        "[ -~\u{e9}\u{1f600}]{0,12}".prop_map(|text| Cell::Text(text.replace('\\', "/"))),
        any::<i32>().prop_map(|number| Cell::Number(number.into())),
        Just(Cell::Null),
        "[a-z]{1,8}".prop_map(Cell::Computed),
    ]
}

/// What a cell stands for: `None` where the text does not tell.
fn oracle(cell: &Cell) -> Option<Option<String>> {
    match cell {
        Cell::Bind(text) | Cell::Text(text) => Some(Some(text.clone())),
        Cell::Number(number) => Some(Some(number.to_string())),
        Cell::Null => Some(None),
        Cell::Computed(_) => None,
    }
}

/// What the plan makes of a term, with these binds and literals.
fn told(term: Term, binds: &[Bound], literals: &[Literal]) -> Option<Option<String>> {
    match term {
        Term::Nothing => Some(None),
        Term::Opaque => None,
        Term::Bind(index) => match &binds[index] {
            Bound::Text(text) => Some(Some(text.to_string())),
            _ => None,
        },
        Term::Literal { index, negative } => match &literals[index] {
            Literal::Text(text) => Some(Some(text.to_string())),
            Literal::Number(number) => Some(Some(format!("{}{}", if negative { "-" } else { "" }, number.as_str()))),
            Literal::Bytes => None,
        },
    }
}

const COLUMNS: [&str; 5] = ["id", "email", "name", "phone", "note"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn plans_agree_with_what_the_statement_was_made_of(
        cells in prop::collection::vec(prop::collection::vec(cell(), 5), 1..4),
        columns in Just(COLUMNS.to_vec()).prop_shuffle(),
        used in 1..5_usize,
        style in 0..4_usize,
        verb in 0..3_usize,
    ) {
        let dialect = [Dialect::Sqlite, Dialect::Postgres, Dialect::MySql, Dialect::Sqlite][style];
        let columns = &columns[..used];
        let quote = |name: &str| match (style, dialect) {
            (3, _) => name.to_uppercase(),
            (_, Dialect::Postgres) => format!("\"{name}\""),
            _ => format!("`{name}`"),
        };
        let mut binds: Vec<String> = Vec::new();
        let mut write = |cell: &Cell| match cell {
            Cell::Bind(text) => {
                binds.push(text.clone());
                if dialect == Dialect::Postgres { format!("${}", binds.len()) } else { "?".to_owned() }
            }
            Cell::Text(text) => format!("'{}'", text.replace('\'', "''")),
            Cell::Number(number) => number.to_string(),
            Cell::Null => "NULL".to_owned(),
            Cell::Computed(word) => format!("lower({word})"),
        };
        let rows = if verb == 0 { cells.len() } else { 1 };
        let table = quote("users");
        let names: Vec<String> = columns.iter().map(|name| quote(name)).collect();
        let sql = match verb {
            0 => {
                let rows: Vec<String> = cells.iter().map(|row| {
                    let row: Vec<String> = row[..used].iter().map(&mut write).collect();
                    format!("({})", row.join(", "))
                }).collect();
                format!("INSERT INTO {table} ({}) VALUES {}", names.join(", "), rows.join(", "))
            }
            1 => {
                let sets: Vec<String> = names.iter().zip(&cells[0]).map(|(name, cell)| format!("{name} = {}", write(cell))).collect();
                format!("UPDATE {table} SET {}", sets.join(", "))
            }
            _ => {
                let tests: Vec<String> = names.iter().zip(&cells[0]).map(|(name, cell)| format!("({table}.{name} = {})", write(cell))).collect();
                format!("DELETE FROM {table} WHERE {}", tests.join(" AND "))
            }
        };
        let plan = Plan::of(&sql, false, Some(dialect), &map());
        let read = Binds::parse(&format!("{binds:?}")).unwrap();
        let literals = Plan::literals(&sql, Some(dialect));
        prop_assert!(plan.unread.is_empty(), "{}", sql);
        prop_assert_eq!(read.values.len(), binds.len());

        let tracked = |name: &str| ["email", "phone"].contains(&name);
        let mut expected: Vec<Vec<(String, Option<Option<String>>)>> = Vec::new();
        for row in &cells[..rows] {
            let named = columns.iter().zip(row).filter(|(name, _)| tracked(name));
            expected.push(match verb {
                // A DELETE's row says what it is compared with, and no more.
                2 => named.filter(|(_, cell)| !matches!(cell, Cell::Null | Cell::Computed(_)))
                    .map(|(name, cell)| ((*name).to_owned(), oracle(cell))).collect(),
                _ => named.map(|(name, cell)| ((*name).to_owned(), oracle(cell))).collect(),
            });
        }
        if verb < 2 && !columns.iter().any(|name| tracked(name)) {
            prop_assert!(plan.writes.is_empty());
        } else {
            let [write] = plan.writes.as_slice() else { panic!("{sql}") };
            prop_assert_eq!(write.action, [Action::Insert, Action::Update, Action::Delete][verb]);
            let found: Vec<Vec<(String, Option<Option<String>>)>> = write.rows.iter().map(|row| {
                row.values.iter().map(|(column, term)| (column.name.to_owned(), told(*term, &read.values, &literals))).collect()
            }).collect();
            prop_assert_eq!(found, expected, "{}", sql);
        }
    }

    #[test]
    fn any_text_makes_a_plan(
        words in prop::collection::vec(prop_oneof![
            prop::sample::select(vec![
                "INSERT INTO", "users", "(", ")", "email", ",", "VALUES", "?", "$1", "UPDATE", "SET", "=", "DELETE FROM",
                "WHERE", "AND", "OR", "IN", "'a'", "`", "\"", "'", ";", "WITH", "AS", "SELECT", "FROM", "*", "ON CONFLICT",
                "DO UPDATE", "RETURNING", "--", "/*", "*/", "NULL", "1", "-", "CASE", "WHEN", "END", "EXISTS", "::", "[", "]", ".",
            ]).prop_map(str::to_owned),
            any::<String>(),
        ], 0..30),
        dialect in prop::sample::select(vec![None, Some(Dialect::Sqlite), Some(Dialect::Postgres), Some(Dialect::MySql)]),
    ) {
        let _ = Plan::of(&words.join(" "), false, dialect, &map());
    }

    #[test]
    fn any_debug_text_is_read_or_refused(values in prop::collection::vec(any::<Option<String>>(), 0..6), rest in any::<String>()) {
        let binds = Binds::parse(&format!("{values:?}")).unwrap();
        let read: Vec<Option<String>> = binds.values.iter().map(|bound| match bound {
            Bound::Text(text) => Some(text.to_string()),
            Bound::Null => None,
            _ => panic!("neither text nor null"),
        }).collect();
        prop_assert_eq!(read, values);
        let _ = Binds::parse(&rest);
        let _ = Binds::parse(&format!("[{rest}]"));
    }
}
