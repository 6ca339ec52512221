//! Settings whose effect is outside of the process: sockets of the file system, a supervisor that
//! is told, a configuration file, the limit on descriptors.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use crate::client::Client;
use crate::directory::Directory;
use crate::json::parse_object;
use crate::member::{Member, Refused, WAIT_MAX, arguments, limited, ringd};

const SERVING: &str = "serving client traffic insecurely; this is strongly discouraged!";

fn unix_member(data_dir: &Path, socket: &Path) -> Member {
    let url = format!("unix://{}", socket.display());
    let mut command = ringd();
    command.args(["--name", "m", "--data-dir", data_dir.to_str().unwrap()]);
    command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
    command.args(["--listen-peer-urls", "http://127.0.0.1:0"]);
    let mut member = Member::spawn(&mut command);
    let line = member.wait_for(SERVING);
    assert_eq!(line["address"], socket.to_str().unwrap());
    member
}

#[test]
fn a_unix_socket_is_served_survives_a_kill_and_goes_with_a_stop() {
    let directory = Directory::new("unix");
    let (data_dir, socket) = (directory.join("data"), directory.join("client.sock"));
    let member = unix_member(&data_dir, &socket);
    Client::connect_unix(&socket).unwrap().put("k", b"1").unwrap();
    member.kill();
    assert!(socket.exists(), "nothing runs in a process that is killed");
    let member = unix_member(&data_dir, &socket);
    let mut client = Client::connect_unix(&socket).unwrap();
    assert_eq!(client.get("k").unwrap().unwrap(), b"1");
    client.put("k", b"2").unwrap();
    member.signal("TERM");
    let (status, log) = member.end();
    assert_eq!(status.signal(), Some(15), "{}", log.join("\n"));
    assert!(!socket.exists(), "the socket's file outlived its listener");
}

#[test]
fn a_file_in_the_place_of_a_socket_stays() {
    let directory = Directory::new("unix-file");
    let path = directory.join("thesis.txt");
    fs::write(&path, "the only copy").unwrap();
    let url = format!("unix://{}", path.display());
    let mut command = ringd();
    command.args(["--data-dir", directory.join("data").to_str().unwrap()]);
    command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
    command.args(["--listen-peer-urls", "http://127.0.0.1:0"]);
    let error = Refused::run(&mut command).fatal();
    let want = format!("listen unix {}: bind: address already in use", path.display());
    assert_eq!(error, want);
    assert_eq!(fs::read(&path).unwrap(), b"the only copy");
}

#[test]
fn a_supervisor_is_told_of_the_beginning_and_of_the_end() {
    let directory = Directory::new("notify");
    let path = directory.join("notify.sock");
    let supervisor = UnixDatagram::bind(&path).unwrap();
    supervisor.set_read_timeout(Some(WAIT_MAX)).unwrap();
    let news = || {
        let mut buffer = [0; 256];
        let len = supervisor.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    };
    let mut command = ringd();
    command.args(arguments(&directory.join("data"))).env("NOTIFY_SOCKET", &path);
    let mut member = Member::spawn(&mut command);
    assert_eq!(news(), "READY=1");
    member.wait_for("successfully notified init daemon");
    // Ready means that clients are answered.
    member.connect().put("k", b"v").unwrap();
    member.signal("TERM");
    assert_eq!(news(), "STOPPING=1");
    member.end();

    // A supervisor that is gone is remarked on and stops nothing.
    drop(supervisor);
    let mut member = Member::spawn(&mut command);
    member.wait_for("failed to notify systemd for readiness");
    assert_eq!(member.connect().get("k").unwrap().unwrap(), b"v");
}

#[test]
fn a_file_takes_the_place_of_flags_and_environment() {
    let directory = Directory::new("file");
    let (data_dir, path) = (directory.join("data"), directory.join("ringd.yaml"));
    let content = format!(
        "# of the file\nname: m1\ndata-dir: {}\nlisten-client-urls: http://127.0.0.1:0\n\
         advertise-client-urls: http://localhost:2379\nlisten-peer-urls: http://127.0.0.1:0\n",
        data_dir.display()
    );
    fs::write(&path, content).unwrap();
    let mut command = ringd();
    command.args(["--config-file", path.to_str().unwrap(), "--name", "of-the-flag"]);
    command.env("ETCD_NAME", "of-the-environment");
    let mut member = Member::spawn(&mut command);
    let line = member.wait_for("starting an etcd server");
    assert_eq!(line["name"], "m1");
    member.wait_for(SERVING);
    member.connect().put("k", b"v").unwrap();
    drop(member);

    // Nothing but the text, as etcd has it.
    fs::write(&path, "listen-client-urls: foo\n").unwrap();
    let refused = Refused::run(&mut command);
    let text = "unexpected error setting up listen-client-urls: \
                URL scheme must be http, https, unix, or unixs: foo";
    assert_eq!((refused.code, refused.stderr.as_str()), (Some(1), text));
    let missing = directory.join("missing.yaml");
    let refused = Refused::run(ringd().args(["--config-file", missing.to_str().unwrap()]));
    let text = format!("open {}: no such file or directory", missing.display());
    let last = parse_object(refused.stderr.lines().last().unwrap()).unwrap();
    assert_eq!((last["msg"].as_str(), &last["error"]), ("failed to verify flags", &text));
    assert_eq!(refused.code, Some(1));
}

#[test]
fn too_few_descriptors_are_told_before_anything_is_made() {
    let directory = Directory::new("descriptors");
    let data_dir = directory.join("data");
    let refused = Refused::run(&mut limited("ulimit -n 150", &data_dir));
    let line = parse_object(refused.stderr.lines().last().unwrap()).unwrap();
    let message = "file descriptor limit of etcd process is too low; please set higher";
    assert_eq!((line["level"].as_str(), line["msg"].as_str()), ("fatal", message));
    assert_eq!((line["limit"].as_str(), line["recommended-limit"].as_str()), ("150", "150"));
    assert_eq!(refused.code, Some(1));
    assert!(!data_dir.exists(), "a refused start made a directory");
}

/// What a start is refused with.
struct Slip {
    arguments: &'static [&'static str],
    variables: &'static [(&'static str, &'static str)],
    file: Option<&'static str>,
    code: i32,
    /// The first line on standard error where no log line tells it.
    text: &'static str,
}

const fn slip(arguments: &'static [&'static str], code: i32, text: &'static str) -> Slip {
    Slip { arguments, variables: &[], file: None, code, text }
}

/// Recorded from etcd 3.7.1: the exit code, and the text in the place where etcd has it, which is
/// the `error` of the last log line or else the first line of all.
const SLIPS: &[Slip] = &[
    slip(&["--nmae", "m"], 2, "flag provided but not defined: -nmae"),
    slip(&["--name"], 2, "flag needs an argument: -name"),
    slip(
        &["--heartbeat-interval=abc"],
        2,
        "invalid value \"abc\" for flag -heartbeat-interval: parse error",
    ),
    slip(&["extra"], 1, "\"extra\" is not a valid flag"),
    slip(
        &["--heartbeat-interval=300"],
        1,
        "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[300ms]",
    ),
    slip(&["--auto-compaction-mode=foo"], 1, "unknown auto-compaction-mode \"foo\""),
    slip(
        &["--auto-compaction-retention=1d"],
        1,
        "error parsing CompactionRetention: time: unknown unit \"d\" in duration \"1d\"",
    ),
    slip(&["--logger=capnslog"], 1, "--logger=capnslog is removed in v3.5"),
    slip(
        &["--config-file=/nonexistent.yaml"],
        1,
        "open /nonexistent.yaml: no such file or directory",
    ),
    slip(&["--config-file=/"], 1, "read /: is a directory"),
    slip(
        &[
            "--listen-client-urls=unix:///nonexistent/a.sock",
            "--advertise-client-urls=unix:///nonexistent/a.sock",
        ],
        1,
        "listen unix /nonexistent/a.sock: bind: no such file or directory",
    ),
    Slip {
        variables: &[("ETCD_HEARTBEAT_INTERVAL", "abc")],
        ..slip(&[], 1, "invalid value \"abc\" for ETCD_HEARTBEAT_INTERVAL: parse error")
    },
    Slip {
        file: Some("name: n\n"),
        ..slip(
            &[],
            1,
            "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal bool into Go \
             struct field configYAML.Config.name of type string",
        )
    },
    Slip {
        file: Some("name: m\nlisten-peer-urls: foo\n"),
        ..slip(
            &[],
            1,
            "unexpected error setting up listen-peer-urls: \
             URL scheme must be http, https, unix, or unixs: foo",
        )
    },
];

#[test]
fn a_slip_ends_with_etcds_exit_code_and_text() {
    let directory = Directory::new("slips");
    for (number, slip) in SLIPS.iter().enumerate() {
        let mut command = ringd();
        let data_dir = directory.join("data");
        let what = format!("{number}: {:?} {:?} {:?}", slip.arguments, slip.variables, slip.file);
        match slip.file {
            Some(content) => {
                let path = directory.join("slip.yaml");
                fs::write(&path, content).unwrap();
                command.args(["--config-file", path.to_str().unwrap()]);
            }
            // What comes first counts until the same flag comes again.
            None => {
                command.args(arguments(&data_dir));
            }
        }
        command.args(slip.arguments).envs(slip.variables.iter().copied());
        let refused = Refused::run(&mut command);
        let last = refused.stderr.lines().last().and_then(|line| parse_object(line).ok());
        let told = match last.as_ref().and_then(|line| line.get("error")) {
            Some(error) => error.as_str(),
            None => refused.stderr.lines().next().unwrap_or_default(),
        };
        assert_eq!((refused.code, told), (Some(slip.code), slip.text), "{what}");
        assert!(
            !data_dir.join("ringd.format").exists(),
            "{what}: a refused start founded a member"
        );
    }
}

#[test]
fn a_request_that_takes_long_is_told() {
    let directory = Directory::new("slow");
    // The put cannot be answered before its sync has ended.
    let more = ["--fault-sync-delay=500ms", "--warning-unary-request-duration=100ms"];
    let mut member = Member::start_with(&directory.join("data"), &more);
    member.connect().put("k", b"v").unwrap();
    let line = member.wait_for("requests take longer than expected");
    assert_eq!((line["level"].as_str(), line["requests"].as_str()), ("warn", "1"));
}
