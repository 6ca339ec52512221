// Clientv3 drives a running server with the stock Go client and says where it does not behave as
// etcd does.
//
//	go run . --endpoint http://127.0.0.1:2379 [--section kv,watch] [--reference]
//
// The server must be empty of other users: the cases compare exact revisions and compact the
// history. Each case works below a prefix of its own, so a server can be checked again and again.
//
// Invariants:
//   - A case either passes or fails; nothing is skipped silently. The last line is "N passed, N
//     failed", and the exit code is 0 only when none failed and at least one ran.
//   - No case waits for time to pass. "Nothing came" is shown by a later event that did come.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
)

// section is a group of cases about one part of the API.
type section struct {
	name  string
	cases []testCase
	// ringdOnly marks what etcd itself would fail: it serves what ringd does not yet.
	ringdOnly bool
}

func sections() []section {
	return []section{
		{name: "kv", cases: kvCases()},
		{name: "range", cases: rangeCases()},
		{name: "model", cases: modelCases()},
		{name: "txn", cases: txnCases()},
		{name: "stm", cases: stmCases()},
		{name: "compact", cases: compactCases()},
		{name: "watch", cases: watchCases()},
		{name: "stream", cases: streamCases()},
		{name: "watchload", cases: watchLoadCases()},
		{name: "errors", cases: errorCases()},
		{name: "cluster", cases: clusterCases()},
		{name: "lease", cases: leaseCases()},
		{name: "limits", cases: limitCases()},
		{name: "connections", cases: connectionCases()},
		{name: "unserved", cases: unservedCases(), ringdOnly: true},
	}
}

func main() {
	endpoint := flag.String("endpoint", "http://127.0.0.1:2379", "where the server is")
	wanted := flag.String("section", "", "sections to run, comma-separated; all by default")
	caseName := flag.String("case", "", "run only the cases whose name contains this")
	reference := flag.Bool("reference", false, "the server is etcd: leave out what only ringd lacks")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "unexpected argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	all := sections()
	var names []string
	if *wanted != "" {
		names = strings.Split(*wanted, ",")
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(s section) bool { return s.name == name }) {
			fmt.Fprintf(os.Stderr, "there is no section %q\n", name)
			os.Exit(2)
		}
	}
	runner := newRunner(*endpoint)
	for _, section := range all {
		if len(names) > 0 && !slices.Contains(names, section.name) {
			continue
		}
		if section.ringdOnly && *reference {
			fmt.Printf("--- %s: left out, the reference serves it\n", section.name)
			continue
		}
		fmt.Printf("--- %s\n", section.name)
		for _, testCase := range section.cases {
			if strings.Contains(testCase.name, *caseName) {
				runner.run(section.name, testCase)
			}
		}
	}
	fmt.Printf("%d passed, %d failed\n", runner.passed, runner.failed)
	if runner.failed > 0 || runner.passed == 0 {
		os.Exit(1)
	}
}
