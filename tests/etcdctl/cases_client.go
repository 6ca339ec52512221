package main

import (
	"regexp"
	"strings"
	"syscall"
)

// What is the tool's own is asked all the same: a member stands behind it, and the words are there
// to be compared when one of the two is exchanged for another version.
var tool = section{name: "the tool itself", steps: []step{
	ctl("put k v"),
	bare("", "version"),
	each("version"),
	ctl("options"),
	ctl("completion bash"),
	ctl("completion zsh"),
	ctl("completion fish"),
	ctl("completion powershell"),
	ctl("completion"),
	ctl("completion nonsense"),
	ctl("help"),
	ctl("help get"),
	ctl("get --help"),
	ctl(""),
	ctl("nonsense"),
	ctl("gett k"),
	ctl("--nonsense get k"),
	bare("ETCDCTL_ENDPOINTS={endpoint}", "get k"),
	bare("ETCDCTL_ENDPOINTS=http://{endpoint}", "get k"),
	bare("ETCDCTL_ENDPOINTS={endpoint} ETCDCTL_WRITE_OUT=json", "get k"),
	bare("ETCDCTL_ENDPOINTS={endpoint} ETCDCTL_HEX=true", "get k"),
	bare("ETCDCTL_ENDPOINTS={endpoint} ETCDCTL_API=3", "get k"),
	bare("ETCDCTL_ENDPOINTS={endpoint} ETCDCTL_NONSENSE=1", "get k"),
	bare("ETCDCTL_ENDPOINTS={endpoint}", "get k --endpoints={endpoint}"),
	bare("ETCDCTL_ENDPOINTS={endpoint} ETCDCTL_COMMAND_TIMEOUT=nonsense", "get k"),
	bare("ETCDCTL_ENDPOINTS={endpoint} ETCDCTL_DIAL_TIMEOUT=7s", "put k w"),
	ctl("get k --dial-timeout=1s --command-timeout=3s"),
	ctl("get k --keepalive-time=1s --keepalive-timeout=1s"),
	ctl("put k v --command-timeout=1ns"),
	ctl("get k --command-timeout=nonsense"),
	ctl("get k --endpoints 127.0.0.1:1 --command-timeout=1s"),
	ctl("put k v --endpoints 127.0.0.1:1 --command-timeout=1s"),
	ctl("get k --endpoints 127.0.0.1:1,{endpoint}"),
	ctl("get k --endpoints ''"),
	ctl("get k --max-recv-bytes=1"),
	ctl("get k --max-request-bytes=1 --max-recv-bytes=100"),
	ctlWith(strings.Repeat("v", 3_000), "put k --max-request-bytes=1000"),
	ctlWith(strings.Repeat("v", 1_700_000), "put k"),
	ctlWith(strings.Repeat("v", 2_200_000), "put k"),
	ctlWith(strings.Repeat("v", 2_200_000), "put k --max-request-bytes=10000000"),
	ctl("get k --insecure-transport=true"),
	ctl("get k --insecure-skip-tls-verify"),
	ctl("get k --user=root:secret"),
	ctl("get k --user=root --password=secret"),
	ctl("put k v --user=root:secret"),
	ctl("get k --cacert=absent"),
	ctl("get k --discovery-srv=localhost.invalid --insecure-discovery=false"),
	debugged("get k --debug --endpoints {endpoint}"),
	ctl("get k -w"),
	each("--hex get k", "--hex put k 'in {format}' --prev-kv", "--hex del absent"),
}}

var variables = regexp.MustCompile(`(?m)^ETCDCTL_.*\n`)

// debugged keeps what is told of the flags. The rest are lines of the connection's own making, of
// which no two runs have the same.
func debugged(line string) step {
	return func(p *player) {
		ctl(line)(p)
		last := &p.records[len(p.records)-1]
		last.err = strings.Join(variables.FindAllString(last.err, -1), "")
	}
}

var mirrors = section{name: "make-mirror", members: 2, steps: []step{
	ctl("put a/1 one"),
	ctl("put a/2 two"),
	ctl("put b/1 three"),
	ctl("put a/1 four"),
	begin("all", "make-mirror {other}"),
	awaits(6, "get '' --prefix --keys-only --endpoints {other}"),
	ctl("put a/3 five"),
	ctl("del a/2"),
	ctlWith("\nput a/4 six\nput b/2 seven\ndel b/1\n\n\n", "txn"),
	awaits(2, "get b/2 --keys-only --endpoints {other}"),
	ctl("get '' --prefix --endpoints {other}"),

	begin("moved", "make-mirror {other} --prefix=a/ --dest-prefix=moved/"),
	awaits(6, "get moved/ --prefix --keys-only --endpoints {other}"),
	ctl("get moved/ --prefix --endpoints {other}"),
	ctl("put a/5 late"),
	awaits(8, "get moved/ --prefix --keys-only --endpoints {other}"),
	signalled("moved", syscall.SIGTERM),
	ctl("del moved/ --prefix --endpoints {other}"),

	begin("rootless", "make-mirror {other} --prefix=a/ --no-dest-prefix"),
	awaits(8, "get 1 6 --keys-only --endpoints {other}"),
	signalled("rootless", syscall.SIGTERM),
	ctl("get 0 9 --endpoints {other}"),

	// From a revision on there is no copy of what was before.
	begin("since", "make-mirror {other} --prefix=a/ --dest-prefix=since/ --rev=6 --max-txn-ops=1"),
	awaits(6, "get since/ --prefix --keys-only --endpoints {other}"),
	signalled("since", syscall.SIGTERM),
	ctl("get since/ --prefix --endpoints {other}"),
	// The count is told every half minute.
	told("all", 1),
	firstLineOfTerminated("all"),

	ctl("make-mirror"),
	ctl("make-mirror one two"),
	ctl("make-mirror {other} --dest-prefix=x --no-dest-prefix"),
	ctl("make-mirror {other} --nonsense"),
	ctl("make-mirror {other} --rev=nonsense"),
	ctl("compaction 5"),
	ctl("make-mirror {other} --rev=2"),
}}

// firstLineOfTerminated ends a session whose further lines depend on how long it lives.
func firstLineOfTerminated(name string) step {
	return func(p *player) {
		signalled(name, syscall.SIGTERM)(p)
		last := &p.records[len(p.records)-1]
		last.out = firstOf(last.out, 1)
	}
}

var checks = section{name: "check", steps: []step{
	measured("check perf --load=s --prefix=perf/ --auto-compact --auto-defrag"),
	ctl("get perf/ --prefix"),
	measured("check datascale --load=s --prefix=scale/ --auto-compact --auto-defrag"),
	ctl("check perf --load=nonsense"),
	ctl("check datascale --load=nonsense"),
	ctl("put taken/1 x"),
	ctl("check perf --prefix=taken/"),
	ctl("check datascale --prefix=taken/"),
	ctl("check"),
	ctl("check nonsense"),
	ctl("check perf --nonsense"),
}}

// judgements are of the machine, not of what was answered.
var judgements = []pattern{
	{
		"how fast it was",
		regexp.MustCompile(`(?m)^(?:PASS: |FAIL: )?(Throughput|Slowest|Stddev).*$`), "$1",
	},
	{"whether that is enough", regexp.MustCompile(`(?m)^(PASS|FAIL)$`), "VERDICT"},
	{"how much it has written meanwhile", regexp.MustCompile(`revision \d+`), "revision N"},
	{"what it has taken of the system", regexp.MustCompile(`-?[0-9.]+ MB`), "SIZE"},
}

var trouble = regexp.MustCompile(`(?m)^(\{|Error).*\n`)

// measured is a command that measures. Its exit code tells its verdict, too, and on the second
// stream it draws how far it has come.
func measured(line string) step {
	return func(p *player) {
		ctl(line)(p)
		last := &p.records[len(p.records)-1]
		for _, judgement := range judgements {
			last.out = judgement.what.ReplaceAllString(last.out, judgement.with)
		}
		last.err = strings.Join(trouble.FindAllString(last.err, -1), "")
		if last.end == "exit status 1" && strings.HasSuffix(last.out, "VERDICT\n") {
			last.end = "exit status 0"
		}
	}
}

func sections() []section {
	return []section{
		// The longest first: they only wait.
		checks, mirrors, endpoints, downgrades, leases,
		putAndGet, sorts, streamed, deletes, txns,
		watches, watchesLive, watchesInteractive, watchesProgress,
		expiry, locks, elections,
		compactions, defragmentation, alarms, leaders, members, snapshots,
		tool,
	}
}
