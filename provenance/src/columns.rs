//! Which columns of the database hold personal data, whoever writes them: what every
//! `#[tracked_model]` of the program declares, and the config's `tracked_models`.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value as Json;

use crate::config::Config;
use crate::inventory::{Entry, serves};
use crate::site::{Column, ModelSite, Site, Terms};
use crate::tracked::Field;
use crate::vocabulary::owner::is_kind;

/// Tables with tracked columns, by lower-case name.
#[derive(Debug, Default)]
pub(crate) struct ColumnMap {
    tables: HashMap<String, Table>,
}

/// One table.
#[derive(Debug)]
pub(crate) struct Table {
    /// Stands for the table where no model does: it has no model's name.
    pub(crate) site: &'static ModelSite,
    columns: HashMap<String, &'static Column>,
    /// Columns that say whose a row is, with the kind of owner, best first.
    owners: Vec<(String, String)>,
}

impl ColumnMap {
    /// What `inventory` and `config` declare. An attribute goes before the config.
    ///
    /// What events name must be `'static`, as the attributes' own statics are: a map is leaked,
    /// some hundred bytes a table. There is one for each tracker.
    pub(crate) fn new(config: &Config, inventory: &[Entry]) -> Self {
        let mut drafts: BTreeMap<String, Draft> = BTreeMap::new();
        for model in inventory.iter().filter(|entry| entry.kind == "model") {
            let table = model.rest.get("table").and_then(Json::as_str).unwrap_or_default();
            if !table.is_empty() {
                drafts
                    .entry(key(table))
                    .or_insert_with(|| Draft::new(table))
                    .model(model);
            }
        }
        for (name, model) in &config.tracked_models {
            let table = inventory
                .iter()
                .filter(|entry| serves(entry, name))
                .find_map(|entry| entry.rest.get("table").and_then(Json::as_str))
                .map_or_else(|| table_of(name), str::to_owned);
            let draft = drafts.entry(key(&table)).or_insert_with(|| Draft::new(&table));
            for (column, declared) in &model.fields {
                draft.column(column, || Field {
                    name: leak(column),
                    category: leak(&declared.category),
                    description: leak(&declared.description),
                    kind: declared.kind.map(crate::vocabulary::Kind::as_str),
                    pii: Some(declared.pii),
                    secret: declared.secret,
                });
                if let Some(owner) = &declared.owner {
                    let category = model.fields.get(owner).map(|field| field.category.as_str());
                    draft.owner(owner, &owner_kind(owner, category, &table));
                }
            }
        }
        let tables = drafts.into_iter().map(|(key, draft)| (key, draft.finish()));
        ColumnMap {
            tables: tables.collect(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// The table of this name, in any case.
    pub(crate) fn table(&self, name: &str) -> Option<&Table> {
        // Most names are in lower case already.
        self.tables
            .get(name)
            .or_else(|| match name.bytes().any(|b| b.is_ascii_uppercase()) {
                true => self.tables.get(&key(name)),
                false => None,
            })
    }
}

impl Table {
    /// The tracked column of this name, in any case.
    pub(crate) fn column(&self, name: &str) -> Option<&'static Column> {
        let name = key(name);
        // Diesel's `type_` is `type` in the database, and `r#type` would not be a module's item.
        let found = self
            .columns
            .get(&name)
            .or_else(|| self.columns.get(&format!("{name}_")));
        found.copied()
    }

    /// Columns that say whose a row is, with the kind of owner, best first.
    pub(crate) fn owners(&self) -> impl Iterator<Item = (&str, &str)> {
        self.owners
            .iter()
            .map(|(column, kind)| (column.as_str(), kind.as_str()))
    }
}

/// A table in the making.
struct Draft {
    table: &'static str,
    columns: Vec<Column>,
    owners: Vec<(String, String)>,
}

impl Draft {
    fn new(table: &str) -> Self {
        Draft {
            table: leak(table),
            columns: Vec::new(),
            owners: Vec::new(),
        }
    }

    fn model(&mut self, model: &Entry) {
        let list = |key: &str| model.rest.get(key).and_then(Json::as_array).into_iter().flatten();
        for field in list("fields") {
            let text = |key: &str| field.get(key).and_then(Json::as_str);
            let (Some(name), Some(category)) = (text("name"), text("category")) else {
                continue;
            };
            self.column(name, || Field {
                name: leak(name),
                category: leak(category),
                description: leak(text("description").unwrap_or_default()),
                kind: text("value_kind").map(leak),
                pii: field.get("pii").and_then(Json::as_bool),
                secret: field.get("secret").and_then(Json::as_bool),
            });
        }
        for (column, kind) in list("owner_columns").zip(list("owner")) {
            if let (Some(column), Some(kind)) = (column.as_str(), kind.as_str()) {
                self.owner(column, kind);
            }
        }
    }

    /// The first declaration of a column stays.
    fn column(&mut self, name: &str, field: impl FnOnce() -> Field) {
        if self
            .columns
            .iter()
            .all(|column| !column.name.eq_ignore_ascii_case(name))
        {
            self.columns.push(Column {
                name: leak(name),
                field: Box::leak(Box::new(field())),
            });
        }
    }

    fn owner(&mut self, column: &str, kind: &str) {
        let owner = (key(column), kind.to_owned());
        if is_kind(kind) && !self.owners.contains(&owner) {
            self.owners.push(owner);
        }
    }

    fn finish(self) -> Table {
        let columns: &'static [Column] = Vec::leak(self.columns);
        let site: &'static ModelSite = Box::leak(Box::new(ModelSite {
            site: Site {
                path: leak(&format!("sql:{}", self.table)),
                file: "",
                line: 0,
                terms: Terms::NONE,
            },
            model: "",
            table: self.table,
            columns,
        }));
        Table {
            site,
            columns: columns.iter().map(|column| (key(column.name), column)).collect(),
            owners: self.owners,
        }
    }
}

fn key(name: &str) -> String {
    name.to_ascii_lowercase()
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.into())
}

/// The table of a name without attribute: the name, or for a type's name what Diesel makes of it.
fn table_of(name: &str) -> String {
    if !name.starts_with(|c: char| c.is_ascii_uppercase()) {
        return name.to_owned();
    }
    let name = name.rsplit("::").next().unwrap_or(name);
    let mut table = String::with_capacity(name.len() + 2);
    for c in name.chars() {
        if c.is_uppercase() && !table.is_empty() {
            table.push('_');
        }
        table.extend(c.to_lowercase());
    }
    table.push('s');
    table
}

/// The kind of owner that a column holds, by its category or its name: as `owner(..)` of the
/// attribute has it.
fn owner_kind(column: &str, category: Option<&str>, table: &str) -> String {
    let kind = match (category.and_then(|category| category.rsplit('.').next()), column) {
        (Some(kind), _) => kind,
        (None, "id") => table.strip_suffix('s').unwrap_or(table),
        (None, column) => column.strip_suffix("_id").unwrap_or(column),
    };
    key(kind)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::{InputField, TrackedModel};

    fn inventory() -> Vec<Entry> {
        let model = |path: &str, rest: &str| {
            format!(r#"{{"v":1,"kind":"model","path":"{path}","at":"src/m.rs:1","crate":"crm",{rest}}}"#) + "\n"
        };
        let new = model(
            "crm::NewUser",
            r#""table":"users","fields":[{"name":"email","category":"contact.email","description":"Mail","value_kind":null,"pii":true,"secret":null},{"name":"type_","category":"x.plan","description":"","value_kind":"id","pii":false,"secret":true}],"owner":["email"],"owner_columns":["email"]"#,
        );
        let user = model(
            "crm::User",
            r#""table":"users","fields":[{"name":"email","category":"x.other"}],"owner":["user","email"],"owner_columns":["id","email"]"#,
        );
        crate::inventory::parse((new + &user).as_bytes()).unwrap()
    }

    fn field(owner: Option<&str>) -> InputField {
        InputField {
            category: "contact.phone".into(),
            description: "Phone".into(),
            pii: true,
            kind: None,
            secret: None,
            owner: owner.map(str::to_owned),
        }
    }

    fn config(name: &str, column: &str, owner: Option<&str>) -> Config {
        let fields = [(column.to_owned(), field(owner))].into();
        Config {
            tracked_models: [(name.to_owned(), TrackedModel { fields })].into(),
            ..Config::default()
        }
    }

    #[test]
    fn models_of_one_table_make_one_map() {
        let map = ColumnMap::new(&Config::default(), &inventory());
        let users = map.table("USERS").unwrap();
        assert_eq!(users.column("Email").unwrap().field.category, "contact.email");
        assert_eq!(users.column("type").unwrap().field.secret, Some(true));
        assert!(users.column("name").is_none() && map.table("user").is_none());
        let owners: Vec<_> = users.owners().collect();
        assert_eq!(owners, [("email", "email"), ("id", "user")]);
        assert_eq!((users.site.table, users.site.model), ("users", ""));
    }

    #[test]
    fn the_config_adds_columns_and_tables() {
        for name in ["crm::User", "User", "users"] {
            let map = ColumnMap::new(&config(name, "phone", None), &inventory());
            let users = map.table("users").unwrap();
            assert!(
                users.column("phone").is_some() && users.column("email").is_some(),
                "{name}"
            );
        }
        for (name, table, column, kind) in [
            ("HouseKey", "house_keys", "user_id", "user"),
            ("contacts", "contacts", "id", "contact"),
            ("contacts", "contacts", "email", "email"),
        ] {
            let map = ColumnMap::new(&config(name, "phone", Some(column)), &[]);
            let table = map.table(table).unwrap();
            assert_eq!(table.owners().collect::<Vec<_>>(), [(column, kind)]);
        }
        assert!(ColumnMap::new(&Config::default(), &[]).is_empty());
    }
}
