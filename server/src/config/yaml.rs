//! A YAML text as the values that etcd's library makes of it.
//!
//! The parser's events are turned into a tree here, because what a plain word means is for the
//! reader to say: etcd's library reads YAML 1.1, where `n` is false and `010` is eight. JSON is
//! read by the same rules, as it is YAML, too.
//!
//! Bounds: a text nests at most [`DEPTH_MAX`] deep, and its aliases repeat at most [`NODES_MAX`]
//! values.

use std::collections::BTreeMap;
use std::str::Chars;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, StrInput};

use super::value::{parse_signed, parse_unsigned};

/// The deepest that values nest; the configuration needs four.
const DEPTH_MAX: usize = 64;
/// The most values of one text; the configuration needs some hundred.
const NODES_MAX: usize = 100_000;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// Nothing: leaves what is there.
    Null,
    /// `true` or `false`, in any of YAML's spellings.
    Switch(bool),
    /// A whole number.
    Integer(i128),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(String),
    /// Values in order.
    List(Vec<Node>),
    /// Values by key.
    Map(BTreeMap<String, Node>),
}

/// Reads the first document of a text.
pub fn parse(text: &str) -> Result<Node, String> {
    let mut reader =
        Reader { parser: Parser::new_from_str(text), anchors: BTreeMap::new(), nodes: 0 };
    loop {
        match reader.next()? {
            Event::StreamStart | Event::DocumentStart(_) => {}
            Event::StreamEnd | Event::DocumentEnd => return Ok(Node::Null),
            event => return reader.node(event, 0),
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Event<'a>, String> {
        match self.parser.next_event() {
            Some(Ok((event, _))) => Ok(event),
            Some(Err(error)) => Err(error_text(&error)),
            None => Ok(Event::StreamEnd),
        }
    }

    fn node(&mut self, event: Event<'a>, depth: usize) -> Result<Node, String> {
        self.nodes += 1;
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            return Err("yaml: exceeded max depth or size".to_owned());
        }
        let (anchor, node) = match event {
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node = node.ok_or("yaml: unknown anchor referenced")?;
                self.nodes += count(&node);
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, tag) => {
                let has_meaning = match &tag {
                    None => style == ScalarStyle::Plain,
                    // `!` alone says that a word is only a word, as `!!str` does.
                    Some(tag) => tag.is_yaml_core_schema() && tag.suffix != "str",
                };
                let node = if has_meaning { resolve(&text) } else { Node::Text(text.into_owned()) };
                (anchor, node)
            }
            Event::SequenceStart(anchor, _) => (anchor, self.list(depth)?),
            Event::MappingStart(anchor, _) => (anchor, self.map(depth)?),
            other => return Err(format!("yaml: unexpected {other:?}")),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Node, String> {
        let mut nodes = Vec::new();
        loop {
            match self.next()? {
                Event::SequenceEnd => return Ok(Node::List(nodes)),
                event => nodes.push(self.node(event, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Node, String> {
        let (mut own, mut merged) = (BTreeMap::new(), BTreeMap::new());
        loop {
            let event = self.next()?;
            if event == Event::MappingEnd {
                // What a mapping says itself wins over what it takes over from another.
                merged.append(&mut own);
                return Ok(Node::Map(merged));
            }
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None)
                if *text == "<<");
            let key = match self.node(event, depth + 1)? {
                Node::Text(text) => text,
                Node::Null => "null".to_owned(),
                Node::Switch(switch) => switch.to_string(),
                Node::Integer(number) => number.to_string(),
                _ => return Err("yaml: invalid map key".to_owned()),
            };
            let event = self.next()?;
            match self.node(event, depth + 1)? {
                Node::Map(other) if is_merge => merged.extend(other),
                _ if is_merge => return Err("yaml: map merge requires map as the value".to_owned()),
                node => {
                    own.insert(key, node);
                }
            }
        }
    }
}

fn count(node: &Node) -> usize {
    match node {
        Node::List(nodes) => nodes.iter().map(count).sum::<usize>() + 1,
        Node::Map(nodes) => nodes.values().map(count).sum::<usize>() + 1,
        _ => 1,
    }
}

fn error_text(error: &ScanError) -> String {
    format!("yaml: line {}: {}", error.marker().line(), error.info())
}

/// What a word without quotes means in YAML 1.1.
fn resolve(text: &str) -> Node {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Node::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Node::Switch(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Node::Switch(false);
        }
        _ => {}
    }
    if text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '.')) {
        let digits = text.replace('_', "");
        if let Ok(number) = parse_signed(&digits) {
            return Node::Integer(number.into());
        }
        if let Ok(number) = parse_unsigned(&digits) {
            return Node::Integer(number.into());
        }
        if is_decimal(&digits)
            && let Ok(number) = digits.parse()
        {
            return Node::Float(number);
        }
    }
    Node::Text(text.to_owned())
}

/// Whether a text is `[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?`. Rust's own parser takes more.
fn is_decimal(text: &str) -> bool {
    fn digits(rest: &mut Chars<'_>) -> usize {
        let before = rest.as_str().len();
        let after = rest.as_str().trim_start_matches(|c: char| c.is_ascii_digit());
        *rest = after.chars();
        before - after.len()
    }
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text).chars();
    let whole = digits(&mut rest);
    let has_point = rest.as_str().starts_with('.');
    if has_point {
        rest.next();
        if digits(&mut rest) == 0 && whole == 0 {
            return false;
        }
    } else if whole == 0 {
        return false;
    }
    match rest.as_str().strip_prefix(['e', 'E']) {
        None => rest.as_str().is_empty(),
        Some(exponent) => {
            let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
            !exponent.is_empty() && exponent.bytes().all(|byte| byte.is_ascii_digit())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Node {
        Node::Text(text.to_owned())
    }

    #[test]
    fn words_mean_what_they_mean_in_yaml_1_1() {
        for (word, node) in [
            ("n", Node::Switch(false)),
            ("On", Node::Switch(true)),
            ("yEs", text("yEs")),
            ("~", Node::Null),
            ("", Node::Null),
            ("010", Node::Integer(8)),
            ("0x1F", Node::Integer(31)),
            ("1_000", Node::Integer(1000)),
            ("-5", Node::Integer(-5)),
            ("18446744073709551615", Node::Integer(i128::from(u64::MAX))),
            ("99999999999999999999", Node::Float(1e20)),
            ("1e2", Node::Float(100.0)),
            ("1.", Node::Float(1.0)),
            (".5", Node::Float(0.5)),
            ("1.2.3", text("1.2.3")),
            (".", text(".")),
            ("1e", text("1e")),
            ("5s", text("5s")),
            ("2020-01-01", text("2020-01-01")),
            ("-inf", text("-inf")),
        ] {
            assert_eq!(resolve(word), node, "{word}");
        }
    }

    #[test]
    fn a_text_becomes_a_tree() {
        let tree = parse(
            "a: &x {b: 'n', c: [1, yes]}\nd: *x\ne: {<<: *x, b: 2}\n\
             a2: !!str 5\nf: [! 5, !!int \"5\"]\n",
        );
        let Ok(Node::Map(map)) = tree else { panic!("{tree:?}") };
        let Node::Map(inner) = &map["a"] else { panic!("{map:?}") };
        assert_eq!(inner["b"], text("n"));
        assert_eq!(inner["c"], Node::List(vec![Node::Integer(1), Node::Switch(true)]));
        assert_eq!(map["d"], map["a"]);
        let Node::Map(merged) = &map["e"] else { panic!("{map:?}") };
        assert_eq!(merged["b"], Node::Integer(2));
        assert_eq!(merged["c"], inner["c"]);
        assert_eq!(map["a2"], text("5"));
        assert_eq!(map["f"], Node::List(vec![text("5"), Node::Integer(5)]));
        // JSON is YAML, tabs and all; of one key twice, the last counts.
        let json = parse("{\n\t\"a\": \"b\",\n\t\"a\": [1,\n\t\t2]\n}\n").unwrap();
        let Node::Map(json) = json else { panic!("{json:?}") };
        assert_eq!(json["a"], Node::List(vec![Node::Integer(1), Node::Integer(2)]));
        assert_eq!(parse(""), Ok(Node::Null));
        assert_eq!(parse("# nothing\n"), Ok(Node::Null));
        assert_eq!(parse("a\n---\nb\n"), Ok(text("a")));
    }

    #[test]
    fn what_is_no_yaml_is_told_by_its_line() {
        for (broken, line) in
            [("a: 1\nb: [1\n", "line "), ("a: \"b\n", "line "), ("a: b: c\n", "line 1")]
        {
            let error = parse(broken).unwrap_err();
            assert!(error.starts_with("yaml: ") && error.contains(line), "{broken:?}: {error}");
        }
        assert!(parse("a: *b\n").unwrap_err().starts_with("yaml: "));
    }

    #[test]
    fn neither_depth_nor_aliases_can_exhaust_the_reader() {
        let deep = "[".repeat(DEPTH_MAX + 2) + &"]".repeat(DEPTH_MAX + 2);
        assert!(parse(&deep).is_err());
        assert!(parse(&("[".repeat(DEPTH_MAX) + &"]".repeat(DEPTH_MAX))).is_ok());
        let mut bomb = String::from("a0: &a0 [x]\n");
        for i in 1..30 {
            let last = format!("*a{}", i - 1);
            bomb += &format!("a{i}: &a{i} [{last}, {last}, {last}, {last}]\n");
        }
        assert_eq!(parse(&bomb), Err("yaml: exceeded max depth or size".to_owned()));
    }
}
