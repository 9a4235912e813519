//! The data map: a picture of the flows, and the same as a table.

use maud::{Markup, html};

use super::parts::{category, link, number, special};
use super::{Here, Pairs};
use crate::answers::map::{self, DataMap, Filter, INTERNAL, Link, Node, OTHERS};
use crate::answers::short;
use crate::api::{Refusal, Reply};
use crate::params::{self, Params};

pub(super) fn show(here: &Here<'_>, pairs: &Pairs<'_>) -> Result<Reply, Refusal> {
    let params = Params::read(pairs, params::MAP)?;
    let (days, filter) = params.map()?;
    let flows = here.api.ask(|reader| reader.flows(&days))?;
    let map = map::of(&flows, here.api.config(), &filter);
    let address = Address { pairs: params.all() };
    let violations: i64 = map.rows.iter().map(map::Row::violations).sum();
    let recipients: std::collections::BTreeSet<_> = map.rows.iter().flat_map(|row| row.recipients.keys()).collect();
    let special_rows = map
        .rows
        .iter()
        .filter(|row| crate::answers::special(&row.category).is_some())
        .count();
    let body = html! {
        div.title {
            div {
                h1 { "Data map" }
                p.lead { "Where personal data comes in, where it is stored, and who it goes to." }
            }
            form.dates method="get" {
                @for (name, value) in &address.pairs {
                    @if *name != "since" && *name != "until" { input type="hidden" name=(name) value=(value); }
                }
                label { span { "From" } input type="date" name="since" value=[date(&params, "since")]; }
                label { span { "Until" } input type="date" name="until" value=[date(&params, "until")]; }
                button type="submit" { "Show" }
            }
        }
        (questions())
        (filters(&address, &filter))
        @if map.rows.is_empty() {
            (nothing(&address))
        } @else {
            ul.facts {
                li { strong { (number(map.rows.len())) } " categories" }
                li { strong { (number(recipients.len())) } @if recipients.len() == 1 { " recipient" } @else { " recipients" } }
                li { strong { (number(special_rows)) } " special" }
                li.bad[violations > 0] { strong { (number(violations)) } @if violations == 1 { " finding" } @else { " findings" } " against the policy" }
            }
            figure.map {
                (picture(&map, &address))
                figcaption {
                    (legend(&map))
                    span { "A line's width grows with the number of events. "
                        "Lines to recipients show what was found in what left. "
                        @if map.has_internal {
                            @if filter.unfolded { a href=(address.without("internal")) { "Fold internal recipients" } }
                            @else { a href=(address.with("internal", "each")) { "Unfold internal recipients" } }
                            ". "
                        }
                        @if map.left_out > 0 { "What is no personal data (" (number(map.left_out)) @if map.left_out == 1 { " category" } @else { " categories" } ") is left out." }
                    }
                }
            }
            (table(&map))
        }
    };
    Ok(here.page("Data map", body))
}

/// The page's own address, to be changed by links.
struct Address<'a> {
    pairs: Vec<(&'a str, &'a str)>,
}

impl Address<'_> {
    fn with(&self, name: &str, value: &str) -> String {
        let kept = self.pairs.iter().copied().filter(|(known, _)| *known != name);
        link("", &kept.chain([(name, value)]).collect::<Vec<_>>())
    }

    fn without(&self, name: &str) -> String {
        let kept = self.pairs.iter().copied().filter(|(known, _)| *known != name);
        link("", &kept.collect::<Vec<_>>())
    }
}

fn date<'a>(params: &Params<'a>, name: &str) -> Option<&'a str> {
    params.get(name)?.get(..10)
}

fn filters(address: &Address<'_>, filter: &Filter) -> Markup {
    let set = [
        ("source", "from", &filter.source),
        ("category", "category", &filter.category),
        ("table", "stored in", &filter.table),
        ("recipient", "shared with", &filter.recipient),
    ];
    html! {
        @if set.iter().any(|(_, _, value)| value.is_some()) {
            ul.filters aria-label="Filters in force" {
                @for (name, words, value) in set {
                    @if let Some(value) = value {
                        li { span { (words) " " strong { (value) } } a href=(address.without(name)) aria-label={ "Remove the filter " (words) " " (value) } { "×" } }
                    }
                }
                li.clear { a href=(link("", &[])) { "Show all" } }
            }
        }
    }
}

fn nothing(address: &Address<'_>) -> Markup {
    html! {
        div.empty {
            @if address.pairs.iter().any(|(_, value)| !value.is_empty()) {
                p { "Nothing was recorded that fits. " a href=(link("", &[])) { "Show all" } }
            } @else {
                p { "Nothing was recorded yet. " a href=(link("view/health", &[])) { "Health" } " says whether the hooks are in force." }
            }
        }
    }
}

/// Where to go from here.
fn questions() -> Markup {
    html! {
        ul.questions aria-label="Questions" {
            li { a href=(link("view/recipients", &[])) { "Who got what?" } span { "Recipients by category: who got income, say" } }
            li { a href=(link("view/person", &[])) { "What about one person?" } span { "What was observed of them, and who was told" } }
            li { a href=(link("view/incident", &[])) { "Who was affected?" } span { "By what one recipient got between two dates" } }
            li { a href=(link("view/health", &[])) { "Was the evidence changed?" } span { "Whether the chain holds, and what is not seen" } }
        }
    }
}

fn legend(map: &DataMap) -> Markup {
    const NAMES: [&str; 9] = [
        "contact",
        "identity",
        "demographic",
        "financial",
        "health",
        "behaviour",
        "location, settings",
        "credentials",
        "other",
    ];
    let groups: std::collections::BTreeSet<usize> = map.rows.iter().map(|row| map::group(&row.category)).collect();
    let violations = map.recipients.iter().any(|node| node.violations > 0);
    html! {
        ul.legend aria-label="Colours" {
            @for group in groups {
                @if let Some(name) = NAMES.get(group) {
                    li { span class={ "dot g" (group) } aria-hidden="true" {} (name) }
                }
            }
            @if map.categories.iter().any(|node| node.special.is_some()) { li { span.mark aria-hidden="true" { "◆" } "special category (GDPR Art. 9, 10)" } }
            @if map.recipients.iter().any(|node| node.undeclared) { li { span.dashed aria-hidden="true" {} "recipient that the configuration does not name" } }
            @if violations { li { span.warn aria-hidden="true" { "▲" } "against the policy" } }
        }
    }
}

const WIDTH: f64 = 1120.0;
/// Left edges and widths of the four columns.
const COLUMNS: [(f64, f64); 4] = [(0.0, 210.0), (296.0, 256.0), (640.0, 150.0), (900.0, 220.0)];
const HEADS: [&str; 4] = ["Comes in by", "Category", "Stored in", "Goes to"];
const TOP: f64 = 40.0;
const GAP: f64 = 10.0;
const LEAST: f64 = 34.0;

/// A node with its place.
struct Placed {
    y: f64,
    height: f64,
    /// Where the next line leaves or arrives, left and right.
    left: f64,
    right: f64,
}

/// Width of a line: an area that the eye can compare, yet never lost nor overwhelming.
fn thickness(events: i64, most: i64) -> f64 {
    let share = (events.max(0) as f64 / most.max(1) as f64).sqrt();
    (14.0 * share).max(1.5)
}

fn place(count: usize, lines: impl Fn(usize) -> f64, mut y: f64) -> Vec<Placed> {
    let mut placed = Vec::with_capacity(count);
    for index in 0..count {
        let height = LEAST.max(lines(index) + 10.0);
        placed.push(Placed {
            y,
            height,
            left: 0.0,
            right: 0.0,
        });
        y += height + GAP;
    }
    placed
}

fn bottom(placed: &[Placed]) -> f64 {
    placed.last().map_or(TOP, |last| last.y + last.height)
}

/// Moves a column down so that its middle is at `middle`.
fn centre(placed: &mut [Placed], height: f64) {
    let shift = ((height - (bottom(placed) - TOP)) / 2.0).max(0.0);
    placed.iter_mut().for_each(|node| node.y += shift);
}

fn picture(map: &DataMap, address: &Address<'_>) -> Markup {
    let all = map.collected.iter().chain(&map.stored).chain(&map.shared);
    let most = all.map(|link| link.events).max().unwrap_or(1);
    let sum = |links: &[Link], is: &dyn Fn(&Link) -> bool| -> f64 {
        links
            .iter()
            .filter(|link| is(link))
            .map(|link| thickness(link.events, most) + 1.0)
            .sum()
    };
    let mut sources = place(map.sources.len(), |n| sum(&map.collected, &|link| link.from == n), TOP);
    let mut categories = place(
        map.categories.len(),
        |n| {
            let left = sum(&map.collected, &|link| link.to == n);
            left.max(sum(&map.stored, &|link| link.from == n) + sum(&map.shared, &|link| link.from == n))
        },
        TOP,
    );
    let mut recipients = place(map.recipients.len(), |n| sum(&map.shared, &|link| link.to == n), TOP);
    let mut tables = place(map.tables.len(), |n| sum(&map.stored, &|link| link.to == n), TOP);
    // What is shared passes below the tables, in a lane for each recipient.
    let lanes_at = bottom(&tables) + 24.0;
    let mut lanes: Vec<Placed> = Vec::new();
    let mut y = lanes_at;
    for n in 0..map.recipients.len() {
        let height = sum(&map.shared, &|link| link.to == n);
        lanes.push(Placed {
            y,
            height,
            left: 0.0,
            right: 0.0,
        });
        y += height + GAP;
    }
    let height = [bottom(&sources), bottom(&categories), bottom(&recipients), y]
        .into_iter()
        .fold(0.0, f64::max)
        - TOP;
    let shift = ((height - (y - TOP)) / 2.0).max(0.0);
    tables.iter_mut().chain(&mut lanes).for_each(|node| node.y += shift);
    for column in [&mut sources, &mut categories, &mut recipients] {
        centre(column, height);
    }
    // Lines begin in the middle of their node.
    let total = |n: usize, links: &[Link], is: &dyn Fn(&Link, usize) -> bool| sum(links, &|link| is(link, n));
    for (n, node) in sources.iter_mut().enumerate() {
        node.right = node.y + (node.height - total(n, &map.collected, &|link, n| link.from == n)) / 2.0;
    }
    for (n, node) in categories.iter_mut().enumerate() {
        node.left = node.y + (node.height - total(n, &map.collected, &|link, n| link.to == n)) / 2.0;
        let out = total(n, &map.stored, &|link, n| link.from == n) + total(n, &map.shared, &|link, n| link.from == n);
        node.right = node.y + (node.height - out) / 2.0;
    }
    for (n, node) in tables.iter_mut().enumerate() {
        node.left = node.y + (node.height - total(n, &map.stored, &|link, n| link.to == n)) / 2.0;
    }
    for (n, node) in recipients.iter_mut().enumerate() {
        node.left = node.y + (node.height - total(n, &map.shared, &|link, n| link.to == n)) / 2.0;
    }
    for lane in &mut lanes {
        lane.left = lane.y;
        lane.right = lane.y;
    }
    let colour = |category: usize| map.categories.get(category).map_or(8, |node| map::group(&node.name));
    let name = |nodes: &[Node], at: usize| nodes.get(at).map_or("", |node| node.name.as_str()).to_owned();

    let mut lines: Vec<Markup> = Vec::new();
    let mut ordered: Vec<&Link> = map.collected.iter().collect();
    ordered.sort_by_key(|link| (link.from, link.to));
    for link in ordered {
        let (Some(from), Some(to)) = (sources.get_mut(link.from), categories.get_mut(link.to)) else {
            continue;
        };
        let width = thickness(link.events, most);
        let path = curve(
            right_of(0),
            leave(&mut from.right, width),
            left_of(1),
            leave(&mut to.left, width),
        );
        let title = format!(
            "{} from {}",
            name(&map.categories, link.to),
            name(&map.sources, link.from)
        );
        lines.push(line(&path, width, colour(link.to), link, &title));
    }
    let mut ordered: Vec<(bool, &Link)> = map.stored.iter().map(|link| (false, link)).collect();
    ordered.extend(map.shared.iter().map(|link| (true, link)));
    ordered.sort_by_key(|(shared, link)| (link.from, *shared, link.to));
    for (is_shared, link) in ordered {
        let Some(from) = categories.get_mut(link.from) else {
            continue;
        };
        let width = thickness(link.events, most);
        let start = leave(&mut from.right, width);
        let category = name(&map.categories, link.from);
        if is_shared {
            let (Some(lane), Some(to)) = (lanes.get_mut(link.to), recipients.get_mut(link.to)) else {
                continue;
            };
            let along = leave(&mut lane.left, width);
            let path = format!(
                "{} H{:.1} {}",
                curve(right_of(1), start, left_of(2), along),
                right_of(2),
                bend(right_of(2), along, left_of(3), leave(&mut to.left, width))
            );
            let title = format!("{category} shared with {}", name(&map.recipients, link.to));
            lines.push(line(&path, width, colour(link.from), link, &title));
        } else if let Some(to) = tables.get_mut(link.to) {
            let path = curve(right_of(1), start, left_of(2), leave(&mut to.left, width));
            let title = format!("{category} stored in {}", name(&map.tables, link.to));
            lines.push(line(&path, width, colour(link.from), link, &title));
        }
    }
    let full = TOP + height + 8.0;
    html! {
        svg viewBox={ "0 0 " (WIDTH) " " (format!("{full:.0}")) } role="group" aria-label="Flows of personal data, from sources over categories and tables to recipients. The table below says the same." {
            @for (head, (x, _)) in HEADS.iter().zip(COLUMNS) {
                text.head x=(x) y="16" { (head) }
            }
            g.lines { @for line in &lines { (line) } }
            (column(0, &map.sources, &sources, "source", address))
            (column(1, &map.categories, &categories, "category", address))
            (column(2, &map.tables, &tables, "table", address))
            (column(3, &map.recipients, &recipients, "recipient", address))
            @if map.tables.is_empty() { text.absent x=(left_of(2)) y=(TOP + 20.0) { "nothing stored" } }
            @if map.recipients.is_empty() { text.absent x=(left_of(3)) y=(TOP + 20.0) { "nothing shared" } }
        }
    }
}

fn left_of(column: usize) -> f64 {
    COLUMNS.get(column).map_or(0.0, |(x, _)| *x)
}

fn right_of(column: usize) -> f64 {
    COLUMNS.get(column).map_or(0.0, |(x, width)| x + width)
}

/// Takes the next place of a line of this width; gives its middle.
fn leave(at: &mut f64, width: f64) -> f64 {
    let middle = *at + width / 2.0;
    *at += width + 1.0;
    middle
}

fn curve(x0: f64, y0: f64, x1: f64, y1: f64) -> String {
    format!("M{x0:.1},{y0:.1} {}", bend(x0, y0, x1, y1))
}

fn bend(x0: f64, y0: f64, x1: f64, y1: f64) -> String {
    let middle = (x0 + x1) / 2.0;
    format!("C{middle:.1},{y0:.1} {middle:.1},{y1:.1} {x1:.1},{y1:.1}")
}

fn line(path: &str, width: f64, colour: usize, link: &Link, title: &str) -> Markup {
    let title = match link.violations {
        0 => format!("{title}: {} events", number(link.events)),
        found => format!(
            "{title}: {} events, {} against the policy",
            number(link.events),
            number(found)
        ),
    };
    html! {
        path class={ "line s" (colour) @if link.violations > 0 { " over" } } d=(path) stroke-width=(format!("{width:.1}")) {
            title { (title) }
        }
    }
}

fn column(at: usize, nodes: &[Node], placed: &[Placed], filter: &str, address: &Address<'_>) -> Markup {
    let (x, width) = COLUMNS.get(at).copied().unwrap_or_default();
    let room = (width / 7.1) as usize;
    html! {
        @for (node, place) in nodes.iter().zip(placed) {
            @let folded = node.name == OTHERS || node.name == INTERNAL;
            @let href = match (folded, node.name == INTERNAL) {
                (_, true) => Some(address.with("internal", "each")),
                (true, _) => None,
                _ => Some(address.with(filter, &node.name)),
            };
            a.node href=[href] {
                title { (node.name) ": " (number(node.events)) " events" @if let Some(why) = node.special { ", " (why) } @if node.violations > 0 { ", " (number(node.violations)) " against the policy" } @if node.undeclared { ", not declared" } }
                rect class={ "box" @if node.violations > 0 { " over" } @if node.undeclared { " undeclared" } } x=(x) y=(format!("{:.1}", place.y)) width=(width) height=(format!("{:.1}", place.height)) rx="7" {}
                @if at == 1 {
                    rect class={ "edge f" (map::group(&node.name)) } x=(x) y=(format!("{:.1}", place.y)) width="5" height=(format!("{:.1}", place.height)) rx="2.5" {}
                }
                text.name x=(x + 14.0) y=(format!("{:.1}", place.y + place.height / 2.0 + 4.5)) {
                    (clipped(&node.name, room.saturating_sub(if node.special.is_some() || node.violations > 0 { 9 } else { 7 })))
                    @if node.special.is_some() { tspan.mark { " ◆" } }
                    @if node.violations > 0 { tspan.warn { " ▲" } }
                }
                text.count x=(x + width - 10.0) y=(format!("{:.1}", place.y + place.height / 2.0 + 4.5)) text-anchor="end" { (number(node.events)) }
            }
        }
    }
}

/// Without its middle: routes begin alike, and hosts end alike.
fn clipped(name: &str, room: usize) -> String {
    let length = name.chars().count();
    if length <= room {
        return name.to_owned();
    }
    let end = room.saturating_sub(1) / 2;
    let begin = room.saturating_sub(1) - end;
    let last = name.chars().skip(length - end);
    name.chars().take(begin).chain(['…']).chain(last).collect()
}

fn table(map: &DataMap) -> Markup {
    html! {
        h2 { "The same as a table" }
        div.scroll tabindex="0" role="region" aria-label="Flows by category" {
            table {
                thead { tr {
                    th scope="col" { "Category" }
                    th scope="col" { "Comes in by" }
                    th scope="col" { "Stored in" }
                    th scope="col" { "Goes to" }
                } }
                tbody {
                    @for row in &map.rows {
                        tr {
                            th scope="row" { a href=(link("view/events", &[("category", &row.category)])) { (category(&row.category)) } }
                            td data-label="Comes in by" { (names(row.sources.iter().map(|(name, events)| (name.as_str(), *events, link("", &[("source", name)]))))) }
                            td data-label="Stored in" { (names(row.tables.iter().map(|(name, events)| (name.as_str(), *events, link("", &[("table", name)]))))) }
                            td data-label="Goes to" {
                                @if row.recipients.is_empty() { span.none { "nobody seen" } }
                                ul.plain { @for (name, sent) in &row.recipients {
                                    li {
                                        a href=(link("view/events", &[("event_type", "DATA_SHARE"), ("recipient", name), ("category", &row.category)])) { (name) }
                                        " " span.count { (number(sent.events)) "×" }
                                        @if sent.violations > 0 {
                                            " " a.violation href=(link("view/events", &[("event_type", "POLICY_VIOLATION"), ("recipient", name)])) { "▲ " (number(sent.violations)) " against the policy" }
                                        }
                                    }
                                } }
                            }
                        }
                    }
                }
            }
        }
        @if map.rows.iter().any(|row| crate::answers::special(&row.category).is_some()) {
            p.hint { (special("special category, GDPR Art. 9")) " marks categories that are protected more than others: " (map.rows.iter().filter(|row| crate::answers::special(&row.category).is_some()).map(|row| short(&row.category)).collect::<Vec<_>>().join(", ")) "." }
        }
    }
}

fn names<'a>(names: impl Iterator<Item = (&'a str, i64, String)>) -> Markup {
    let names: Vec<_> = names.collect();
    html! {
        @if names.is_empty() { span.none { "none seen" } }
        ul.plain { @for (name, events, href) in &names {
            li { a href=(href) { (name) } " " span.count { (number(*events)) "×" } }
        } }
    }
}
