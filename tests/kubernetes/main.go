// Kubernetes drives a running server as the Kubernetes API server drives its storage: guarded
// transactions, lists in pages at one revision, caches that list and then watch, leases on events,
// and a compactor beside all of it.
//
//	go run . --endpoint http://127.0.0.1:2379 [--case list]
//
// It must pass on etcd before a failure on ringd means anything. Each case works below a prefix of
// its own, but the store is compacted: the server must have no other users.
//
// Invariants:
//   - What a list or a cache shows is checked against a history of all writes by the revisions the
//     server gave them, never against what the writers meant to write.
//   - No case waits for time to pass: it waits for what the server has to say.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.uber.org/zap"
)

// caseTimeMax ends a case that hangs. It is no measure of speed: the slowest takes seconds.
const caseTimeMax = 120 * time.Second

type testCase struct {
	name string
	run  func(t *T)
}

func cases() []testCase {
	return []testCase{
		{"a create succeeds once", createSucceedsOnce},
		{"an update wants the revision it read", updateWantsItsRevision},
		{"a delete wants the revision it read", deleteWantsItsRevision},
		{"contended updates lose nothing", contendedUpdatesLoseNothing},
		{"a list in pages is one moment", listInPagesIsOneMoment},
		{"a list at an old revision is the past", listAtOldRevisionIsThePast},
		{"a cache follows from its list's revision", cacheFollowsFromItsList},
		{"progress tells a cache how new it is", progressTellsHowNewACacheIs},
		{"events go with their lease", eventsGoWithTheirLease},
		{"events go when their lease expires", eventsGoWhenTheirLeaseExpires},
		{"one of several compactors wins", oneOfSeveralCompactorsWins},
		{"a compaction cuts a list or leaves it whole", compactionCutsAListOrLeavesItWhole},
		{"a watch below a compaction says where to begin", watchBelowACompaction},
	}
}

func main() {
	endpoint := flag.String("endpoint", "http://127.0.0.1:2379", "where the server is")
	wanted := flag.String("case", "", "run only the cases whose name contains this")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "unexpected argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	nonce := fmt.Sprintf("%x", time.Now().UnixNano())
	passed, failed := 0, 0
	for number, testCase := range cases() {
		if !strings.Contains(testCase.name, *wanted) {
			continue
		}
		prefix := fmt.Sprintf("/registry/%s/%d/", nonce, number)
		failures := run(testCase, *endpoint, prefix)
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

// run runs a case and returns what went wrong.
func run(testCase testCase, endpoint, prefix string) []string {
	ctx, cancel := context.WithTimeout(context.Background(), caseTimeMax)
	defer cancel()
	t := &T{Ctx: ctx, Prefix: prefix, history: newHistory()}
	func() {
		defer func() {
			if reason := recover(); reason != nil {
				if _, stopped := reason.(stopCase); !stopped {
					t.Failf("panic: %v\n%s", reason, debug.Stack())
				}
			}
		}()
		client, err := kubernetes.New(clientv3.Config{
			Endpoints:   []string{endpoint},
			Context:     ctx,
			DialTimeout: 20 * time.Second,
			// The client's own warnings would only repeat what the cases say.
			Logger: zap.NewNop(),
		})
		t.NoError(err, "connect")
		defer client.Close()
		t.Client = client
		testCase.run(t)
	}()
	t.mutex.Lock()
	defer t.mutex.Unlock()
	const shown = 10
	if len(t.failures) > shown {
		more := fmt.Sprintf("and %d more", len(t.failures)-shown)
		return append(t.failures[:shown:shown], more)
	}
	return t.failures
}

// T is what a case works with.
type T struct {
	Ctx    context.Context
	Client *kubernetes.Client
	// Prefix is where the case's objects are.
	Prefix string

	history  *history
	mutex    sync.Mutex
	failures []string
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

// WantError checks an error of the client by identity, as programs do.
func (t *T) WantError(what string, got, want error) {
	t.Check(errors.Is(got, want), "%s: got error %v, want %v", what, got, want)
}

// Key is an object's name below the case's prefix.
func (t *T) Key(name string) string { return t.Prefix + name }
