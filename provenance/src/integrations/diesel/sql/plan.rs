//! From a statement's text to what it does to tracked columns. Pure; holds no value.
//!
//! Literals are taken out of the tokens before they are parsed, and known by their number: so a
//! plan may be kept, and the parser, which logs what it parses, has nothing personal to log.

use std::collections::HashMap;

use sqlparser::ast::{
    Assignment, AssignmentTarget, BinaryOperator, CopySource, Delete, Expr, FromTable, FunctionArg, FunctionArgExpr,
    FunctionArguments, Insert, ObjectName, OnConflictAction, OnInsert, Query, SelectItem, SetExpr, SqliteOnConflict,
    Statement, TableFactor, TableObject, TableWithJoins, UnaryOperator, Update, Value as Literally,
};
use sqlparser::dialect::{MySqlDialect, PostgreSqlDialect, SQLiteDialect};
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer};
use zeroize::{Zeroize, Zeroizing};

use super::text::MAX_SQL;
use crate::columns::{ColumnMap, Table};
use crate::site::{Column, ModelSite};
use crate::vocabulary::Action;

/// Most operators and keywords of one statement that is parsed. Each may be one more level of the
/// tree, which is dropped by recursion.
const MAX_OPERATORS: usize = 1000;

/// The kind of database; decides about quotes, placeholders and backslashes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
    MySql,
}

impl Dialect {
    /// By a database URL's scheme; anything that is no URL is a file of SQLite's, or PostgreSQL's `host=..`.
    pub(super) fn of_url(url: &str) -> Self {
        let begins = |scheme: &str| {
            url.get(..scheme.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(scheme))
        };
        if begins("postgres") || begins("host=") || begins("user=") || begins("dbname=") {
            Dialect::Postgres
        } else if begins("mysql://") {
            Dialect::MySql
        } else {
            Dialect::Sqlite
        }
    }

    /// By the text, where the connection was opened unseen. `None` where it depends.
    fn guess(text: &str) -> Option<Self> {
        if text.contains('\\') {
            return None;
        }
        let postgres = !text.contains('`') && (text.contains('"') || text.contains("$1"));
        Some(if postgres { Dialect::Postgres } else { Dialect::Sqlite })
    }

    fn parser(self) -> &'static dyn sqlparser::dialect::Dialect {
        match self {
            Dialect::Sqlite => &SQLiteDialect {},
            Dialect::Postgres => &PostgreSqlDialect {},
            Dialect::MySql => &MySqlDialect {},
        }
    }
}

/// What one text does.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) writes: Vec<Write>,
    /// Tables whose tracked columns are read.
    pub(super) reads: Vec<&'static str>,
    /// Tables with tracked columns that are written in a way that cannot be told.
    pub(super) unread: Vec<&'static str>,
    /// Placeholders, where a tracked table is named.
    pub(super) binds: usize,
    /// There may be placeholders.
    pub(super) shows_binds: bool,
    /// Whether a term is a literal of the text.
    pub(super) literals: bool,
}

/// What one statement does to one table.
pub(super) struct Write {
    pub(super) table: &'static ModelSite,
    pub(super) action: Action,
    pub(super) rows: Vec<Row>,
    /// Kinds of owner that the rows' owners count by.
    pub(super) kinds: Vec<String>,
    pub(super) on_conflict: bool,
    /// On a conflict it changes the row that is there, if only in columns that nobody tracks.
    pub(super) upsert: bool,
    pub(super) returning: bool,
    /// How many rows it meets depends on what is in the database.
    pub(super) uncounted: bool,
    /// The WHERE of an UPDATE names one owner.
    pub(super) names_owner: bool,
}

/// One row of VALUES; the one row that stands for all that an UPDATE or DELETE meets.
#[derive(Default)]
pub(super) struct Row {
    pub(super) values: Vec<(&'static Column, Term)>,
    /// Place in [`Write::kinds`].
    pub(super) owners: Vec<(usize, Term)>,
}

/// Where a value stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Term {
    /// This placeholder, from 0.
    Bind(usize),
    /// This literal, from 0.
    Literal { index: usize, negative: bool },
    /// No value: NULL, DEFAULT, the column itself.
    Nothing,
    /// Something that is computed.
    Opaque,
}

/// A literal of the text.
pub(super) enum Literal {
    Text(Zeroizing<String>),
    Number(Zeroizing<String>),
    Bytes,
}

impl Plan {
    /// What `text`, which may have been `cut`, does to the tables of `map`.
    pub(super) fn of(text: &str, cut: bool, dialect: Option<Dialect>, map: &ColumnMap) -> Self {
        let mut plan = Plan::default();
        let named = named(text, map);
        if named.is_empty() {
            plan.shows_binds = text.contains(['?', '$']);
            return plan;
        }
        let dialect = dialect.or_else(|| Dialect::guess(text));
        let tokens = match dialect {
            Some(dialect) if !cut && text.len() <= MAX_SQL => Tokens::of(text, dialect).map(|tokens| (tokens, dialect)),
            _ => None,
        };
        let Some((Tokens { tokens, binds, .. }, dialect)) = tokens else {
            if words(text).any(is_verb) {
                plan.unread = named;
            }
            return plan;
        };
        plan.binds = binds;
        plan.shows_binds = binds > 0;
        let mut builder = Builder { map, dialect, plan };
        builder.text(tokens);
        builder.plan
    }

    /// The literals of a text, by number.
    pub(super) fn literals(text: &str, dialect: Option<Dialect>) -> Vec<Literal> {
        let dialect = dialect.or_else(|| Dialect::guess(text));
        let tokens = dialect.and_then(|dialect| Tokens::of(text, dialect));
        tokens.map(|tokens| tokens.literals).unwrap_or_default()
    }

    /// How much room it takes, roughly: one for each term.
    pub(super) fn weight(&self) -> usize {
        let rows = self.writes.iter().flat_map(|write| &write.rows);
        rows.map(|row| 2 + row.values.len() + row.owners.len()).sum::<usize>() + 2
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.writes.is_empty() && self.reads.is_empty() && self.unread.is_empty()
    }
}

/// Words of a text, by a scan that knows no quotes.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
        .filter(|word| !word.is_empty())
}

fn is_verb(word: &str) -> bool {
    ["INSERT", "REPLACE", "UPDATE", "DELETE", "TRUNCATE", "COPY", "MERGE"]
        .iter()
        .any(|verb| word.eq_ignore_ascii_case(verb))
}

/// Tracked tables that the text may name.
fn named(text: &str, map: &ColumnMap) -> Vec<&'static str> {
    let mut named = Vec::new();
    for table in words(text).filter_map(|word| map.table(word)) {
        if !named.contains(&table.site.table) {
            named.push(table.site.table);
        }
    }
    named
}

/// A text's tokens without spaces and comments; literals and placeholders by number.
struct Tokens {
    tokens: Vec<Token>,
    literals: Vec<Literal>,
    binds: usize,
}

impl Tokens {
    fn of(text: &str, dialect: Dialect) -> Option<Self> {
        let found = Tokenizer::new(dialect.parser(), text).tokenize().ok()?;
        let mut numbering = Numbering {
            dialect,
            names: HashMap::new(),
            last: 0,
        };
        let mut literals = Vec::new();
        let mut tokens = Vec::with_capacity(found.len());
        for token in found {
            tokens.push(match token {
                Token::Whitespace(_) => continue,
                Token::Placeholder(name) => Token::Placeholder(format!("?{}", numbering.number(&name))),
                Token::Number(number, long) => {
                    Token::Number(lift(&mut literals, Literal::Number(Zeroizing::new(number))), long)
                }
                Token::SingleQuotedString(text) => {
                    Token::SingleQuotedString(lift(&mut literals, Literal::Text(Zeroizing::new(text))))
                }
                // In MySQL; elsewhere it is a name.
                Token::DoubleQuotedString(text) => {
                    Token::DoubleQuotedString(lift(&mut literals, Literal::Text(Zeroizing::new(text))))
                }
                Token::EscapedStringLiteral(text) => {
                    Token::SingleQuotedString(lift(&mut literals, Literal::Text(Zeroizing::new(text))))
                }
                Token::UnicodeStringLiteral(text) => {
                    Token::SingleQuotedString(lift(&mut literals, Literal::Text(Zeroizing::new(text))))
                }
                Token::NationalStringLiteral(text) => {
                    Token::SingleQuotedString(lift(&mut literals, Literal::Text(Zeroizing::new(text))))
                }
                Token::DollarQuotedString(mut text) => {
                    let value = std::mem::take(&mut text.value);
                    Token::SingleQuotedString(lift(&mut literals, Literal::Text(Zeroizing::new(value))))
                }
                Token::HexStringLiteral(mut text)
                | Token::SingleQuotedByteStringLiteral(mut text)
                | Token::DoubleQuotedByteStringLiteral(mut text)
                | Token::SingleQuotedRawStringLiteral(mut text)
                | Token::DoubleQuotedRawStringLiteral(mut text) => {
                    text.zeroize();
                    Token::SingleQuotedString(lift(&mut literals, Literal::Bytes))
                }
                // Of other databases than these.
                Token::TripleSingleQuotedString(_)
                | Token::TripleDoubleQuotedString(_)
                | Token::TripleSingleQuotedByteStringLiteral(_)
                | Token::TripleDoubleQuotedByteStringLiteral(_)
                | Token::TripleSingleQuotedRawStringLiteral(_)
                | Token::TripleDoubleQuotedRawStringLiteral(_)
                | Token::QuoteDelimitedStringLiteral(_)
                | Token::NationalQuoteDelimitedStringLiteral(_) => return None,
                other => other,
            });
        }
        Some(Tokens {
            tokens,
            literals,
            binds: numbering.last,
        })
    }
}

/// Keeps the literal, and gives what stands for it.
fn lift(literals: &mut Vec<Literal>, literal: Literal) -> String {
    literals.push(literal);
    (literals.len() - 1).to_string()
}

/// Numbers placeholders, from 1, as the database does.
struct Numbering {
    dialect: Dialect,
    names: HashMap<String, usize>,
    last: usize,
}

impl Numbering {
    /// 0 for one that no statement has.
    fn number(&mut self, name: &str) -> usize {
        let digits = name.get(1..).unwrap_or_default();
        let number = match (name.chars().next(), digits.is_empty(), self.dialect) {
            (Some('?'), true, _) => self.last + 1,
            (Some('?'), false, _) | (Some('$'), false, Dialect::Postgres) => digits.parse().unwrap_or(0),
            // SQLite's `$1` is a name, as `:email` is.
            _ => match self.names.get(name) {
                Some(known) => *known,
                None => self.last + 1,
            },
        };
        if number > 65_536 {
            return 0;
        }
        self.names.insert(name.to_owned(), number);
        self.last = self.last.max(number);
        number
    }
}

/// Makes a plan, statement by statement.
struct Builder<'m> {
    map: &'m ColumnMap,
    dialect: Dialect,
    plan: Plan,
}

/// What a statement's first word says of it.
#[derive(PartialEq)]
enum Begins {
    Write,
    Read,
    /// Text of a program that the database keeps, up to an END.
    Program,
    /// BEGIN and its like.
    Transaction,
    /// END may close either.
    End,
    Other,
}

impl<'m> Builder<'m> {
    fn text(&mut self, tokens: Vec<Token>) {
        let mut statements: Vec<Vec<Token>> = Vec::new();
        for piece in tokens.split(|token| *token == Token::SemiColon) {
            if !piece.is_empty() {
                statements.push(piece.to_vec());
            }
        }
        let kinds: Vec<Begins> = statements.iter().map(|statement| begins(statement)).collect();
        // Whether what it writes stands is not known from the text alone.
        let ends = !kinds.contains(&Begins::Program) && kinds.contains(&Begins::End);
        let open = statements.len() > 1 && (ends || kinds.contains(&Begins::Transaction));
        let mut program = false;
        for (statement, kind) in statements.into_iter().zip(kinds) {
            match kind {
                Begins::Program => program = true,
                Begins::End => program = false,
                Begins::Write if !program => self.statement(statement, open),
                Begins::Read if !program => self.read(&statement),
                _ => {}
            }
        }
    }

    fn statement(&mut self, tokens: Vec<Token>, open: bool) {
        let tables = self.tables(&tokens);
        if tables.is_empty() {
            return;
        }
        let parsed = match open || operators(&tokens) > MAX_OPERATORS {
            true => None,
            false => Parser::new(self.dialect.parser())
                .with_tokens(tokens)
                .parse_statements()
                .ok(),
        };
        let (writes, unread) = (self.plan.writes.len(), self.plan.unread.len());
        let understood = parsed.is_some_and(|statements| {
            !statements.is_empty() && statements.iter().all(|statement| self.parsed(statement))
        });
        if !understood {
            self.plan.writes.truncate(writes);
            self.plan.unread.truncate(unread);
            tables.into_iter().for_each(|table| self.unread(table));
        }
    }

    fn unread(&mut self, table: &'static str) {
        if !self.plan.unread.contains(&table) {
            self.plan.unread.push(table);
        }
    }

    /// Tracked tables that the tokens name.
    fn tables(&self, tokens: &[Token]) -> Vec<&'static str> {
        let mut tables = Vec::new();
        for token in tokens {
            if let Token::Word(word) = token
                && let Some(table) = self.map.table(&word.value)
                && !tables.contains(&table.site.table)
            {
                tables.push(table.site.table);
            }
        }
        tables
    }

    /// Which tables a SELECT reads tracked columns of: those that its first list names.
    fn read(&mut self, tokens: &[Token]) {
        let tables = self.tables(tokens);
        let mut depth = 0_usize;
        let select = tokens.iter().position(|token| is_keyword(token, Keyword::SELECT));
        for token in tokens.iter().skip(select.map_or(0, |at| at + 1)) {
            match token {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                token if depth == 0 && is_keyword(token, Keyword::FROM) => break,
                Token::Mul if depth == 0 => self.plan.reads.extend(&tables),
                Token::Word(word) => {
                    let has = |table: &&&str| {
                        let table = self.map.table(table);
                        table.is_some_and(|table| table.column(&word.value).is_some())
                    };
                    self.plan.reads.extend(tables.iter().filter(has));
                }
                _ => {}
            }
        }
        self.plan.reads.sort_unstable();
        self.plan.reads.dedup();
    }

    /// `false` if it may write to a tracked table in a way that is not understood.
    fn parsed(&mut self, statement: &Statement) -> bool {
        match statement {
            Statement::Insert(insert) => self.insert(insert),
            Statement::Update(update) => self.update(update),
            Statement::Delete(delete) => self.delete(delete),
            Statement::Query(query) => self.query(query),
            Statement::Truncate(truncate) => {
                for target in &truncate.table_names {
                    if let Some(table) = self.table(&target.name) {
                        self.push(table, Action::Delete, vec![Row::default()], |write| {
                            write.uncounted = true
                        });
                    }
                }
                true
            }
            Statement::Copy {
                source: CopySource::Table { table_name, columns },
                to: false,
                ..
            } => {
                if let Some(table) = self.table(table_name) {
                    let named = columns.iter().filter_map(|column| table.column(&column.value));
                    let values: Vec<_> = match columns.is_empty() {
                        true => table.site.columns.iter().map(|column| (column, Term::Opaque)).collect(),
                        false => named.map(|column| (column, Term::Opaque)).collect(),
                    };
                    let row = Row {
                        values,
                        ..Row::default()
                    };
                    self.push(table, Action::Insert, vec![row], |_| {});
                }
                true
            }
            Statement::Copy { .. } => true,
            _ => false,
        }
    }

    /// A SELECT, whose WITH may write.
    fn query(&mut self, query: &Query) -> bool {
        self.with(query)
            && match &*query.body {
                SetExpr::Insert(statement) | SetExpr::Update(statement) | SetExpr::Delete(statement) => {
                    self.parsed(statement)
                }
                SetExpr::Merge(_) => false,
                SetExpr::Query(query) => self.query(query),
                _ => true,
            }
    }

    fn with(&mut self, query: &Query) -> bool {
        let mut tables = query.with.iter().flat_map(|with| &with.cte_tables);
        tables.all(|cte| self.query(&cte.query))
    }

    fn insert(&mut self, insert: &Insert) -> bool {
        let source = insert.source.as_deref();
        if !source.is_none_or(|query| self.with(query)) {
            return false;
        }
        let TableObject::TableName(name) = &insert.table else {
            return false;
        };
        let Some(table) = self.table(name) else {
            return true;
        };
        let columns: Vec<&str> = insert.columns.iter().map(last).collect();
        let mut uncounted = false;
        let mut rows = Vec::new();
        match source.map(|query| &*query.body) {
            None if insert.assignments.is_empty() => {}
            None => rows.push(self.assigned(table, &insert.assignments)),
            Some(_) if columns.is_empty() => return false,
            Some(SetExpr::Values(values)) => {
                for row in &values.rows {
                    if row.content.len() != columns.len() {
                        return false;
                    }
                    let cells = columns.iter().copied().zip(&row.content);
                    rows.push(self.row(table, cells.map(|(column, value)| (column, self.term(column, value)))));
                }
            }
            Some(SetExpr::Select(select)) => {
                uncounted = !select.from.is_empty() || select.selection.is_some();
                let terms = select.projection.iter().map(|item| match item {
                    SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. } => Some(value),
                    _ => None,
                });
                let Some(values) = terms.collect::<Option<Vec<_>>>() else {
                    return false;
                };
                if values.len() != columns.len() {
                    return false;
                }
                let cells = columns.iter().copied().zip(values);
                // A column of another table is no value that the text tells.
                rows.push(self.row(table, cells.map(|(column, value)| (column, plain(value)))));
            }
            Some(_) => return false,
        }
        let ignores = insert.ignore || insert.or == Some(SqliteOnConflict::Ignore);
        let upsert = match &insert.on {
            Some(OnInsert::OnConflict(conflict)) => matches!(conflict.action, OnConflictAction::DoUpdate(_)),
            on => on.is_some(),
        };
        let returning = insert.returning.is_some();
        self.push(table, Action::Insert, rows, |write| {
            write.on_conflict = ignores || insert.on.is_some();
            write.upsert = upsert;
            write.returning = returning;
            write.uncounted = uncounted;
        });
        let assignments = match &insert.on {
            Some(OnInsert::DuplicateKeyUpdate(assignments)) => assignments,
            Some(OnInsert::OnConflict(conflict)) => match &conflict.action {
                OnConflictAction::DoUpdate(update) => &update.assignments,
                OnConflictAction::DoNothing => return true,
            },
            Some(_) => return false,
            None => return true,
        };
        let row = self.assigned(table, assignments);
        self.push(table, Action::Update, vec![row], |write| {
            write.on_conflict = true;
            write.returning = returning;
        });
        true
    }

    fn update(&mut self, update: &Update) -> bool {
        let Some((name, names)) = single(&update.table) else {
            return false;
        };
        let Some(table) = self.table(name) else {
            return true;
        };
        let mut row = self.assigned(table, &update.assignments);
        let met = self.conditions(update.selection.as_ref(), &names);
        // Whose the row is says the WHERE first: the new values may be another's, and may meet no row.
        let set = std::mem::take(&mut row.owners);
        for (index, (column, _)) in table.owners().enumerate() {
            let is = |(met, _): &&(String, Term)| met.eq_ignore_ascii_case(column);
            row.owners.extend(met.iter().find(is).map(|(_, term)| (index, *term)));
        }
        let names_owner = !row.owners.is_empty();
        row.owners.extend(set);
        self.push(table, Action::Update, vec![row], |write| {
            write.returning = update.returning.is_some();
            write.uncounted = true;
            write.names_owner = names_owner;
        });
        true
    }

    fn delete(&mut self, delete: &Delete) -> bool {
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
        let [from] = from.as_slice() else { return false };
        let Some((name, names)) = single(from) else {
            return false;
        };
        if !delete.tables.is_empty() {
            return false;
        }
        let Some(table) = self.table(name) else {
            return true;
        };
        let met = self.conditions(delete.selection.as_ref(), &names);
        let met = met.iter().map(|(column, term)| (column.as_str(), *term));
        let row = self.row(table, met);
        self.push(table, Action::Delete, vec![row], |write| {
            write.returning = delete.returning.is_some();
            write.uncounted = true;
        });
        true
    }

    fn table(&self, name: &ObjectName) -> Option<&'m Table> {
        self.map.table(last(name))
    }

    fn push(&mut self, table: &Table, action: Action, rows: Vec<Row>, say: impl FnOnce(&mut Write)) {
        let tracked = rows.iter().any(|row| !row.values.is_empty());
        if !tracked && action != Action::Delete {
            return;
        }
        let terms = rows.iter().flat_map(|row| &row.values).map(|(_, term)| term);
        let owners = rows.iter().flat_map(|row| &row.owners).map(|(_, term)| term);
        self.plan.literals |= terms.chain(owners).any(|term| matches!(term, Term::Literal { .. }));
        let mut write = Write {
            table: table.site,
            action,
            rows,
            kinds: table.owners().map(|(_, kind)| kind.to_owned()).collect(),
            on_conflict: false,
            upsert: false,
            returning: false,
            uncounted: false,
            names_owner: false,
        };
        say(&mut write);
        self.plan.writes.push(write);
    }

    /// What these columns, with these values, say of a row.
    fn row<'c>(&self, table: &Table, cells: impl Iterator<Item = (&'c str, Term)>) -> Row {
        let mut row = Row::default();
        let cells: Vec<_> = cells.collect();
        for (name, term) in &cells {
            if let Some(column) = table.column(name) {
                row.values.push((column, *term));
            }
        }
        for (index, (column, _)) in table.owners().enumerate() {
            let mut said = cells.iter().filter(|(name, _)| name.eq_ignore_ascii_case(column));
            // Of several (`id IN (1, 2)`), none is the row's alone.
            if let (Some((_, term)), None) = (said.next(), said.next()) {
                row.owners.push((index, *term));
            }
        }
        row
    }

    fn assigned(&self, table: &Table, assignments: &[Assignment]) -> Row {
        let mut cells: Vec<(&str, Term)> = Vec::new();
        for assignment in assignments {
            match (&assignment.target, &assignment.value) {
                (AssignmentTarget::ColumnName(name), value) => {
                    let name = last(name);
                    cells.push((name, self.term(name, value)));
                }
                (AssignmentTarget::Tuple(names), Expr::Tuple(values)) if names.len() == values.len() => {
                    cells.extend(names.iter().zip(values).map(|(name, value)| {
                        let name = last(name);
                        (name, self.term(name, value))
                    }));
                }
                (AssignmentTarget::Tuple(names), _) => {
                    cells.extend(names.iter().map(|name| (last(name), Term::Opaque)));
                }
            }
        }
        self.row(table, cells.into_iter())
    }

    /// The value that `column` takes.
    fn term(&self, column: &str, value: &Expr) -> Term {
        let same = |name: &str| name.eq_ignore_ascii_case(column);
        match value {
            Expr::Nested(inner) => self.term(column, inner),
            // As it is, or as the row that was to be inserted has it.
            Expr::Identifier(name) if same(&name.value) && name.quote_style != Some('"') => Term::Nothing,
            Expr::Identifier(name) if name.value.eq_ignore_ascii_case("default") && name.quote_style.is_none() => {
                Term::Nothing
            }
            Expr::CompoundIdentifier(path) if path.last().is_some_and(|name| same(&name.value)) => Term::Nothing,
            Expr::Function(function) if last(&function.name).eq_ignore_ascii_case("values") => match &function.args {
                FunctionArguments::List(list) => match list.args.as_slice() {
                    [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(name)))] if same(&name.value) => {
                        Term::Nothing
                    }
                    _ => Term::Opaque,
                },
                _ => Term::Opaque,
            },
            _ => plain(value),
        }
    }

    /// Columns that must equal a value, by a condition of ANDs. `names` are the table's own.
    fn conditions(&self, condition: Option<&Expr>, names: &[&str]) -> Vec<(String, Term)> {
        let mut met = Vec::new();
        let mut rest: Vec<&Expr> = condition.into_iter().collect();
        while let Some(condition) = rest.pop() {
            match condition {
                Expr::Nested(inner) => rest.push(inner),
                Expr::BinaryOp { left, op, right } if *op == BinaryOperator::And => {
                    rest.push(right);
                    rest.push(left);
                }
                Expr::BinaryOp { left, op, right } if *op == BinaryOperator::Eq => {
                    let pair = match (column_of(left, names), column_of(right, names)) {
                        (Some(column), None) => Some((column, plain(right))),
                        (None, Some(column)) => Some((column, plain(left))),
                        _ => None,
                    };
                    met.extend(pair.map(|(column, term)| (column.to_owned(), term)));
                }
                Expr::InList {
                    expr,
                    list,
                    negated: false,
                } => {
                    if let Some(column) = column_of(expr, names) {
                        met.extend(list.iter().map(|value| (column.to_owned(), plain(value))));
                    }
                }
                _ => {}
            }
        }
        // What is compared with something computed says nothing of the row.
        met.retain(|(_, term)| matches!(term, Term::Bind(_) | Term::Literal { .. }));
        met
    }
}

/// A value that the text tells: a placeholder or a literal, in brackets or a cast.
fn plain(value: &Expr) -> Term {
    let mut value = value;
    let mut negative = false;
    loop {
        value = match value {
            Expr::Nested(inner) => inner,
            Expr::Cast { expr, .. } | Expr::Collate { expr, .. } if !negative => expr,
            Expr::UnaryOp {
                op: UnaryOperator::Minus,
                expr,
            } if !negative => {
                negative = true;
                expr
            }
            _ => break,
        };
    }
    let literal = |index: &str, negative: bool| match index.parse() {
        Ok(index) => Term::Literal { index, negative },
        Err(_) => Term::Opaque,
    };
    let value = match value {
        Expr::Value(value) => &value.value,
        Expr::TypedString(typed) => &typed.value.value,
        Expr::Identifier(name) if name.value.eq_ignore_ascii_case("default") && name.quote_style.is_none() => {
            return Term::Nothing;
        }
        _ => return Term::Opaque,
    };
    match value {
        Literally::Number(index, _) => literal(index, negative),
        _ if negative => Term::Opaque,
        Literally::Placeholder(name) => match name.strip_prefix('?').and_then(|number| number.parse::<usize>().ok()) {
            Some(number @ 1..) => Term::Bind(number - 1),
            _ => Term::Opaque,
        },
        Literally::SingleQuotedString(index) | Literally::DoubleQuotedString(index) => literal(index, false),
        Literally::Null => Term::Nothing,
        // A truth value says nothing that is worth a tag.
        Literally::Boolean(_) => Term::Nothing,
        _ => Term::Opaque,
    }
}

/// The column, if it is one of the table's.
fn column_of<'e>(value: &'e Expr, names: &[&str]) -> Option<&'e str> {
    match value {
        Expr::Nested(inner) => column_of(inner, names),
        Expr::Identifier(name) => Some(&name.value),
        Expr::CompoundIdentifier(path) => match path.as_slice() {
            [.., table, column] if names.iter().any(|name| name.eq_ignore_ascii_case(&table.value)) => {
                Some(&column.value)
            }
            _ => None,
        },
        _ => None,
    }
}

/// The one table of a clause, with the names it goes by.
fn single(table: &TableWithJoins) -> Option<(&ObjectName, Vec<&str>)> {
    match &table.relation {
        TableFactor::Table { name, alias, .. } if table.joins.is_empty() => {
            let alias = alias.as_ref().map(|alias| alias.name.value.as_str());
            Some((name, [last(name)].into_iter().chain(alias).collect()))
        }
        _ => None,
    }
}

/// The last part of a name: `users` of `public.users`.
fn last(name: &ObjectName) -> &str {
    let ident = name.0.last().and_then(|part| part.as_ident());
    ident.map_or("", |ident| ident.value.as_str())
}

fn is_keyword(token: &Token, keyword: Keyword) -> bool {
    matches!(token, Token::Word(word) if word.keyword == keyword && word.quote_style.is_none())
}

fn begins(statement: &[Token]) -> Begins {
    let is = |at: usize, word: &str| match statement.get(at) {
        Some(Token::Word(found)) => found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word),
        _ => false,
    };
    let any = |words: &[&str]| words.iter().any(|word| is(0, word));
    if any(&["INSERT", "REPLACE", "UPDATE", "DELETE", "TRUNCATE", "COPY", "MERGE"]) {
        return Begins::Write;
    }
    if any(&["WITH"]) {
        let writes = (1..statement.len()).any(|at| {
            ["INSERT", "REPLACE", "UPDATE", "DELETE", "MERGE"]
                .iter()
                .any(|verb| is(at, verb))
                && !is(at - 1, "FOR")
                && !is(at - 1, "ON")
                && !is(at - 1, "KEY")
        });
        return if writes { Begins::Write } else { Begins::Read };
    }
    if any(&["SELECT"]) {
        return Begins::Read;
    }
    if any(&["CREATE"]) {
        let program =
            (1..statement.len().min(6)).any(|at| ["TRIGGER", "PROCEDURE", "FUNCTION"].iter().any(|what| is(at, what)));
        // A whole program in one statement has its END, or is a literal.
        let begun = (1..statement.len()).any(|at| is(at, "BEGIN"));
        return if program && begun {
            Begins::Program
        } else {
            Begins::Other
        };
    }
    if any(&["BEGIN", "START", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "ABORT"]) {
        return Begins::Transaction;
    }
    if any(&["END"]) {
        return Begins::End;
    }
    Begins::Other
}

/// Tokens that may each make the tree one level deeper.
fn operators(tokens: &[Token]) -> usize {
    let flat = |token: &&Token| match token {
        Token::Comma
        | Token::LParen
        | Token::RParen
        | Token::Period
        | Token::Placeholder(_)
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_) => true,
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::NoKeyword | Keyword::NULL | Keyword::DEFAULT | Keyword::TRUE | Keyword::FALSE | Keyword::ROW
        ),
        _ => false,
    };
    tokens.iter().filter(|token| !flat(token)).count()
}
