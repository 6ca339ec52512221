// Cluster starts members of a server as processes on loopback, takes some of them away and brings
// them back, and looks at what clients of the whole cluster see meanwhile.
//
//	go run . --server ../../target/release/ringd --restorer ../../target/release/ringutl \
//		[--case stopped] [--puts 10000]
//
// It must pass on etcd before a failure on ringd means anything. Each case starts a cluster of its
// own.
//
// Invariants:
//   - A write that was answered is there, whatever happened to the members; one that failed may be.
//   - Nothing is judged by how long it took: a case waits for what the cluster has to say, within
//     bounds that only a cluster that hangs reaches.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// caseTimeMax ends a case that hangs. It is no measure of speed.
const caseTimeMax = 300 * time.Second

var (
	server   = flag.String("server", "ringd", "the server's binary")
	restorer = flag.String("restorer", "ringutl", "the tool that restores backups for it")
	wanted   = flag.String("case", "", "run only the cases whose name contains this")
	putCount = flag.Int("puts", 10000, "puts of the case that stops a member under load")
	keep     = flag.Bool("keep", false, "leave the members' directories behind")
)

type testCase struct {
	name string
	run  func(t *T)
}

func cases() []testCase {
	return []testCase{
		{"members agree on who they are", membersAgreeOnWhoTheyAre},
		{"puts while a follower is stopped and comes back", putsWhileAFollowerIsStopped},
		{"puts while the leader is stopped and comes back", putsWhileTheLeaderIsStopped},
		{"a leader that is told to stop hands over", leaderHandsOver},
		{"leadership moves on request", leadershipMoves},
		{"leases and watches survive a leader", leasesAndWatchesSurviveALeader},
		{"without a quorum nothing is written", nothingWithoutAQuorum},
		{"a cluster grows and shrinks under load", growsAndShrinks},
		{"a member that lost everything is replaced", lostMemberIsReplaced},
		{"changes that do not fit are refused", changesThatDoNotFit},
		{"a backup is restored to three members", backupIsRestored},
		{"the periodic check finds who differs", periodicCheckFindsIt},
		{"the check of compactions finds who differs", compactionCheckFindsIt},
		{"a member that differs does not start with the check", startFindsIt},
	}
}

func main() {
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "unexpected argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	passed, failed := 0, 0
	for _, testCase := range cases() {
		if !strings.Contains(testCase.name, *wanted) {
			continue
		}
		failures := run(testCase)
		if len(failures) == 0 {
			passed++
			fmt.Printf("ok    %s\n", testCase.name)
			continue
		}
		failed++
		fmt.Printf("FAIL  %s\n        %s\n", testCase.name, strings.Join(failures, "\n        "))
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 || passed == 0 {
		os.Exit(1)
	}
}

// stopCase is what a case that cannot go on panics with.
type stopCase struct{}

func run(testCase testCase) []string {
	ctx, cancel := context.WithTimeout(context.Background(), caseTimeMax)
	defer cancel()
	directory, err := os.MkdirTemp("", "ringd-cluster-")
	if err != nil {
		return []string{err.Error()}
	}
	t := &T{ctx: ctx, directory: directory}
	func() {
		defer t.stopAll()
		defer func() {
			if reason := recover(); reason != nil {
				if _, stopped := reason.(stopCase); !stopped {
					t.Failf("panic: %v\n%s", reason, debug.Stack())
				}
			}
		}()
		testCase.run(t)
	}()
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if *keep {
		fmt.Printf("      the members' directories are in %s\n", directory)
	} else {
		os.RemoveAll(directory)
	}
	const shown = 10
	if len(t.failures) > shown {
		more := fmt.Sprintf("and %d more", len(t.failures)-shown)
		return append(t.failures[:shown:shown], more)
	}
	return t.failures
}

// T is what a case works with.
type T struct {
	ctx       context.Context
	directory string
	started   []*member
	mutex     sync.Mutex
	failures  []string
}

// Failf notes a failure and goes on.
func (t *T) Failf(format string, arguments ...any) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.failures = append(t.failures, fmt.Sprintf(format, arguments...))
}

// NoError ends the case when something failed on which the rest builds. Only the case's own
// goroutine may call it.
func (t *T) NoError(err error, what string) {
	if err != nil {
		t.Failf("%s: %v", what, err)
		panic(stopCase{})
	}
}

// Check notes a failure when the condition does not hold.
func (t *T) Check(ok bool, format string, arguments ...any) {
	if !ok {
		t.Failf(format, arguments...)
	}
}

// Wait asks again and again until the answer is yes, or the case's time is over.
func (t *T) Wait(what string, isThere func() bool) {
	for !isThere() {
		select {
		case <-t.ctx.Done():
			t.Failf("waited in vain: %s", what)
			panic(stopCase{})
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (t *T) stopAll() {
	for _, one := range t.started {
		one.kill()
	}
}
