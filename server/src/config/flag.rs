//! What a flag is. One definition a flag: parser, environment, defaults, help and refusals all
//! derive from it.

use super::features::FeatureGates;
use super::fields::Config;
use super::url::{Url, parse_urls, texts};
use super::value::{
    ValueError, parse_duration, parse_signed, parse_switch, parse_unsigned, parse_unsigned_32,
};

/// The heading of the help text under which a flag stands. The order is that of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// The process itself.
    General,
    /// One member: its directories, clocks, listeners and limits.
    Member,
    /// How members find each other.
    Clustering,
    /// Certificates, and who may call.
    Security,
    /// Users and tokens.
    Auth,
    /// Metrics and profiles.
    Monitoring,
    /// What is logged, and where.
    Logging,
    /// Spans for a collector.
    Tracing,
    /// The rest.
    Features,
    /// What can lose data.
    Unsafe,
    /// What etcd does not have.
    Ringd,
}

impl Section {
    /// All of them, in the order of the help text.
    pub const ALL: [Self; 11] = [
        Self::General,
        Self::Member,
        Self::Clustering,
        Self::Security,
        Self::Auth,
        Self::Monitoring,
        Self::Logging,
        Self::Tracing,
        Self::Features,
        Self::Unsafe,
        Self::Ringd,
    ];

    /// The heading.
    pub const fn title(self) -> &'static str {
        match self {
            Self::General => "General",
            Self::Member => "Member",
            Self::Clustering => "Clustering",
            Self::Security => "Security",
            Self::Auth => "Auth",
            Self::Monitoring => "Profiling and Monitoring",
            Self::Logging => "Logging",
            Self::Tracing => "Distributed tracing",
            Self::Features => "Features",
            Self::Unsafe => "Unsafe feature",
            Self::Ringd => "Of ringd only",
        }
    }
}

/// How the text of a flag is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// On or off; the value may be left out.
    Switch,
    /// A number.
    Unsigned,
    /// A number of at most 32 bits.
    Unsigned32,
    /// A number that may be negative.
    Signed,
    /// A length of time with its unit.
    Duration,
    /// A list of addresses; an empty text leaves the default.
    Urls,
    /// A switch to the parser, but with any text: what etcd does with the flags it ignores, so
    /// that `-v 3` leaves a stray `3` behind there and here.
    Anything,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// Some of a few words, parted by commas.
    Choices(&'static [&'static str]),
    /// Texts parted by commas, in the order given; a list in a file.
    List,
    /// As [`Kind::List`], but each once and sorted.
    Set,
    /// As [`Kind::Set`], but one text in a file, too.
    SetInline,
    /// A list of addresses, or `*`.
    Origins,
    /// Positions of feature gates.
    Gates,
}

/// A text once it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of [`Kind::Text`] and [`Kind::Choice`].
    Text(String),
    /// Of the kinds of several texts.
    Texts(Vec<String>),
    /// Of [`Kind::Switch`].
    Switch(bool),
    /// Of [`Kind::Unsigned`] and [`Kind::Unsigned32`].
    Unsigned(u64),
    /// Of [`Kind::Signed`], and nanoseconds of [`Kind::Duration`].
    Signed(i64),
    /// Of [`Kind::Urls`].
    Urls(Vec<Url>),
    /// An empty list of addresses: the flag is set, its value stays as it was.
    Unchanged,
}

impl Kind {
    /// Whether the next argument is never taken as the value.
    pub const fn is_switch(self) -> bool {
        matches!(self, Self::Switch | Self::Anything)
    }

    /// Reads a text; the error is Go's.
    pub fn parse(self, text: &str) -> Result<Value, ValueError> {
        Ok(match self {
            Self::Text | Self::Anything => Value::Text(text.to_owned()),
            Self::Switch => Value::Switch(parse_switch(text)?),
            Self::Unsigned => Value::Unsigned(parse_unsigned(text)?),
            Self::Unsigned32 => Value::Unsigned(u64::from(parse_unsigned_32(text)?)),
            Self::Signed => Value::Signed(parse_signed(text)?),
            Self::Duration => Value::Signed(parse_duration(text)?),
            Self::Urls if text.is_empty() => Value::Unchanged,
            Self::Urls => Value::Urls(parse_urls(text)?),
            Self::Choice(words) if words.contains(&text) => Value::Text(text.to_owned()),
            Self::Choice(_) => return Err(ValueError::Text("invalid value".to_owned())),
            Self::Choices(words) => Value::Texts(choices(text, words)?),
            Self::List => Value::Texts(text.split(',').map(str::to_owned).collect()),
            Self::Set | Self::SetInline => Value::Texts(unique(text)),
            Self::Gates => {
                FeatureGates::default().set(text)?;
                Value::Text(text.to_owned())
            }
            Self::Origins if text == "*" => Value::Texts(vec!["*".to_owned()]),
            Self::Origins => Value::Texts(texts(&parse_urls(text)?)),
        })
    }
}

/// Puts a value where it belongs. Fails when the value is of the right kind but has no meaning.
pub type Update = fn(&mut Config, Value) -> Result<(), ValueError>;

/// What ringd does with a flag.
#[derive(Clone, Copy, Debug)]
pub enum Stand {
    /// It does what it says.
    Served,
    /// As [`Stand::Served`], but for tests of this project: the help text does not show it.
    Hidden,
    /// Read and checked as by etcd, and then refused, because the feature is not there yet. The
    /// default asks for nothing and is taken, and so are the values listed, which name what ringd
    /// does anyway. Whoever brings the feature turns this into [`Stand::Served`].
    Pending(&'static [&'static str]),
    /// Taken without effect, because here is nothing that it could steer; a line at start says why.
    Moot(&'static str),
    /// Refused when it asks for anything, for this reason.
    Refused(&'static str),
    /// etcd itself takes it without effect, with this warning.
    Ignored(&'static str),
    /// Read before all others, by the parser itself.
    Special,
}

/// Where a flag stands in a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKey {
    /// At the top, under its own name.
    Name,
    /// Deeper: the keys that lead there.
    Path(&'static [&'static str]),
    /// Nowhere: etcd's file has no key for it.
    Nowhere,
}

/// One flag of the command line, of the environment and of the configuration file.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// The name without its dashes.
    pub name: &'static str,
    /// The heading it stands under.
    pub section: Section,
    /// How its value is read.
    pub kind: Kind,
    /// The value when nobody sets it; read by the same parser. Empty where a default is derived.
    pub default: &'static str,
    /// What it is for.
    pub help: &'static str,
    /// What is done with it.
    pub stand: Stand,
    /// Where its value goes.
    pub update: Update,
    /// Where the file has it.
    pub file_key: FileKey,
    /// What etcd says of who still sets it; empty for most.
    pub deprecation: &'static str,
}

impl Flag {
    /// A flag whose stand follows: one of the constructors below.
    pub const fn new(
        section: Section,
        name: &'static str,
        kind: Kind,
        default: &'static str,
        help: &'static str,
    ) -> Self {
        Self {
            name,
            section,
            kind,
            default,
            help,
            stand: Stand::Special,
            update: |_, _| Ok(()),
            file_key: FileKey::Name,
            deprecation: "",
        }
    }

    /// See [`Stand::Served`].
    pub const fn served(self, update: Update) -> Self {
        Self { stand: Stand::Served, update, ..self }
    }

    /// See [`Stand::Hidden`].
    pub const fn hidden(self, update: Update) -> Self {
        Self { stand: Stand::Hidden, update, ..self }
    }

    /// See [`Stand::Pending`].
    pub const fn pending(self, update: Update) -> Self {
        Self { stand: Stand::Pending(&[]), update, ..self }
    }

    /// See [`Stand::Moot`].
    pub const fn moot(self, why: &'static str) -> Self {
        Self { stand: Stand::Moot(why), ..self }
    }

    /// See [`Stand::Refused`].
    pub const fn refused(self, why: &'static str) -> Self {
        Self { stand: Stand::Refused(why), ..self }
    }

    /// See [`Stand::Ignored`].
    pub const fn ignored(self, warning: &'static str) -> Self {
        Self { stand: Stand::Ignored(warning), ..self }
    }

    /// A flag without effect whose value etcd checks all the same.
    pub const fn checked(self, update: Update) -> Self {
        Self { update, ..self }
    }

    /// See [`FileKey::Path`].
    pub const fn in_file(self, path: &'static [&'static str]) -> Self {
        Self { file_key: FileKey::Path(path), ..self }
    }

    /// See [`FileKey::Nowhere`].
    pub const fn not_in_file(self) -> Self {
        Self { file_key: FileKey::Nowhere, ..self }
    }

    /// See [`Flag::deprecation`].
    pub const fn deprecated(self, warning: &'static str) -> Self {
        Self { deprecation: warning, ..self }
    }

    /// The environment variable that sets it, by etcd's rule.
    pub fn variable(&self) -> String {
        format!("ETCD_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    /// Whether a value is the default, or another name for what is done anyway.
    pub fn asks_for_nothing(&self, value: &Value, also: &[&str]) -> bool {
        let same = |text: &str| match self.kind.parse(text) {
            Ok(accepted) => accepted == *value,
            // Some defaults are empty where the kind has no empty value: nothing equals them.
            Err(_) => false,
        };
        same(self.default) || also.iter().copied().any(same)
    }
}

fn choices(text: &str, words: &[&str]) -> Result<Vec<String>, ValueError> {
    let mut chosen = Vec::new();
    for word in text.split(',') {
        if !words.contains(&word) {
            return Err(ValueError::Text(format!("invalid value {word:?}")));
        }
        chosen.push(word.to_owned());
    }
    chosen.sort_unstable();
    Ok(chosen)
}

fn unique(text: &str) -> Vec<String> {
    let mut texts: Vec<String> = text.split(',').map(str::to_owned).collect();
    texts.sort_unstable();
    texts.dedup();
    texts
}

impl Value {
    /// The text. Only called by a flag on the value its own kind made, as are the rest.
    pub fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            other => unreachable!("a text flag got {other:?}"),
        }
    }

    /// The text as a path.
    pub fn into_path(self) -> std::path::PathBuf {
        self.into_text().into()
    }

    /// The texts.
    pub fn into_texts(self) -> Vec<String> {
        match self {
            Self::Texts(texts) => texts,
            other => unreachable!("a list flag got {other:?}"),
        }
    }

    /// The switch.
    pub fn into_switch(self) -> bool {
        match self {
            Self::Switch(switch) => switch,
            other => unreachable!("a switch got {other:?}"),
        }
    }

    /// The number.
    pub fn into_unsigned(self) -> u64 {
        match self {
            Self::Unsigned(number) => number,
            other => unreachable!("a number flag got {other:?}"),
        }
    }

    /// The number, whatever its sign.
    pub fn into_signed(self) -> i64 {
        match self {
            Self::Signed(number) => number,
            other => unreachable!("a number flag got {other:?}"),
        }
    }

    /// The length of time. etcd tests its durations with `> 0`, so a negative one is a zero.
    pub fn into_duration(self) -> std::time::Duration {
        match self {
            Self::Signed(nanos) => {
                std::time::Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
            }
            other => unreachable!("a duration flag got {other:?}"),
        }
    }

    /// Replaces the list, unless the text was empty.
    pub fn store_urls(self, urls: &mut Vec<Url>) {
        match self {
            Self::Urls(new) => *urls = new,
            Self::Unchanged => {}
            other => unreachable!("a list of addresses got {other:?}"),
        }
    }
}
