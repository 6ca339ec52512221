//! Conversations with a connection, written down and replayed.
//!
//! ```text
//! == A title that says what must happen (RFC section)
//! > what the client sends
//! < what the connection sends
//! * what the owner is told
//! ! what the owner commands
//! @ 5s                        what the clock says
//! ```
//!
//! Lines with `>`, `!` and `@` are the script, the others its result. `> 100x ping ...` sends a
//! line a hundred times; in it `$` is 1, 3, 5, ... and `; ` stands between two frames. Equal lines
//! of result are counted. Every case runs three times, with the bytes of a line in one read, in
//! reads of one byte, and in reads of odd sizes; the result must be the same, because the network
//! may cut anywhere.
//!
//! With `TRANSCRIPTS=write` in the environment the results are written instead of compared: for
//! new cases, and to be read before they are committed.

pub mod wire;

use std::path::Path;
use std::time::Duration;

/// A longer result shows its first two and last four lines.
const RESULT_LINES_MAX: usize = 40;

/// What a transcript talks to.
pub trait Subject {
    /// A connection before its first byte, at time zero.
    fn new() -> Self;
    /// Reads bytes; returns what the owner is told.
    fn read(&mut self, bytes: &[u8], now: Duration) -> Vec<String>;
    /// Obeys the owner; returns what the owner is told.
    fn command(&mut self, words: &[Vec<u8>], now: Duration) -> Vec<String>;
    /// Looks at the clock.
    fn tick(&mut self, now: Duration);
    /// Everything for the socket.
    fn written(&mut self) -> Vec<u8>;
}

/// How the bytes of a line arrive.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Whole,
    Bytes,
    Odd,
}

/// Runs all files of a directory beside this crate's tests.
pub fn run<S: Subject>(directory: &str) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(directory);
    let mut paths: Vec<_> = std::fs::read_dir(&directory)
        .expect("the directory of transcripts is there")
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no transcripts in {}", directory.display());
    let write = std::env::var("TRANSCRIPTS").is_ok_and(|mode| mode == "write");
    let mut failed = Vec::new();
    for path in paths {
        let expected = std::fs::read_to_string(&path).expect("a transcript can be read");
        let actual = replay_file::<S>(&expected, Cut::Whole);
        if write {
            std::fs::write(&path, &actual).expect("a transcript can be written");
            continue;
        }
        for (cut, actual) in [
            (Cut::Whole, actual),
            (Cut::Bytes, replay_file::<S>(&expected, Cut::Bytes)),
            (Cut::Odd, replay_file::<S>(&expected, Cut::Odd)),
        ] {
            if actual != expected {
                print_difference(&path, cut, &expected, &actual);
                failed.push(path.clone());
            }
        }
    }
    assert!(failed.is_empty(), "transcripts differ: {failed:?}");
}

fn print_difference(path: &Path, cut: Cut, expected: &str, actual: &str) {
    println!("{} with reads cut as {cut:?}:", path.display());
    let mut title = "";
    let (mut left, mut right) = (expected.lines(), actual.lines());
    let (mut l, mut r) = (left.next(), right.next());
    let mut shown = 0;
    while (l.is_some() || r.is_some()) && shown < 40 {
        if l == r {
            if l.is_some_and(|line| line.starts_with("==")) {
                title = l.unwrap_or_default();
            }
            (l, r) = (left.next(), right.next());
            continue;
        }
        if !title.is_empty() {
            println!("  {title}");
            title = "";
        }
        // Lines of script are the same on both sides: walk each side to its next one.
        let is_result = |line: Option<&str>| {
            line.is_some_and(|line| line.starts_with('<') || line.starts_with('*'))
        };
        while is_result(l) && l != r {
            println!("  - {}", l.unwrap_or_default());
            l = left.next();
            shown += 1;
        }
        while is_result(r) && l != r {
            println!("  + {}", r.unwrap_or_default());
            r = right.next();
            shown += 1;
        }
        if !is_result(l) && !is_result(r) && l != r {
            println!("  - {}\n  + {}", l.unwrap_or("(end)"), r.unwrap_or("(end)"));
            break;
        }
    }
}

/// Replays a file's script and returns the file as it should be.
fn replay_file<S: Subject>(file: &str, cut: Cut) -> String {
    let mut out = String::new();
    let mut case: Option<Case<S>> = None;
    for line in file.lines() {
        let (mark, rest) = (line.get(..2).unwrap_or(""), line.get(2..).unwrap_or(""));
        match mark {
            "< " | "* " => continue,
            "==" => case = Some(Case::new(cut)),
            _ => {}
        }
        out += line;
        out.push('\n');
        let results = match (mark, &mut case) {
            ("> ", Some(case)) => case.send(rest),
            ("! ", Some(case)) => case.command(rest),
            ("@ ", Some(case)) => case.wait(rest),
            _ => continue,
        };
        // Always the same; `preface` shows it.
        if rest != "open" {
            push_counted(&mut out, &results);
        }
    }
    out
}

fn push_counted(out: &mut String, lines: &[String]) {
    let runs: Vec<_> = lines.chunk_by(|left, right| left == right).collect();
    let hidden = if runs.len() > RESULT_LINES_MAX { 2..runs.len() - 4 } else { 0..0 };
    for (place, run) in runs.iter().enumerate() {
        if place == hidden.start && !hidden.is_empty() {
            out.push_str(&format!("* ({} more lines)\n", hidden.len()));
        }
        if hidden.contains(&place) {
            continue;
        }
        out.push_str(&run[0]);
        if run.len() > 1 {
            out.push_str(&format!("   ({} times)", run.len()));
        }
        out.push('\n');
    }
}

struct Case<S> {
    subject: S,
    reader: wire::FrameReader,
    cut: Cut,
    now: Duration,
}

impl<S: Subject> Case<S> {
    fn new(cut: Cut) -> Self {
        Self { subject: S::new(), reader: wire::FrameReader::new(), cut, now: Duration::ZERO }
    }

    fn send(&mut self, line: &str) -> Vec<String> {
        let (count, line) = match line.split_once("x ") {
            Some((count, rest)) if count.bytes().all(|byte| byte.is_ascii_digit()) => {
                (count.parse().expect("a count"), rest)
            }
            _ => (1, line),
        };
        let mut bytes = Vec::new();
        for place in 0..count {
            for frame in line.replace('$', &(2 * place + 1).to_string()).split("; ") {
                bytes.extend(wire::encode(frame));
            }
        }
        let mut told = Vec::new();
        let mut rest = bytes.as_slice();
        let mut size = 1;
        while !rest.is_empty() {
            let length = match self.cut {
                Cut::Whole => rest.len(),
                // Megabytes of filling go in larger pieces: their borders still lie anywhere.
                Cut::Bytes if rest.len() > 100_000 => 4093,
                Cut::Bytes => 1,
                Cut::Odd => size.min(rest.len()),
            };
            size = size % 61 + 7;
            let (part, behind) = rest.split_at(length);
            rest = behind;
            told.extend(self.subject.read(part, self.now));
        }
        self.results(told)
    }

    fn command(&mut self, line: &str) -> Vec<String> {
        let told = self.subject.command(&wire::words(line), self.now);
        self.results(told)
    }

    fn wait(&mut self, line: &str) -> Vec<String> {
        let seconds = line.strip_suffix('s').and_then(|count| count.parse().ok());
        self.now = Duration::from_secs(seconds.expect("a time in seconds"));
        self.subject.tick(self.now);
        let told = self.subject.read(&[], self.now);
        self.results(told)
    }

    fn results(&mut self, told: Vec<String>) -> Vec<String> {
        let mut lines: Vec<_> = join_data(told).iter().map(|line| format!("* {line}")).collect();
        let written = self.subject.written();
        lines.extend(self.reader.read(&written).iter().map(|line| format!("< {line}")));
        assert!(self.reader.is_between_frames(), "frames are written whole");
        lines
    }
}

/// Joins pieces of one stream's body: where the network cut them is not part of the transcript.
fn join_data(told: Vec<String>) -> Vec<String> {
    let mut joined = Vec::new();
    let mut open: Option<(String, Vec<u8>)> = None;
    let close = |open: Option<(String, Vec<u8>)>, end: &str, joined: &mut Vec<String>| {
        if let Some((stream, bytes)) = open {
            joined.push(format!("data {stream} {}{end}", wire::show(&bytes)));
        }
    };
    for line in told {
        let Some(rest) = line.strip_prefix("data ") else {
            close(open.take(), "", &mut joined);
            joined.push(line);
            continue;
        };
        let words = wire::words(rest);
        let stream = wire::text(&words[0]);
        if open.as_ref().is_some_and(|(other, _)| other != stream) {
            close(open.take(), "", &mut joined);
        }
        let (_, bytes) = open.get_or_insert_with(|| (stream.to_owned(), Vec::new()));
        bytes.extend(wire::payload(&words[1]));
        if words.len() > 2 {
            close(open.take(), " end", &mut joined);
        }
    }
    close(open.take(), "", &mut joined);
    joined
}
