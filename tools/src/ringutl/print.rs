//! etcdutl's four formats.

use clap::ValueEnum;
use server::interchange::{HashKv, Status};

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line of values.
    Simple,
    /// A table.
    Table,
    /// JSON.
    Json,
    /// A line for each field.
    Fields,
}

/// Prints what `snapshot status` tells.
pub fn print_status(status: &Status, format: Format) {
    print!("{}", status_text(status, format));
}

/// Prints what `hashkv` tells.
pub fn print_hash_kv(hash: HashKv, format: Format) {
    print!("{}", hash_kv_text(hash, format));
}

fn status_text(status: &Status, format: Format) -> String {
    let Status { hash, revision, total_key, total_size, version } = status;
    let row = [
        format!("{hash:x}"),
        revision.to_string(),
        total_key.to_string(),
        human_size(*total_size),
        version.clone(),
    ];
    match format {
        Format::Simple => format!("{}\n", row.join(", ")),
        Format::Table => table(&["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"], &row),
        // A version is digits and dots, so there is nothing to escape.
        Format::Json => format!(
            "{{\"hash\":{hash},\"revision\":{revision},\"totalKey\":{total_key},\
             \"totalSize\":{total_size},\"version\":{version:?}}}\n"
        ),
        Format::Fields => format!(
            "\"Hash\" : {hash}\n\"Revision\" : {revision}\n\"Keys\" : {total_key}\n\
             \"Size\" : {total_size}\n\"Version\" : {version}\n"
        ),
    }
}

fn hash_kv_text(hash: HashKv, format: Format) -> String {
    let HashKv { hash, hash_revision, compact_revision } = hash;
    let row = [hash.to_string(), hash_revision.to_string(), compact_revision.to_string()];
    match format {
        Format::Simple => format!("{}\n", row.join(", ")),
        Format::Table => table(&["HASH", "HASH REVISION", "COMPACT REVISION"], &row),
        Format::Json => format!(
            "{{\"hash\":{hash},\"hashRevision\":{hash_revision},\
             \"compactRevision\":{compact_revision}}}\n"
        ),
        Format::Fields => format!(
            "\"Hash\" : {hash}\n\"Hash revision\" : {hash_revision}\n\
             \"Compact revision\" : {compact_revision}\n"
        ),
    }
}

/// Boxes of one row: titles in the middle, values at the right.
fn table(titles: &[&str], row: &[String]) -> String {
    let widths: Vec<usize> =
        titles.iter().zip(row).map(|(title, value)| title.len().max(value.len()) + 2).collect();
    let rule = |left: &str, middle: &str, right: &str| {
        let lines: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
        format!("{left}{}{right}\n", lines.join(middle))
    };
    let titles = titles.iter().zip(&widths).map(|(title, width)| format!("{title:^width$}"));
    let titles: Vec<String> = titles.collect();
    let values = row.iter().zip(&widths).map(|(value, width)| format!("{value:>0$} ", width - 1));
    let values: Vec<String> = values.collect();
    [
        rule("┌", "┬", "┐"),
        format!("│{}│\n", titles.join("│")),
        rule("├", "┼", "┤"),
        format!("│{}│\n", values.join("│")),
        rule("└", "┴", "┘"),
    ]
    .concat()
}

/// A size in powers of a thousand, with one decimal below ten, as etcd prints it.
fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let (mut unit, mut scale) = (0, 1_u64);
    while unit + 1 < UNITS.len() && bytes / scale >= 1000 {
        scale *= 1000;
        unit += 1;
    }
    // Tenths, rounded half up.
    let tenths = (u128::from(bytes) * 10 + u128::from(scale) / 2) / u128::from(scale);
    if tenths < 100 {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    } else {
        // Half to even, which is what Go does with what is left.
        let (whole, rest) = (tenths / 10, tenths % 10);
        let rounded = whole + u128::from(rest > 5 || rest == 5 && whole % 2 == 1);
        format!("{rounded} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_as_etcd_prints_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (9, "9 B"),
            (10, "10 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (20_480, "20 kB"),
            (9_949, "9.9 kB"),
            (82_854_982, "83 MB"),
            (1_234_567_890, "1.2 GB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }

    /// Taken from etcdutl 3.7.1 over the same file.
    #[test]
    fn a_status_is_printed_as_etcdutl_does() {
        let status = Status {
            hash: 1_646_746_487,
            revision: 43,
            total_key: 12,
            total_size: 20_480,
            version: "3.7.0".to_owned(),
        };
        assert_eq!(status_text(&status, Format::Simple), "62275b77, 43, 12, 20 kB, 3.7.0\n");
        assert_eq!(
            status_text(&status, Format::Json),
            "{\"hash\":1646746487,\"revision\":43,\"totalKey\":12,\"totalSize\":20480,\
             \"version\":\"3.7.0\"}\n"
        );
        assert_eq!(
            status_text(&status, Format::Table),
            "┌──────────┬──────────┬────────────┬────────────┬─────────┐\n\
             │   HASH   │ REVISION │ TOTAL KEYS │ TOTAL SIZE │ VERSION │\n\
             ├──────────┼──────────┼────────────┼────────────┼─────────┤\n\
             │ 62275b77 │       43 │         12 │      20 kB │   3.7.0 │\n\
             └──────────┴──────────┴────────────┴────────────┴─────────┘\n"
        );
    }
}
