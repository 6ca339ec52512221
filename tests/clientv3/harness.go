package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// caseTimeMax ends a case that hangs. It is no measure of speed: the slowest takes seconds.
const caseTimeMax = 120 * time.Second

type testCase struct {
	name string
	run  func(t *T)
}

type runner struct {
	endpoint string
	// nonce tells this run's keys from those of earlier runs on the same server.
	nonce  string
	passed int
	failed int
}

func newRunner(endpoint string) *runner {
	return &runner{endpoint: endpoint, nonce: fmt.Sprintf("%x", time.Now().UnixNano())}
}

// stopCase is what a case that cannot go on panics with.
type stopCase struct{}

func (r *runner) run(section string, testCase testCase) {
	ctx, cancel := context.WithTimeout(context.Background(), caseTimeMax)
	t := &T{
		Ctx:      ctx,
		Endpoint: strings.TrimPrefix(r.endpoint, "http://"),
		prefix:   fmt.Sprintf("/clientv3/%s/%s/%s/", r.nonce, section, testCase.name),
	}
	func() {
		defer func() {
			if reason := recover(); reason != nil {
				if _, stopped := reason.(stopCase); !stopped {
					t.Failf("panic: %v\n%s", reason, debug.Stack())
				}
			}
		}()
		t.Client = t.Connect()
		testCase.run(t)
	}()
	cancel()
	for i := len(t.cleanups) - 1; i >= 0; i-- {
		t.cleanups[i]()
	}
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if len(t.failures) == 0 {
		r.passed++
		fmt.Printf("ok    %s\n", testCase.name)
		return
	}
	r.failed++
	fmt.Printf("FAIL  %s\n", testCase.name)
	const shown = 10
	for i, failure := range t.failures {
		if i == shown {
			fmt.Printf("        and %d more\n", len(t.failures)-shown)
			break
		}
		fmt.Printf("        %s\n", strings.ReplaceAll(failure, "\n", "\n        "))
	}
}

// T is what a case works with: a client, a prefix of its own, and a place for what went wrong.
type T struct {
	Ctx      context.Context
	Client   *clientv3.Client
	Endpoint string

	prefix   string
	cleanups []func()
	mutex    sync.Mutex
	failures []string
}

// Connect makes another client, with a connection of its own.
func (t *T) Connect() *clientv3.Client {
	return t.ConnectWith(clientv3.Config{Endpoints: []string{t.Endpoint}})
}

// ConnectWith makes a client with settings of its own.
func (t *T) ConnectWith(config clientv3.Config) *clientv3.Client {
	config.Context = t.Ctx
	// The client's own warnings would only repeat what the cases say.
	config.Logger = zap.NewNop()
	config.DialTimeout = 20 * time.Second
	client, err := clientv3.New(config)
	t.NoError(err, "connect")
	t.Cleanup(func() { client.Close() })
	return client
}

// Cleanup runs when the case is over, the last first.
func (t *T) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

// Key is a name below the case's prefix.
func (t *T) Key(name string) string { return t.prefix + name }

// Short is a key without the case's prefix, for messages.
func (t *T) Short(key []byte) string { return strings.TrimPrefix(string(key), t.prefix) }

// Failf notes a failure and goes on.
func (t *T) Failf(format string, arguments ...any) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.failures = append(t.failures, fmt.Sprintf(format, arguments...))
}

// Stopf notes a failure and ends the case. Only the case's own goroutine may call it.
func (t *T) Stopf(format string, arguments ...any) {
	t.Failf(format, arguments...)
	panic(stopCase{})
}

// NoError ends the case when something failed on which the rest builds.
func (t *T) NoError(err error, what string, arguments ...any) {
	if err != nil {
		t.Stopf("%s: %v", fmt.Sprintf(what, arguments...), err)
	}
}

// Check notes a failure when the condition does not hold.
func (t *T) Check(ok bool, format string, arguments ...any) {
	if !ok {
		t.Failf(format, arguments...)
	}
}

// Equal notes a failure when two values differ.
func Equal[V comparable](t *T, what string, got, want V) {
	if got != want {
		t.Failf("%s: got %v, want %v", what, got, want)
	}
}

// EqualBytes notes a failure when two byte strings differ.
func (t *T) EqualBytes(what string, got []byte, want string) {
	if !bytes.Equal(got, []byte(want)) {
		t.Failf("%s: got %q, want %q", what, brief(got), brief([]byte(want)))
	}
}

func brief(value []byte) string {
	const shown = 80
	if len(value) <= shown {
		return string(value)
	}
	return fmt.Sprintf("%s... (%d bytes)", value[:shown], len(value))
}

// WantError checks an error of the client by identity, as programs do.
func (t *T) WantError(what string, got, want error) {
	if !errors.Is(got, want) {
		t.Failf("%s: got error %v, want %v", what, got, want)
	}
}

// WantStatus checks an error of a generated stub by code and text, byte for byte.
func (t *T) WantStatus(what string, got error, code codes.Code, text string) {
	s, ok := status.FromError(got)
	if got == nil || !ok || s.Code() != code || s.Message() != text {
		t.Failf("%s: got %v, want code %v, text %q", what, got, code, text)
	}
}

// Put stores a value and returns the revision.
func (t *T) Put(key, value string, options ...clientv3.OpOption) int64 {
	response, err := t.Client.Put(t.Ctx, key, value, options...)
	t.NoError(err, "put %s", t.Short([]byte(key)))
	return response.Header.Revision
}

// Get reads, or ends the case.
func (t *T) Get(key string, options ...clientv3.OpOption) *clientv3.GetResponse {
	response, err := t.Client.Get(t.Ctx, key, options...)
	t.NoError(err, "get %s", t.Short([]byte(key)))
	return response
}

// Delete deletes, or ends the case.
func (t *T) Delete(key string, options ...clientv3.OpOption) *clientv3.DeleteResponse {
	response, err := t.Client.Delete(t.Ctx, key, options...)
	t.NoError(err, "delete %s", t.Short([]byte(key)))
	return response
}

// Revision is the store's current one.
func (t *T) Revision() int64 { return t.Get(t.Key("no such key")).Header.Revision }

// Keys is what a range answered, as one word for each key.
func (t *T) Keys(response *clientv3.GetResponse) string {
	words := make([]string, len(response.Kvs))
	for i, kv := range response.Kvs {
		words[i] = t.Short(kv.Key)
	}
	return strings.Join(words, " ")
}
