//! What went where: sources, categories, tables and recipients, and the flows between them.

use std::collections::{BTreeMap, BTreeSet};

use provenance::config::Config;
use provenance::store::Flow;

use super::{short, special};

/// Most nodes of a column; the rest is one node.
const MOST: usize = 18;
/// The name of that node, and of recipients that are our own.
pub(crate) const OTHERS: &str = "others";
pub(crate) const INTERNAL: &str = "internal recipients";

/// What is shown alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) source: Option<String>,
    pub(crate) category: Option<String>,
    pub(crate) table: Option<String>,
    pub(crate) recipient: Option<String>,
    /// Internal recipients each by itself.
    pub(crate) unfolded: bool,
}

/// The data map.
#[derive(Debug, Default)]
pub(crate) struct DataMap {
    pub(crate) sources: Vec<Node>,
    pub(crate) categories: Vec<Node>,
    pub(crate) tables: Vec<Node>,
    pub(crate) recipients: Vec<Node>,
    pub(crate) collected: Vec<Link>,
    pub(crate) stored: Vec<Link>,
    pub(crate) shared: Vec<Link>,
    /// One row for each category, before anything was folded.
    pub(crate) rows: Vec<Row>,
    pub(crate) has_internal: bool,
    /// Categories that are no personal data, and not shown.
    pub(crate) left_out: usize,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) events: i64,
    pub(crate) special: Option<&'static str>,
    pub(crate) violations: i64,
    pub(crate) undeclared: bool,
    /// How many this node stands for.
    pub(crate) folded: usize,
}

/// From the node at `from` of one column to the one at `to` of another.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) events: i64,
    pub(crate) violations: i64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    pub(crate) category: String,
    pub(crate) sources: BTreeMap<String, i64>,
    pub(crate) tables: BTreeMap<String, i64>,
    pub(crate) recipients: BTreeMap<String, Sent>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) events: i64,
    pub(crate) violations: i64,
}

impl Row {
    pub(crate) fn violations(&self) -> i64 {
        self.recipients.values().map(|sent| sent.violations).sum()
    }

    fn weight(&self) -> i64 {
        let sent: i64 = self.recipients.values().map(|sent| sent.events).sum();
        self.sources.values().sum::<i64>() + self.tables.values().sum::<i64>() + sent
    }
}

/// The map of these flows.
pub(crate) fn of(flows: &[Flow], config: &Config, filter: &Filter) -> DataMap {
    let mut map = DataMap::default();
    let mut left_out = BTreeSet::new();
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    for flow in flows {
        if !flow.key.pii {
            left_out.insert(short(&flow.key.category));
            continue;
        }
        add(&mut rows, flow);
    }
    map.left_out = left_out.len();
    map.rows = rows.into_values().filter(|row| row.weight() > 0).collect();
    narrow(&mut map.rows, filter);
    // Of one group together, the most frequent first.
    map.rows
        .sort_by_key(|row| (group(&row.category), std::cmp::Reverse(row.weight())));
    let is_internal = |name: &str| {
        let role = config
            .recipients
            .get(name)
            .and_then(|recipient| recipient.role.as_deref());
        role == Some("internal")
    };
    map.has_internal = map
        .rows
        .iter()
        .any(|row| row.recipients.keys().any(|name| is_internal(name)));
    let folded = |name: &str| match is_internal(name) && !filter.unfolded && filter.recipient.is_none() {
        true => INTERNAL.to_owned(),
        false => name.to_owned(),
    };

    let shown = most(map.rows.iter().map(|row| (row.category.clone(), row.weight())));
    let category_of = |row: &Row| match shown.contains(&row.category) {
        true => row.category.clone(),
        false => OTHERS.to_owned(),
    };
    let mut sources = Column::new(
        map.rows
            .iter()
            .flat_map(|row| row.sources.iter().map(|(n, e)| (n.clone(), *e))),
    );
    let mut categories = Column::all();
    let mut tables = Column::new(
        map.rows
            .iter()
            .flat_map(|row| row.tables.iter().map(|(n, e)| (n.clone(), *e))),
    );
    let sent = map.rows.iter().flat_map(|row| row.recipients.iter());
    let mut recipients = Column::new(sent.map(|(name, sent)| (folded(name), sent.events)));
    let (mut collected, mut stored, mut shared) = (Links::new(), Links::new(), Links::new());
    for row in &map.rows {
        let at = categories.at(&category_of(row));
        if let Some(node) = categories.nodes.get_mut(at) {
            node.events += row.weight();
            node.violations += row.violations();
            node.special = node.special.or(special(&row.category));
            node.folded += 1;
        }
        for (name, events) in &row.sources {
            let from = sources.count(name, *events, 0);
            add_link(&mut collected, (from, at), *events, 0);
        }
        for (name, events) in &row.tables {
            let to = tables.count(name, *events, 0);
            add_link(&mut stored, (at, to), *events, 0);
        }
        for (name, sent) in &row.recipients {
            let to = recipients.count(&folded(name), sent.events, sent.violations);
            if let Some(node) = recipients.nodes.get_mut(to) {
                node.undeclared |= !config.recipients.contains_key(name) && !config.recipients.is_empty();
            }
            add_link(&mut shared, (at, to), sent.events, sent.violations);
        }
    }
    map.collected = links(collected);
    map.stored = links(stored);
    map.shared = links(shared);
    map.sources = sources.nodes;
    map.categories = categories.nodes;
    map.tables = tables.nodes;
    map.recipients = recipients.nodes;
    order(&mut map.sources, &mut map.collected, |link| (&mut link.from, link.to));
    order(&mut map.tables, &mut map.stored, |link| (&mut link.to, link.from));
    order(&mut map.recipients, &mut map.shared, |link| (&mut link.to, link.from));
    map
}

fn add<'a>(rows: &mut BTreeMap<&'a str, Row>, flow: &'a Flow) {
    let key = &flow.key;
    let category = short(&key.category);
    let row = rows.entry(category).or_insert_with(|| Row {
        category: category.to_owned(),
        ..Row::default()
    });
    let recipient = key.recipient.as_deref().unwrap_or("(no name)");
    match key.event_type.as_str() {
        "DATA_COLLECTION" => *row.sources.entry(key.actor.clone()).or_default() += flow.events,
        // Of the result alone: what went in came from elsewhere.
        "DATA_DERIVATION" => {
            if let Some(target) = key.target.as_deref().filter(|target| *target == key.source) {
                *row.sources.entry(target.to_owned()).or_default() += flow.events;
            }
        }
        "DATA_STORAGE" => {
            let table = key.target.as_deref().unwrap_or("(no table)");
            let table = table.strip_prefix("db:").unwrap_or(table);
            *row.tables.entry(table.to_owned()).or_default() += flow.events;
        }
        "DATA_SHARE" => row.recipients.entry(recipient.to_owned()).or_default().events += flow.events,
        "POLICY_VIOLATION" => row.recipients.entry(recipient.to_owned()).or_default().violations += flow.events,
        _ => {}
    }
}

/// Rows that every filter lets pass, and of the filtered columns the one name alone.
fn narrow(rows: &mut Vec<Row>, filter: &Filter) {
    if let Some(category) = &filter.category {
        rows.retain(|row| row.category == *short(category));
    }
    if let Some(name) = &filter.source {
        rows.retain(|row| row.sources.contains_key(name));
        rows.iter_mut()
            .for_each(|row| row.sources.retain(|known, _| known == name));
    }
    if let Some(name) = &filter.table {
        rows.retain(|row| row.tables.contains_key(name));
        rows.iter_mut()
            .for_each(|row| row.tables.retain(|known, _| known == name));
    }
    if let Some(name) = &filter.recipient {
        rows.retain(|row| row.recipients.contains_key(name));
        rows.iter_mut()
            .for_each(|row| row.recipients.retain(|known, _| known == name));
    }
}

struct Column {
    /// `None`: all.
    shown: Option<BTreeSet<String>>,
    nodes: Vec<Node>,
}

impl Column {
    fn all() -> Self {
        Column {
            shown: None,
            nodes: Vec::new(),
        }
    }

    fn new(names: impl Iterator<Item = (String, i64)>) -> Self {
        Column {
            shown: Some(most(names)),
            nodes: Vec::new(),
        }
    }

    fn at(&mut self, name: &str) -> usize {
        let name = match &self.shown {
            Some(shown) if !shown.contains(name) => OTHERS,
            _ => name,
        };
        self.nodes.iter().position(|node| node.name == name).unwrap_or_else(|| {
            self.nodes.push(Node {
                name: name.to_owned(),
                ..Node::default()
            });
            self.nodes.len() - 1
        })
    }

    fn count(&mut self, name: &str, events: i64, violations: i64) -> usize {
        let at = self.at(name);
        if let Some(node) = self.nodes.get_mut(at) {
            node.events += events;
            node.violations += violations;
        }
        at
    }
}

/// The most frequent names.
fn most(names: impl Iterator<Item = (String, i64)>) -> BTreeSet<String> {
    let mut sums: BTreeMap<String, i64> = BTreeMap::new();
    for (name, events) in names {
        *sums.entry(name).or_default() += events;
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, events)| std::cmp::Reverse(*events));
    let kept = if sums.len() > MOST { MOST - 1 } else { MOST };
    sums.into_iter().take(kept).map(|(name, _)| name).collect()
}

type Links = BTreeMap<(usize, usize), (i64, i64)>;

fn add_link(links: &mut Links, ends: (usize, usize), events: i64, violations: i64) {
    let link = links.entry(ends).or_default();
    link.0 += events;
    link.1 += violations;
}

fn links(links: Links) -> Vec<Link> {
    let links = links.into_iter().map(|((from, to), (events, violations))| Link {
        from,
        to,
        events,
        violations,
    });
    links.collect()
}

/// Nodes near to what they are linked with, so that few links cross.
fn order(nodes: &mut Vec<Node>, links: &mut [Link], ends: impl Fn(&mut Link) -> (&mut usize, usize)) {
    let mut sums = vec![(0.0, 0.0); nodes.len()];
    for link in links.iter_mut() {
        let events = link.events.max(1) as f64;
        let (own, other) = ends(link);
        if let Some(sum) = sums.get_mut(*own) {
            sum.0 += other as f64 * events;
            sum.1 += events;
        }
    }
    let mean = |index: &usize| sums.get(*index).map_or(0.0, |(sum, weight)| sum / weight.max(1.0));
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    order.sort_by(|a, b| mean(a).total_cmp(&mean(b)));
    let mut place = vec![0; nodes.len()];
    for (new, old) in order.iter().enumerate() {
        if let Some(place) = place.get_mut(*old) {
            *place = new;
        }
    }
    *nodes = order.iter().filter_map(|old| nodes.get(*old).cloned()).collect();
    for link in links {
        let (own, _) = ends(link);
        *own = place.get(*own).copied().unwrap_or(*own);
    }
}

/// Categories of one colour.
pub(crate) fn group(category: &str) -> usize {
    const SETTINGS: usize = 6;
    const GROUPS: &[&[&str]] = &[
        &["contact", "social", "workplace", "job_title"],
        &["name", "account", "unique_id", "government_id", "device"],
        &["demographic", "childrens"],
        &["financial", "payment", "score"],
        &["health_and_medical", "biometric", "criminal_history"],
        &["behavior", "content", "telemetry", "sensor", "user_sensor"],
        &["location", "preferences", "privacy_preferences"],
        &["authorization", "security"],
    ];
    let category = short(category);
    if category.starts_with("account.settings") {
        return SETTINGS;
    }
    let head = category.split('.').next().unwrap_or("");
    GROUPS
        .iter()
        .position(|group| group.contains(&head))
        .unwrap_or(GROUPS.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use provenance::config::Recipient;
    use provenance::store::FlowKey;

    use super::*;

    fn flow(event_type: &str, category: &str, at: &str, events: i64) -> Flow {
        let is_share = matches!(event_type, "DATA_SHARE" | "POLICY_VIOLATION");
        Flow {
            key: FlowKey {
                day: "2026-11-22".into(),
                event_type: event_type.into(),
                actor: at.into(),
                target: (event_type == "DATA_STORAGE").then(|| format!("db:{at}")),
                recipient: is_share.then(|| at.to_owned()),
                category: category.into(),
                field: "field".into(),
                source: "HTTP POST /".into(),
                pii: true,
            },
            events,
        }
    }

    fn node<'a>(nodes: &'a [Node], name: &str) -> &'a Node {
        nodes.iter().find(|node| node.name == name).unwrap()
    }

    #[test]
    fn violations_and_undeclared_recipients_are_marked() {
        let config = Config {
            recipients: [("mailer".to_owned(), Recipient::default())].into(),
            ..Config::default()
        };
        let flows = [
            flow("DATA_COLLECTION", "user.biometric", "HTTP POST /", 3),
            flow("DATA_SHARE", "user.biometric", "mailer", 2),
            flow("DATA_SHARE", "user.contact.email", "stranger", 1),
            flow("POLICY_VIOLATION", "user.biometric", "mailer", 1),
        ];
        let map = of(&flows, &config, &Filter::default());
        assert_eq!(node(&map.recipients, "mailer").violations, 1);
        assert!(!node(&map.recipients, "mailer").undeclared && node(&map.recipients, "stranger").undeclared);
        assert!(node(&map.categories, "biometric").special.is_some());
        assert!(node(&map.categories, "contact.email").special.is_none());
        assert_eq!(map.shared.iter().map(|link| link.violations).sum::<i64>(), 1);
        assert_eq!(map.rows.iter().map(Row::violations).sum::<i64>(), 1);
    }

    #[test]
    fn many_are_folded_and_no_event_is_lost() {
        let flows: Vec<_> = (0..100)
            .map(|n| flow("DATA_SHARE", &format!("user.x{}", n % 40), &format!("r{n}"), n + 1))
            .collect();
        let map = of(&flows, &Config::default(), &Filter::default());
        assert_eq!(map.recipients.len(), MOST);
        assert_eq!(map.categories.len(), MOST);
        assert_eq!(map.rows.len(), 40);
        let all = (1..=100).sum::<i64>();
        for sum in [
            map.recipients.iter().map(|node| node.events).sum::<i64>(),
            map.categories.iter().map(|node| node.events).sum(),
            map.shared.iter().map(|link| link.events).sum(),
        ] {
            assert_eq!(sum, all);
        }
        assert!(map.shared.iter().all(|link| link.from < MOST && link.to < MOST));
    }

    #[test]
    fn a_filter_leaves_what_is_connected() {
        let flows = [
            flow("DATA_COLLECTION", "user.name", "HTTP POST /a", 1),
            flow("DATA_STORAGE", "user.name", "people", 1),
            flow("DATA_SHARE", "user.name", "mailer", 1),
            flow("DATA_SHARE", "user.name", "other", 1),
            flow("DATA_COLLECTION", "user.contact.email", "HTTP POST /b", 1),
        ];
        let filter = Filter {
            recipient: Some("mailer".into()),
            ..Filter::default()
        };
        let map = of(&flows, &Config::default(), &filter);
        let names = |nodes: &[Node]| nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&map.sources), ["HTTP POST /a"]);
        assert_eq!(names(&map.tables), ["people"]);
        assert_eq!(names(&map.recipients), ["mailer"]);
    }
}
