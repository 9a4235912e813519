//! Structs of every shape that Diesel's derives accept.

use diesel::connection::SimpleConnection;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::prelude::*;
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types::Text;
use diesel::sqlite::{Sqlite, SqliteValue};
use provenance as renamed;
use provenance::tracked_model;
use provenance_tests::{Evidence, fields, tag, text};

use super::owners;

mod schema {
    diesel::table! {
        people (id) {
            id -> Integer,
            email -> Text,
            phone -> Nullable<Text>,
            #[sql_name = "match"]
            r#match -> Text,
            city -> Nullable<Text>,
            street -> Nullable<Text>,
            note -> Text,
        }
    }
    diesel::table! {
        archive (id) {
            id -> Integer,
            email -> Text,
        }
    }
}
use schema::{archive, people};

const SCHEMA: &str = "
    CREATE TABLE people (
        id INTEGER PRIMARY KEY,
        email TEXT NOT NULL,
        phone TEXT DEFAULT 'none',
        match TEXT NOT NULL DEFAULT 'm',
        city TEXT,
        street TEXT,
        note TEXT NOT NULL DEFAULT 'n'
    );
    CREATE TABLE archive (id INTEGER PRIMARY KEY, email TEXT NOT NULL);";

/// A type of the host's own, known to Diesel and to `Display`.
#[derive(AsExpression, FromSqlRow, Debug, Clone, PartialEq)]
#[diesel(sql_type = Text)]
struct Email(String);

impl std::fmt::Display for Email {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl ToSql<Text, Sqlite> for Email {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        <String as ToSql<Text, Sqlite>>::to_sql(&self.0, out)
    }
}

impl FromSql<Text, Sqlite> for Email {
    fn from_sql(value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        <String as FromSql<Text, Sqlite>>::from_sql(value).map(Email)
    }
}

/// Two lifetimes, a keyword column, a field that `cfg` removes, a derive under `cfg_attr`.
#[tracked_model(owner(email))]
#[cfg_attr(all(), derive(Insertable, Debug))]
#[derive(Clone, Copy)]
#[diesel(table_name = schema::people)]
struct Borrowed<'a, 'b> {
    #[tracked("contact.email")]
    email: &'a str,
    #[tracked("contact.phone")]
    phone: Option<&'b str>,
    #[tracked("x.match")]
    r#match: &'b str,
    #[cfg(any())]
    #[tracked("x.gone")]
    gone: Missing,
    #[diesel(skip_insertion)]
    #[tracked("x.skipped")]
    _skipped: (),
}

#[tracked_model(owner(0))]
#[derive(Insertable, AsChangeset)]
#[diesel(table_name = people)]
struct Tuple(
    #[diesel(column_name = "email")]
    #[tracked("contact.email")]
    String,
    #[diesel(column_name = note)] String,
);

#[tracked_model(owner(email))]
#[derive(Insertable, Queryable, AsChangeset)]
#[diesel(table_name = people)]
struct Generic<T, const N: usize = 3>
where
    T: Clone,
{
    #[tracked("contact.email")]
    email: T,
    note: String,
}

#[tracked_model(owner(email))]
#[derive(Insertable)]
#[diesel(table_name = people)]
#[diesel(table_name = archive)]
struct Both {
    #[tracked("contact.email")]
    email: String,
}

#[tracked_model(table = people)]
#[derive(Insertable, Queryable, Selectable, AsChangeset, Debug, PartialEq)]
#[diesel(table_name = people)]
struct Address {
    #[tracked("contact.city")]
    city: Option<String>,
    #[tracked("contact.street")]
    street: Option<String>,
}

#[tracked_model(owner(email), crate = renamed)]
#[derive(Insertable, Queryable, Selectable, AsChangeset, Debug, PartialEq)]
#[diesel(table_name = people)]
struct Person {
    #[tracked("contact.email", kind = "email")]
    email: Email,
    #[diesel(embed)]
    address: Address,
    #[diesel(treat_none_as_null = true, treat_none_as_default_value = false)]
    #[tracked("contact.phone")]
    phone: Option<String>,
    #[diesel(skip_update, deserialize_as = Shouted)]
    note: String,
}

struct Shouted(String);

impl Queryable<Text, Sqlite> for Shouted {
    type Row = String;

    fn build(text: String) -> deserialize::Result<Self> {
        Ok(Shouted(text.to_uppercase()))
    }
}

impl From<Shouted> for String {
    fn from(shouted: Shouted) -> Self {
        shouted.0
    }
}

/// What the database gets is not what was typed: both directions keep the original's fingerprint.
#[tracked_model(owner(email))]
#[derive(Insertable, AsChangeset)]
#[diesel(table_name = people)]
struct Converted {
    #[diesel(serialize_as = Reversed)]
    #[tracked("contact.email")]
    email: String,
    #[diesel(serialize_as = Reversed)]
    #[tracked("contact.phone")]
    phone: Option<String>,
}

#[derive(AsExpression, Debug)]
#[diesel(sql_type = Text)]
struct Reversed(String);

impl From<String> for Reversed {
    fn from(text: String) -> Self {
        Reversed(text.chars().rev().collect())
    }
}

impl From<Option<String>> for Reversed {
    fn from(text: Option<String>) -> Self {
        text.unwrap_or_default().into()
    }
}

impl ToSql<Text, Sqlite> for Reversed {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        <String as ToSql<Text, Sqlite>>::to_sql(&self.0, out)
    }
}

fn connect() -> SqliteConnection {
    let mut db = SqliteConnection::establish(":memory:").unwrap();
    db.batch_execute(SCHEMA).unwrap();
    db
}

#[test]
fn borrowed_tuple_generic_and_two_table_structs_are_recorded() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let mut db = connect();
    let note = String::from("n");
    let borrowed = Borrowed {
        email: "a@x.org",
        phone: Some(&note),
        r#match: "word",
        _skipped: (),
    };
    let into = || diesel::insert_into(people::table);
    into().values(borrowed).execute(&mut db).unwrap();
    into()
        .values(&Tuple("b@x.org".into(), "note".into()))
        .execute(&mut db)
        .unwrap();
    into()
        .values(Generic::<_, 3> {
            email: "c@x.org",
            note: note.clone(),
        })
        .execute(&mut db)
        .unwrap();
    let both = || Both {
        email: "d@x.org".into(),
    };
    into().values(both()).execute(&mut db).unwrap();
    diesel::insert_into(archive::table)
        .values(&both())
        .execute(&mut db)
        .unwrap();
    diesel::update(people::table.find(1))
        .set(Tuple("e@x.org".into(), "note".into()))
        .execute(&mut db)
        .unwrap();
    let generic: Generic<String> = people::table
        .select((people::email, people::note))
        .find(3)
        .first(&mut db)
        .unwrap();
    assert_eq!((generic.email.as_str(), generic.note.as_str()), ("c@x.org", "n"));

    let events = evidence.of("DATA_STORAGE");
    let of = |n: usize| fields(&events[n]).join(" ");
    assert_eq!(of(0), "email phone match");
    assert_eq!([of(1), of(2), of(3), of(4), of(5)], ["email"; 5]);
    assert_eq!(events[3]["target"], "db:people");
    assert_eq!(events[4]["target"], "db:archive");
    assert_eq!(tag(&events[0], "match")["source"], "db:people.match");
    assert!(events.iter().all(|event| owners(event)[0].starts_with("email:")));
}

#[test]
fn embedded_models_and_none_follow_diesels_rules() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let mut db = connect();
    let person = Person {
        email: Email("ada@example.com".into()),
        address: Address {
            city: Some("Lisbon".into()),
            street: None,
        },
        phone: None,
        note: "quiet".into(),
    };
    diesel::insert_into(people::table)
        .values(&person)
        .execute(&mut db)
        .unwrap();
    let phone: Option<String> = people::table.select(people::phone).first(&mut db).unwrap();
    assert_eq!(phone, None, "NULL, not the column's default");
    let moved = Person {
        address: Address {
            city: None,
            street: Some("Rua Augusta".into()),
        },
        phone: Some("+351 210 000 000".into()),
        note: "not written".into(),
        ..person
    };
    diesel::update(people::table.find(1))
        .set(&moved)
        .execute(&mut db)
        .unwrap();
    let loaded: Person = people::table.select(Person::as_select()).first(&mut db).unwrap();
    assert_eq!(loaded.note, "QUIET");
    assert_eq!(
        loaded.address.city.as_deref(),
        Some("Lisbon"),
        "None leaves a column as it is"
    );

    let events = evidence.of("DATA_STORAGE");
    assert_eq!(fields(&events[0]), ["email", "city"]);
    assert_eq!(fields(&events[1]), ["email", "street", "phone"]);
    let [email, city] = owners(&events[0]).try_into().unwrap();
    assert!(email.starts_with("email:"));
    assert_eq!(city, email, "the embedded record is the same person's");
    assert_eq!(text(&events[0]["extras"]["owner"]), email);
}

#[test]
fn a_converted_value_is_known_as_it_was_before() {
    let evidence = Evidence::default();
    let _tracker = evidence.scoped();
    let mut db = connect();
    let converted = || Converted {
        email: "ada@example.com".into(),
        phone: Some("123456789".into()),
    };
    diesel::insert_into(people::table)
        .values(converted())
        .execute(&mut db)
        .unwrap();
    let stored: String = people::table.select(people::email).first(&mut db).unwrap();
    assert_eq!(stored, "moc.elpmaxe@ada");
    diesel::insert_into(people::table)
        .values(&Tuple("ada@example.com".into(), "n".into()))
        .execute(&mut db)
        .unwrap();
    diesel::update(people::table.find(1))
        .set(converted())
        .execute(&mut db)
        .unwrap();

    let events = evidence.of("DATA_STORAGE");
    let fingerprint = |n: usize| text(&tag(&events[n], "email")["fingerprint"]);
    assert_eq!(fingerprint(0), fingerprint(1));
    assert_eq!(fingerprint(0), fingerprint(2));
    assert_eq!(fields(&events[2]), ["email", "phone"]);
}
