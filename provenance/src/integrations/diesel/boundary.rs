//! Where a text of SQL begins and ends transactions.
//!
//! No parser: it knows where statements begin, and how the few that matter are written in SQLite,
//! PostgreSQL and MySQL. What it cannot follow it says so ([`Step::Unclear`]).

/// What a statement does to the transaction that it runs in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Begin,
    /// `chain`: the next one begins at once.
    Commit {
        chain: bool,
    },
    Rollback {
        chain: bool,
    },
    Savepoint(Name),
    Release(Name),
    RollbackTo(Name),
    /// May have ended the transaction, or not.
    Unclear,
}

/// A savepoint's name. Whether `A` and `a` are one depends on the database and on quotes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Name {
    /// As PostgreSQL takes it.
    exact: String,
    folded: String,
}

impl Name {
    fn new(text: &str, quoted: bool) -> Self {
        let folded = text.to_lowercase();
        let exact = if quoted { text.to_owned() } else { folded.clone() };
        Name { exact, folded }
    }

    /// Whether some database takes both for one savepoint.
    pub(super) fn may_be(&self, other: &Name) -> bool {
        self.folded == other.folded
    }
}

/// Words without which nothing begins or ends a transaction. Where a text cannot be followed any
/// further, they decide.
const WORDS: [&str; 11] = [
    "BEGIN",
    "START",
    "SAVEPOINT",
    "COMMIT",
    "ROLLBACK",
    "END",
    "ABORT",
    "RELEASE",
    "PREPARE",
    "XA",
    "AUTOCOMMIT",
];

/// What a text does to transactions.
#[derive(Debug, Default)]
pub(super) struct Boundaries {
    pub(super) steps: Vec<Step>,
    /// Nothing else stands in the text, so that its error is that of its one step.
    pub(super) alone: bool,
}

/// Reads `text`, statement by statement.
pub(super) fn read(text: &str) -> Boundaries {
    let mut steps = Vec::new();
    let mut statements = 0;
    let mut lexer = Lexer { rest: text };
    let mut after_routine = false;
    while !lexer.at_end() {
        if lexer.take_end() {
            continue;
        }
        statements += 1;
        match statement(&mut lexer, &mut after_routine) {
            Ok(step) => steps.extend(step),
            Err(Lost) => {
                if may_be_more(lexer.rest) {
                    steps.push(Step::Unclear);
                }
                break;
            }
        }
    }
    Boundaries {
        alone: statements == 1,
        steps,
    }
}

/// The text cannot be followed any further.
struct Lost;

/// Reads one statement, with the `;` that ends it.
fn statement(lexer: &mut Lexer<'_>, after_routine: &mut bool) -> Result<Option<Step>, Lost> {
    let begin = lexer.rest;
    let read = head(lexer, after_routine).and_then(|step| lexer.skip_statement().map(|()| step));
    if read.is_err() {
        // All of it is left for its words to decide.
        lexer.rest = begin;
    }
    read
}

/// Reads what a statement begins with.
fn head(lexer: &mut Lexer<'_>, after_routine: &mut bool) -> Result<Option<Step>, Lost> {
    let Some(Token::Word(first)) = lexer.next()? else {
        return Ok(None);
    };
    let is = |word: &str| first.eq_ignore_ascii_case(word);
    Ok(if is("BEGIN") {
        // MariaDB's compound statement.
        Some(if lexer.take("NOT")? { Step::Unclear } else { Step::Begin })
    } else if is("START") {
        lexer.take("TRANSACTION")?.then_some(Step::Begin)
    } else if is("END") && *after_routine {
        // A body may have ended earlier than it seemed: then this is its `END`.
        Some(Step::Unclear)
    } else if is("COMMIT") || is("END") {
        if lexer.take("PREPARED")? {
            return Ok(None);
        }
        let chain = lexer.chain()?;
        Some(Step::Commit { chain })
    } else if is("ROLLBACK") || is("ABORT") {
        if lexer.take("PREPARED")? {
            return Ok(None);
        }
        match lexer.savepoint_after_to()? {
            Some(name) => Some(Step::RollbackTo(name)),
            None => Some(Step::Rollback { chain: lexer.chain()? }),
        }
    } else if is("SAVEPOINT") {
        Some(Step::Savepoint(lexer.name()?))
    } else if is("RELEASE") {
        Some(Step::Release(lexer.savepoint()?))
    } else if is("PREPARE") {
        lexer.take("TRANSACTION")?.then_some(Step::Unclear)
    } else if is("XA") {
        Some(Step::Unclear)
    } else if is("SET") {
        lexer.set_ends_transaction()?.then_some(Step::Unclear)
    } else if is("CREATE") || is("ALTER") {
        *after_routine |= lexer.skip_routine()?;
        None
    } else {
        None
    })
}

/// Whether one of [`WORDS`] stands in `text`, in any place.
fn may_be_more(text: &str) -> bool {
    text.split(|c: char| !is_word(c))
        .any(|word| WORDS.iter().any(|known| word.eq_ignore_ascii_case(known)))
}

struct Lexer<'t> {
    rest: &'t str,
}

enum Token<'t> {
    /// A keyword or a bare name.
    Word(&'t str),
    /// A quoted name or a text, without its quotes.
    Quoted(&'t str),
    End,
    Other,
}

impl<'t> Lexer<'t> {
    fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next token; `None` at the end of the text.
    fn next(&mut self) -> Result<Option<Token<'t>>, Lost> {
        self.skip_space()?;
        let Some(first) = self.rest.chars().next() else {
            return Ok(None);
        };
        let token = match first {
            ';' => {
                self.advance(1);
                Token::End
            }
            '\'' | '"' | '`' => Token::Quoted(self.quoted(first)?),
            '[' => self.bracketed(),
            '$' => self.dollar()?,
            c if is_word(c) => {
                let length = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
                Token::Word(self.advance(length))
            }
            c => {
                self.advance(c.len_utf8());
                Token::Other
            }
        };
        Ok(Some(token))
    }

    fn advance(&mut self, length: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    /// Takes the `;` of an empty statement, or the space that the text ends with.
    fn take_end(&mut self) -> bool {
        let before = self.rest;
        let taken = matches!(self.next(), Ok(Some(Token::End) | None));
        if !taken {
            self.rest = before;
        }
        taken
    }

    /// White space and comments.
    fn skip_space(&mut self) -> Result<(), Lost> {
        loop {
            self.rest = self
                .rest
                .trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
            if self.rest.starts_with("--") {
                let length = self.rest.find('\n').unwrap_or(self.rest.len());
                self.advance(length);
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                let end = comment.find("*/").ok_or(Lost)?;
                let (inside, _) = comment.split_at_checked(end).ok_or(Lost)?;
                // Nested in PostgreSQL alone; run by MySQL.
                if inside.contains("/*") || inside.starts_with(['!', 'M']) {
                    return Err(Lost);
                }
                self.advance(end + 4);
            } else {
                return Ok(());
            }
        }
    }

    /// A quoted text. Where a backslash may hide its end, databases differ.
    fn quoted(&mut self, quote: char) -> Result<&'t str, Lost> {
        let begin = self.rest.get(1..).ok_or(Lost)?;
        let mut at = 0;
        loop {
            let length = begin.get(at..).and_then(|rest| rest.find(quote)).ok_or(Lost)?;
            let end = at + length;
            let inside = begin.get(..end).ok_or(Lost)?;
            if inside.ends_with('\\') {
                return Err(Lost);
            }
            let after = begin.get(end + 1..).ok_or(Lost)?;
            if after.starts_with(quote) {
                at = end + 2;
                continue;
            }
            self.rest = after;
            return Ok(inside);
        }
    }

    /// `[name]` in SQLite, an index in PostgreSQL.
    fn bracketed(&mut self) -> Token<'t> {
        let inside = self.rest.get(1..).unwrap_or_default();
        match inside.find([']', '\'', '"', ';', '[']) {
            Some(end) if inside.get(end..).is_some_and(|rest| rest.starts_with(']')) => {
                self.advance(end + 2);
                Token::Quoted(inside.get(..end).unwrap_or_default())
            }
            _ => {
                self.advance(1);
                Token::Other
            }
        }
    }

    /// `$1`, `$name`, `$$text$$` or `$tag$text$tag$`.
    fn dollar(&mut self) -> Result<Token<'t>, Lost> {
        let inside = self.rest.get(1..).unwrap_or_default();
        let length = inside.find(|c| !is_word(c)).unwrap_or(inside.len());
        let is_text = !inside.starts_with(|c: char| c.is_ascii_digit())
            && inside.get(length..).is_some_and(|rest| rest.starts_with('$'));
        if !is_text {
            self.advance(length + 1);
            return Ok(Token::Other);
        }
        let tag = self.advance(length + 2);
        let end = self.rest.find(tag).ok_or(Lost)?;
        self.advance(end + tag.len());
        Ok(Token::Other)
    }

    /// Takes `word` if it is next.
    fn take(&mut self, word: &str) -> Result<bool, Lost> {
        let before = self.rest;
        match self.next()? {
            Some(Token::Word(next)) if next.eq_ignore_ascii_case(word) => Ok(true),
            _ => {
                self.rest = before;
                Ok(false)
            }
        }
    }

    /// The rest of `COMMIT [WORK | TRANSACTION [name]] [AND [NO] CHAIN]`.
    fn chain(&mut self) -> Result<bool, Lost> {
        if !self.take("WORK")? {
            self.take("TRANSACTION")?;
        }
        Ok(self.take("AND")? && !self.take("NO")?)
    }

    /// The rest of `ROLLBACK [WORK | TRANSACTION [name]] [TO [SAVEPOINT] name]`.
    fn savepoint_after_to(&mut self) -> Result<Option<Name>, Lost> {
        let before = self.rest;
        if !self.take("WORK")? && self.take("TRANSACTION")? {
            let named = self.rest;
            let is_named = !self.take("TO")?
                && !self.take("AND")?
                && matches!(self.next()?, Some(Token::Word(_) | Token::Quoted(_)));
            if !is_named {
                self.rest = named;
            }
        }
        if self.take("TO")? {
            return self.savepoint().map(Some);
        }
        self.rest = before;
        Ok(None)
    }

    /// `[SAVEPOINT] name`
    fn savepoint(&mut self) -> Result<Name, Lost> {
        self.take("SAVEPOINT")?;
        self.name()
    }

    fn name(&mut self) -> Result<Name, Lost> {
        match self.next()? {
            // `U&"name"`
            Some(Token::Word(_)) if self.rest.starts_with('&') => Err(Lost),
            Some(Token::Word(word)) => Ok(Name::new(word, false)),
            Some(Token::Quoted(text)) => Ok(Name::new(text, true)),
            _ => Err(Lost),
        }
    }

    /// `SET [SESSION | @@session.]autocommit = ..` commits in MySQL.
    fn set_ends_transaction(&mut self) -> Result<bool, Lost> {
        let mut look = Lexer { rest: self.rest };
        while let Some(token) = look.next()? {
            match token {
                Token::End => break,
                Token::Word(word) if word.eq_ignore_ascii_case("autocommit") => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }

    /// Past the body of a trigger, function, procedure or event, where the statement creates one
    /// whose body holds statements.
    fn skip_routine(&mut self) -> Result<bool, Lost> {
        let mut routine = false;
        let mut depth = 0_usize;
        loop {
            let before = self.rest;
            match self.next()? {
                // A body that does not end: another database's, or a column called `begin`.
                None if depth > 0 => return Err(Lost),
                None => return Ok(routine),
                Some(Token::End) if depth == 0 => {
                    self.rest = before;
                    return Ok(routine);
                }
                Some(Token::Word(word)) => {
                    let is = |words: &[&str]| words.iter().any(|other| word.eq_ignore_ascii_case(other));
                    routine |= is(&["TRIGGER", "FUNCTION", "PROCEDURE", "EVENT"]);
                    if !routine {
                        continue;
                    }
                    if is(&["BEGIN", "CASE"]) {
                        depth += 1;
                    } else if is(&["END"]) {
                        let of_a_statement = ["IF", "LOOP", "WHILE", "REPEAT"];
                        let mut closes = true;
                        for word in of_a_statement {
                            closes &= !self.take(word)?;
                        }
                        self.take("CASE")?;
                        depth = depth.saturating_sub(usize::from(closes));
                    }
                }
                Some(_) => {}
            }
        }
    }

    /// To the end of the statement in hand, with its `;`.
    fn skip_statement(&mut self) -> Result<(), Lost> {
        // Most texts are one statement: nothing in it can begin another.
        if !self.rest.contains(';') {
            self.rest = "";
            return Ok(());
        }
        while let Some(token) = self.next()? {
            if let Token::End = token {
                break;
            }
        }
        Ok(())
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Step::{Begin, Unclear};
    use super::*;

    const COMMIT: Step = Step::Commit { chain: false };
    const ROLLBACK: Step = Step::Rollback { chain: false };

    fn read(text: &str) -> Vec<Step> {
        super::read(text).steps
    }

    fn name(text: &str) -> Name {
        Name::new(text, false)
    }

    #[test]
    fn transaction_control_is_read_in_every_spelling() {
        let begins = [
            "BEGIN",
            "begin;",
            " BEGIN IMMEDIATE ;",
            "BEGIN EXCLUSIVE TRANSACTION",
            "Start Transaction Read Only",
            "-- a note\nBEGIN",
            "/* a note; COMMIT */ BEGIN WORK",
            "\u{feff}BEGIN",
            "BEGIN ISOLATION LEVEL SERIALIZABLE, READ WRITE",
        ];
        for text in begins {
            assert_eq!(read(text), [Begin], "{text}");
        }
        for text in [
            "COMMIT",
            "end",
            "END TRANSACTION;",
            "COMMIT WORK",
            "COMMIT AND NO CHAIN",
            "commit--x",
        ] {
            assert_eq!(read(text), [COMMIT], "{text}");
        }
        for text in [
            "ROLLBACK",
            "abort",
            "Rollback Transaction",
            "ROLLBACK WORK AND NO CHAIN",
            "ROLLBACK;;",
        ] {
            assert_eq!(read(text), [ROLLBACK], "{text}");
        }
        assert_eq!(read("COMMIT AND CHAIN"), [Step::Commit { chain: true }]);
        assert_eq!(read("ROLLBACK TRANSACTION AND CHAIN"), [Step::Rollback { chain: true }]);
        assert_eq!(read("SAVEPOINT a"), [Step::Savepoint(name("a"))]);
        for text in [
            "RELEASE a",
            "release savepoint A",
            "RELEASE SAVEPOINT \"a\"",
            "RELEASE [a]",
            "RELEASE 'a'",
            "RELEASE `a`",
        ] {
            assert_eq!(read(text), [Step::Release(name("a"))], "{text}");
        }
        for text in [
            "ROLLBACK TO a",
            "ROLLBACK TRANSACTION TO SAVEPOINT a",
            "ROLLBACK WORK TO a",
            "ROLLBACK TRANSACTION t TO a",
        ] {
            assert_eq!(read(text), [Step::RollbackTo(name("a"))], "{text}");
        }
        assert_ne!(Name::new("A", true), Name::new("A", false));
        assert!(Name::new("A", true).may_be(&Name::new("a", false)));
    }

    #[test]
    fn other_statements_do_nothing_to_the_transaction() {
        let texts = [
            "",
            " ; ; -- COMMIT",
            "SELECT 'COMMIT; ROLLBACK'",
            "INSERT INTO \"commit\" VALUES ('it''s; COMMIT')",
            "EXPLAIN COMMIT",
            "COMMIT PREPARED 'x'; ROLLBACK PREPARED 'y'",
            "CREATE TABLE t (a); SELECT $$; COMMIT; $$, $1, $tag$; END $tag$",
            "CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE b SET c = CASE WHEN 1 THEN 2 END; DELETE FROM d; END; SELECT 1",
            "SET TIME ZONE 'UTC'",
            "PREPARE plan AS SELECT 1",
            "SELECT 'C:\\'; SELECT 1",
        ];
        for text in texts {
            assert_eq!(read(text), [], "{text}");
        }
    }

    #[test]
    fn several_statements_in_one_text_are_read_in_order() {
        assert_eq!(
            read("BEGIN; INSERT INTO t VALUES (';'); SAVEPOINT a; ROLLBACK TO a; COMMIT; SELECT 1"),
            [Begin, Step::Savepoint(name("a")), Step::RollbackTo(name("a")), COMMIT]
        );
        assert_eq!(read("INSERT INTO t VALUES (1); END"), [COMMIT]);
        assert_eq!(read("BEGIN;; ;COMMIT"), [Begin, COMMIT]);
    }

    #[test]
    fn what_cannot_be_followed_is_unclear_where_it_may_matter() {
        let texts = [
            "PREPARE TRANSACTION 'x'",
            "XA END 'x'",
            "SET @@session.autocommit = 0",
            "/* a /* b */ COMMIT",
            "/*!COMMIT*/",
            "SELECT 'it\\'; COMMIT; --'",
            "SELECT 'open; COMMIT",
            "ROLLBACK TO U&\"a\"",
            "SAVEPOINT",
            "BEGIN NOT ATOMIC",
            "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT end; END;",
        ];
        for text in texts {
            assert_eq!(read(text).last(), Some(&Unclear), "{text}");
        }
        assert_eq!(read("COMMIT; SELECT 'open; ROLLBACK"), [COMMIT, Unclear]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in "(?s).{0,200}") {
            read(&text);
        }

        #[test]
        fn noise_between_statements_changes_nothing(
            noise in proptest::collection::vec(
                prop_oneof![
                    Just(" "), Just("\n"), Just("-- COMMIT;\n"), Just("/* ROLLBACK; */"), Just(";"),
                    Just("SELECT 'COMMIT; '' END';"), Just("SELECT \"END; \";"), Just("SELECT $q$; END;$q$;"),
                    Just("UPDATE `a;` SET x = 1;"),
                ],
                0..6,
            ),
            before in 0_usize..6,
        ) {
            let at = before.min(noise.len());
            let text = format!("{}COMMIT;{}", noise[..at].concat(), noise[at..].concat());
            prop_assert_eq!(read(&text), [COMMIT]);
        }
    }
}
