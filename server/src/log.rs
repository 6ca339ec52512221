//! Log lines in etcd's shape: one JSON object a line, so that the tools that wait for its lines or
//! collect them by key work unchanged.
//!
//! [`log_event!`] is the way in. It reads one atomic before it evaluates any field, so a call whose
//! level is off costs a load and a branch. A line is built whole in a buffer of its thread and
//! leaves with one write, so lines of different cores never interleave. A full pipe is waited for
//! once, and briefly (`pipe`); a disk may make a line wait. So nothing on a request's path logs
//! without a bound on how often.
//!
//! Why no framework: `log` carries no typed fields in its stable part, `tracing` needs a subscriber
//! whose JSON nests the fields and drops arrays, and both would still leave the encoder below to
//! write. What is left for them to do is the level check.
//!
//! Invariants:
//! - Whatever a field holds, its line is one line: every control character is escaped.
//! - A line carries `level`, `ts`, `caller` and `msg` in that order, then the fields in the order
//!   of the call. Times are UTC, microseconds, always six digits.
//! - Logging never fails its caller: a sink that cannot be written is skipped.

mod journal;
mod pipe;
mod rotation;

use std::cell::RefCell;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use journal::Journal;
use pipe::Pipe;
use rotation::RotatingFile;
pub use rotation::Rotation;

/// How much a line matters. The order is etcd's: `Debug` least, `Fatal` most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// For whoever looks for a fault.
    Debug,
    /// What a healthy server tells of its life.
    Info,
    /// Something an operator should look at.
    Warn,
    /// A failure that the server survives.
    Error,
    /// A bug of ours, just before the process ends.
    Panic,
    /// A refusal of the world that the process does not survive.
    Fatal,
}

impl Level {
    /// The level that a `--log-level` value names; etcd takes each in lower or in upper case, and
    /// nothing for `info`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "debug" | "DEBUG" => Self::Debug,
            "info" | "INFO" | "" => Self::Info,
            "warn" | "WARN" | "warning" | "WARNING" => Self::Warn,
            "error" | "ERROR" => Self::Error,
            // etcd knows two panics; the first ends only development builds.
            "panic" | "PANIC" | "dpanic" | "DPANIC" => Self::Panic,
            "fatal" | "FATAL" => Self::Fatal,
            _ => return None,
        })
    }

    /// The word that stands in the line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Panic => "panic",
            Self::Fatal => "fatal",
        }
    }
}

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// Columns parted by tabs, the fields as JSON at the end.
    Console,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file, created when missing and only ever appended to.
    File(PathBuf),
    /// The journal of systemd.
    Journal,
}

/// What `--log-level`, `--log-format` and `--log-outputs` ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Lines below this level are dropped.
    pub level: Level,
    /// The shape of every line.
    pub format: Format,
    /// Every output gets every line.
    pub outputs: Vec<Output>,
    /// When the file among them is full; `None` lets it grow.
    pub rotation: Option<Rotation>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: Level::Info,
            format: Format::Json,
            outputs: vec![Output::Stderr],
            rotation: None,
        }
    }
}

/// The value of a field.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// A string, escaped when it is written.
    Text(&'a str),
    /// A list of strings.
    Texts(&'a [String]),
    /// A number.
    Unsigned(u64),
    /// A number with a sign.
    Signed(i64),
    /// `true` or `false`.
    Switch(bool),
    /// A length of time, written as Go prints it (`1m30s`, `1.5ms`).
    Duration(Duration),
    /// A member, cluster or lease id: a string of hexadecimal digits, without leading zeros.
    Id(u64),
    /// Anything that can print itself; a string in the line. Errors, mostly.
    Display(&'a dyn fmt::Display),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [String]> for Value<'a> {
    fn from(texts: &'a [String]) -> Self {
        Self::Texts(texts)
    }
}

impl<'a> From<&'a Vec<String>> for Value<'a> {
    fn from(texts: &'a Vec<String>) -> Self {
        Self::Texts(texts)
    }
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Unsigned(number)
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Signed(number)
    }
}

impl From<bool> for Value<'_> {
    fn from(switch: bool) -> Self {
        Self::Switch(switch)
    }
}

impl From<Duration> for Value<'_> {
    fn from(duration: Duration) -> Self {
        Self::Duration(duration)
    }
}

impl<'a> From<&'a dyn fmt::Display> for Value<'a> {
    fn from(value: &'a dyn fmt::Display) -> Self {
        Self::Display(value)
    }
}

/// One key and its value.
pub type Field<'a> = (&'static str, Value<'a>);

/// Writes a line when its level is on: `log_event!(Info, "kvstore restored", "current-rev" => 1)`.
///
/// The fields are not evaluated when the level is off.
#[macro_export]
macro_rules! log_event {
    ($level:ident, $message:expr $(, $key:literal => $value:expr)* $(,)?) => {
        if $crate::log::enabled($crate::log::Level::$level) {
            $crate::log::write(
                $crate::log::Level::$level,
                $message,
                &[$(($key, $crate::log::Value::from($value))),*],
            );
        }
    };
}

struct Sink {
    format: Format,
    targets: Vec<Target>,
}

enum Target {
    Stderr,
    Stdout,
    /// Either of them, where it is a pipe. Taking turns keeps lines whole.
    Pipe(Mutex<Pipe>),
    File(File),
    Journal(Journal),
    /// Taking turns is needed where a line may be the one for which the file changes.
    Rotating(Mutex<RotatingFile>),
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
static SINK: OnceLock<Sink> = OnceLock::new();

thread_local! {
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Why the outputs could not be opened, in etcd's words.
#[derive(Debug)]
pub struct SinkFailure {
    path: PathBuf,
    cause: io::Error,
    is_journal: bool,
}

impl fmt::Display for SinkFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        let cause = match self.cause.kind() {
            // Go's texts for the three that operators meet: theirs are matched on, Rust's are not.
            io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            io::ErrorKind::IsADirectory => "is a directory".to_owned(),
            _ => self.cause.to_string(),
        };
        if self.is_journal {
            return write!(f, "can't find journal (dial unixgram {path}: connect: {cause})");
        }
        write!(f, "open sink \"{path}\": open {path}: {cause}")
    }
}

impl std::error::Error for SinkFailure {}

/// Opens the outputs; lines before this go to standard error as JSON from `info` up.
///
/// The first call decides: a process has one log.
pub fn install(config: &LogConfig) -> Result<(), SinkFailure> {
    let mut targets = Vec::with_capacity(config.outputs.len());
    for output in &config.outputs {
        targets.push(match output {
            Output::Stderr => pipe_of(2).unwrap_or(Target::Stderr),
            Output::Stdout => pipe_of(1).unwrap_or(Target::Stdout),
            Output::File(path) => open_file(path, config.rotation)
                .map_err(|cause| SinkFailure { path: path.clone(), cause, is_journal: false })?,
            Output::Journal => {
                let path = PathBuf::from(journal::SOCKET);
                let opened = Journal::open(&path);
                let journal =
                    opened.map_err(|cause| SinkFailure { path, cause, is_journal: true })?;
                Target::Journal(journal)
            }
        });
    }
    if SINK.set(Sink { format: config.format, targets }).is_ok() {
        LEVEL.store(config.level as u8, Ordering::Relaxed);
    }
    Ok(())
}

fn pipe_of(descriptor: u32) -> Option<Target> {
    Pipe::open(descriptor).map(|pipe| Target::Pipe(Mutex::new(pipe)))
}

fn open_file(path: &Path, rotation: Option<Rotation>) -> io::Result<Target> {
    match rotation {
        None => OpenOptions::new().create(true).append(true).open(path).map(Target::File),
        Some(rotation) => {
            RotatingFile::open(path, rotation).map(|file| Target::Rotating(Mutex::new(file)))
        }
    }
}

/// Whether a line of this level would be written.
#[inline]
pub fn enabled(level: Level) -> bool {
    // Relaxed: a line more or less around the one change at start harms nobody.
    level as u8 >= LEVEL.load(Ordering::Relaxed)
}

/// Writes a line; [`log_event!`] is the convenient way here.
#[track_caller]
pub fn write(level: Level, message: &str, fields: &[Field<'_>]) {
    let stamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    write_named(stamp, level, None, Location::caller(), message, fields);
}

/// Writes a line of a named part that brings its own messages, as etcd's raft does.
#[track_caller]
pub fn write_from(logger: &str, level: Level, message: &str, fields: &[Field<'_>]) {
    if enabled(level) {
        let stamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        write_named(stamp, level, Some(logger), Location::caller(), message, fields);
    }
}

fn write_named(
    stamp: Duration,
    level: Level,
    logger: Option<&str>,
    caller: &Location<'_>,
    message: &str,
    fields: &[Field<'_>],
) {
    LINE.with(|line| {
        // A field whose `Display` logs would come back here; its line is dropped, not the process.
        let Ok(mut line) = line.try_borrow_mut() else { return };
        line.clear();
        let head = Head { stamp, level, logger, caller_file: caller.file(), line: caller.line() };
        match SINK.get() {
            None => {
                encode_json(&mut line, &head, message, fields);
                // Standard error may be closed; there is nowhere left to say so.
                let _ = io::stderr().lock().write_all(&line);
            }
            Some(sink) => {
                let encode = match sink.format {
                    Format::Json => encode_json,
                    Format::Console => encode_console,
                };
                encode(&mut line, &head, message, fields);
                for target in &sink.targets {
                    // As above: a full disk must not stop a server for the sake of its log.
                    let _ = match target {
                        Target::Stderr => io::stderr().lock().write_all(&line),
                        Target::Stdout => io::stdout().lock().write_all(&line),
                        Target::Pipe(pipe) => {
                            let mut pipe = pipe.lock().unwrap_or_else(PoisonError::into_inner);
                            pipe.write(&line).and_then(|omitted| {
                                if omitted == 0 {
                                    return Ok(());
                                }
                                let mut line = Vec::new();
                                let message = "lines were left out while nobody read them";
                                let head = Head { level: Level::Warn, logger: None, ..head };
                                encode(&mut line, &head, message, &[("count", omitted.into())]);
                                pipe.write(&line).map(drop)
                            })
                        }
                        Target::File(file) => (&mut &*file).write_all(&line),
                        Target::Journal(journal) => journal.write(head.level, &line),
                        // Whoever panicked here left a file that can still be written.
                        Target::Rotating(file) => file
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .write(&line, UNIX_EPOCH + stamp),
                    };
                }
            }
        }
    });
}

/// What stands before the message.
struct Head<'a> {
    stamp: Duration,
    level: Level,
    logger: Option<&'a str>,
    caller_file: &'a str,
    line: u32,
}

fn encode_json(out: &mut Vec<u8>, head: &Head<'_>, message: &str, fields: &[Field<'_>]) {
    push(out, format_args!("{{\"level\":\"{}\",\"ts\":\"", head.level.as_str()));
    push_stamp(out, head.stamp);
    out.push(b'"');
    if let Some(logger) = head.logger {
        out.extend_from_slice(b",\"logger\":");
        push_json_text(out, logger);
    }
    out.extend_from_slice(b",\"caller\":\"");
    push_caller(out, head);
    out.extend_from_slice(b"\",\"msg\":");
    push_json_text(out, message);
    for (key, value) in fields {
        out.push(b',');
        push_json_text(out, key);
        out.push(b':');
        push_json_value(out, value, b",");
    }
    out.extend_from_slice(b"}\n");
}

fn encode_console(out: &mut Vec<u8>, head: &Head<'_>, message: &str, fields: &[Field<'_>]) {
    push_stamp(out, head.stamp);
    push(out, format_args!("\t{}\t", head.level.as_str()));
    if let Some(logger) = head.logger {
        push(out, format_args!("{}\t", Escaped(logger)));
    }
    push_caller(out, head);
    push(out, format_args!("\t{}", Escaped(message)));
    for (index, (key, value)) in fields.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"\t{" } else { b", " });
        push_json_text(out, key);
        out.extend_from_slice(b": ");
        push_json_value(out, value, b", ");
    }
    out.extend_from_slice(if fields.is_empty() { b"\n" } else { b"}\n" });
}

fn push_json_value(out: &mut Vec<u8>, value: &Value<'_>, separator: &[u8]) {
    match value {
        Value::Text(text) => push_json_text(out, text),
        Value::Texts(texts) => {
            out.push(b'[');
            for (index, text) in texts.iter().enumerate() {
                if index > 0 {
                    out.extend_from_slice(separator);
                }
                push_json_text(out, text);
            }
            out.push(b']');
        }
        Value::Unsigned(number) => push(out, format_args!("{number}")),
        Value::Signed(number) => push(out, format_args!("{number}")),
        Value::Switch(switch) => push(out, format_args!("{switch}")),
        Value::Duration(duration) => push(out, format_args!("\"{}\"", GoDuration(*duration))),
        Value::Id(id) => push(out, format_args!("\"{id:x}\"")),
        Value::Display(value) => {
            out.push(b'"');
            push(out, format_args!("{}", DisplayEscaped(*value)));
            out.push(b'"');
        }
    }
}

fn push_json_text(out: &mut Vec<u8>, text: &str) {
    push(out, format_args!("\"{}\"", Escaped(text)));
}

/// `directory/file.rs:line`, as etcd names its callers.
fn push_caller(out: &mut Vec<u8>, head: &Head<'_>) {
    let file = head.caller_file;
    let start = match file.rmatch_indices('/').nth(1) {
        Some((slash, _)) => slash + 1,
        None => 0,
    };
    push(out, format_args!("{}:{}", Escaped(&file[start..]), head.line));
}

fn push(out: &mut Vec<u8>, arguments: fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("a Vec takes every write");
}

/// A string with all that would break a JSON string or a line replaced by its escape.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(f, self.0)
    }
}

/// Escapes what a value prints, piece by piece, so that no copy of it is made.
struct DisplayEscaped<'a>(&'a dyn fmt::Display);

impl fmt::Display for DisplayEscaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Adapter<'f, 'b>(&'f mut fmt::Formatter<'b>);
        impl fmt::Write for Adapter<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                escape(self.0, text)
            }
        }
        fmt::Write::write_fmt(&mut Adapter(f), format_args!("{}", self.0))
    }
}

fn escape(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let mut clean_start = 0;
    for (index, byte) in text.bytes().enumerate() {
        // Bytes of a multi-byte character are 0x80 and above and never match.
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        f.write_str(&text[clean_start..index])?;
        match byte {
            b'"' => f.write_str("\\\"")?,
            b'\\' => f.write_str("\\\\")?,
            b'\n' => f.write_str("\\n")?,
            b'\r' => f.write_str("\\r")?,
            b'\t' => f.write_str("\\t")?,
            _ => write!(f, "\\u{byte:04x}")?,
        }
        clean_start = index + 1;
    }
    f.write_str(&text[clean_start..])
}

/// A length of time as Go prints it: `0s`, `100ms`, `1.5s`, `2h0m0s`.
pub struct GoDuration(pub Duration);

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        for (below, unit, suffix) in
            [(1_000, 1, "ns"), (1_000_000, 1_000, "µs"), (1_000_000_000, 1_000_000, "ms")]
        {
            if nanos < below {
                return write_decimal(f, nanos, unit, suffix);
            }
        }
        let seconds = nanos / 1_000_000_000;
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write_decimal(f, nanos % 60_000_000_000, 1_000_000_000, "s")
    }
}

fn write_decimal(f: &mut fmt::Formatter<'_>, value: u128, unit: u128, suffix: &str) -> fmt::Result {
    let (whole, rest) = (value / unit, value % unit);
    if rest == 0 {
        return write!(f, "{whole}{suffix}");
    }
    let digits = unit.ilog10() as usize;
    let fraction = format!("{rest:0digits$}");
    write!(f, "{whole}.{}{suffix}", fraction.trim_end_matches('0'))
}

/// RFC 3339 in UTC with six digits of a second. `ts` is the time since 1970.
fn push_stamp(out: &mut Vec<u8>, stamp: Duration) {
    let (days, second) = (stamp.as_secs() / 86_400, stamp.as_secs() % 86_400);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let micros = stamp.subsec_micros();
    push(
        out,
        format_args!(
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
        ),
    );
}

/// The Gregorian date of a day counted from 1970-01-01.
///
/// Years are counted from March, so that the leap day is a year's last, in eras of 400 years, which
/// all have the same number of days.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    const ERA_DAYS: u64 = 146_097;
    // 0000-03-01 lies this many days before 1970-01-01.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / ERA_DAYS, shifted % ERA_DAYS);
    let leap_days = day_of_era / 1_460 + day_of_era / (ERA_DAYS - 1);
    let year_of_era = (day_of_era + day_of_era / 36_524 - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, five months have 153 days.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(level: Level, logger: Option<&str>) -> Head<'_> {
        // 2026-11-21T08:05:04.454885Z
        let stamp = Duration::from_micros(1_795_248_304_454_885);
        Head { stamp, level, logger, caller_file: "server/src/config/mod.rs", line: 956 }
    }

    fn json(fields: &[Field<'_>]) -> String {
        let mut out = Vec::new();
        encode_json(&mut out, &head(Level::Info, None), "now serving", fields);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_json_line_is_etcds_byte_for_byte() {
        let urls = vec!["http://127.0.0.1:2380".to_owned(), "http://[::1]:2380".to_owned()];
        assert_eq!(
            json(&[
                ("local-member-id", Value::Id(0x151a_a8a8_d37c_3e01)),
                ("listen-peer-urls", Value::from(&urls)),
                ("current-rev", Value::from(1_u64)),
                ("index", Value::from(-1_i64)),
                ("force-new-cluster", Value::from(false)),
                ("heartbeat-interval", Value::from(Duration::from_millis(100))),
            ]),
            "{\"level\":\"info\",\"ts\":\"2026-11-21T08:05:04.454885Z\",\
             \"caller\":\"config/mod.rs:956\",\"msg\":\"now serving\",\
             \"local-member-id\":\"151aa8a8d37c3e01\",\
             \"listen-peer-urls\":[\"http://127.0.0.1:2380\",\"http://[::1]:2380\"],\
             \"current-rev\":1,\"index\":-1,\"force-new-cluster\":false,\
             \"heartbeat-interval\":\"100ms\"}\n"
        );
    }

    #[test]
    fn a_console_line_has_tabs_and_spaced_fields() {
        let mut out = Vec::new();
        let args = vec!["ringd".to_owned(), "--name".to_owned()];
        encode_console(
            &mut out,
            &head(Level::Warn, Some("raft")),
            "Running: ",
            &[("args", Value::from(&args))],
        );
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "2026-11-21T08:05:04.454885Z\twarn\traft\tconfig/mod.rs:956\tRunning: \t\
             {\"args\": [\"ringd\", \"--name\"]}\n"
        );
        let mut bare = Vec::new();
        encode_console(&mut bare, &head(Level::Info, None), "ready", &[]);
        assert!(bare.ends_with(b"\tready\n"));
    }

    #[test]
    fn no_value_breaks_its_line() {
        let hostile = "a\"b\\c\nd\re\tf\u{0}g\u{1f}h\u{7f}é\u{2028}";
        let expected = "a\\\"b\\\\c\\nd\\re\\tf\\u0000g\\u001fh\u{7f}é\u{2028}";
        for value in [Value::Text(hostile), Value::Display(&hostile)] {
            let line = json(&[("error", value)]);
            assert!(line.contains(&format!("\"error\":\"{expected}\"")), "{line}");
            assert_eq!(line.matches('\n').count(), 1, "{line}");
        }
    }

    #[test]
    fn dates_are_right_at_the_edges_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
            (4_107_455_999, "2100-02-27T23:59:59.000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
        ] {
            let mut out = Vec::new();
            push_stamp(&mut out, Duration::from_secs(seconds));
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{seconds}");
        }
    }

    #[test]
    fn durations_print_as_go_prints_them() {
        for (nanos, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (1_170_071, "1.170071ms"),
            (100_000_000, "100ms"),
            (900_000_000, "900ms"),
            (1_000_000_000, "1s"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (7_200_000_000_000, "2h0m0s"),
            (3_600_000_000_001, "1h0m0.000000001s"),
        ] {
            assert_eq!(GoDuration(Duration::from_nanos(nanos)).to_string(), expected);
        }
    }

    #[test]
    fn levels_order_and_parse_as_zaps() {
        assert!(Level::Debug < Level::Info && Level::Info < Level::Fatal);
        assert_eq!(Level::parse("WARN"), Some(Level::Warn));
        assert_eq!(Level::parse(""), Some(Level::Info));
        assert_eq!(Level::parse("Warn"), None);
        assert_eq!(Level::parse("foo"), None);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let output = Output::File(PathBuf::from("/nonexistent/x"));
        let failure = install(&LogConfig { outputs: vec![output], ..LogConfig::default() });
        assert_eq!(
            failure.unwrap_err().to_string(),
            "open sink \"/nonexistent/x\": open /nonexistent/x: no such file or directory"
        );
    }

    #[test]
    fn fields_are_not_evaluated_when_the_level_is_off() {
        let evaluated = std::cell::Cell::new(false);
        let field = || {
            evaluated.set(true);
            1_u64
        };
        log_event!(Debug, "never seen", "current-rev" => field());
        assert!(!evaluated.get());
    }
}
