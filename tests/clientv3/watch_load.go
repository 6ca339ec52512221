package main

import (
	"fmt"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func watchLoadCases() []testCase {
	return []testCase{
		{"each event comes once and in order while many write", loadWriters},
		{"a watch of a large prefix hears ten thousand puts", loadPrefix},
		{"watches that begin in the middle miss nothing", loadLate},
		{"a slow reader gets all and holds up nobody", loadSlow},
		{"a slow reader below the compaction is told so", loadSlowCompacted},
	}
}

// write puts from several clients at once and returns what was put at which revision.
func (t *T) write(writers, each int, value string) map[int64]string {
	var mutex sync.Mutex
	written := map[int64]string{}
	var group sync.WaitGroup
	for w := range writers {
		client := t.Connect()
		group.Go(func() {
			for i := range each {
				key := t.Key(fmt.Sprintf("%d/%d", w, i%50))
				response, err := client.Put(t.Ctx, key, fmt.Sprintf("%d-%d%s", w, i, value))
				if err != nil {
					t.Failf("put: %v", err)
					return
				}
				mutex.Lock()
				written[response.Header.Revision] = fmt.Sprintf("%d-%d%s", w, i, value)
				mutex.Unlock()
			}
		})
	}
	group.Wait()
	Equal(t, "revisions", len(written), writers*each)
	return written
}

// hears compares events with what was written: each once, ascending, none missing.
func (t *T) hears(what string, events []*clientv3.Event, written map[int64]string, from int64) {
	last, count := from-1, 0
	for revision := range written {
		if revision >= from {
			count++
		}
	}
	for _, event := range events {
		revision := event.Kv.ModRevision
		if revision <= last {
			t.Failf("%s: revision %d after %d", what, revision, last)
		}
		last = revision
		if written[revision] != string(event.Kv.Value) {
			t.Failf("%s: revision %d has %q, written was %q", what, revision,
				brief(event.Kv.Value), brief([]byte(written[revision])))
		}
	}
	Equal(t, what+": events", len(events), count)
}

func loadWriters(t *T) {
	const watchers, writers, each = 20, 8, 150
	var channels []clientv3.WatchChan
	for i := range watchers {
		client := t.Client
		if i%5 == 0 {
			client = t.Connect()
		}
		channels = append(channels, t.WatchWith(client, t.Key(""), clientv3.WithPrefix()))
	}
	written := t.write(writers, each, "")
	for i, channel := range channels {
		t.hears(fmt.Sprintf("watch %d", i), t.Events(channel, writers*each), written, 0)
	}
}

func loadPrefix(t *T) {
	const writers, each = 20, 500
	channel := t.Watch(t.Key(""), clientv3.WithPrefix())
	written := t.write(writers, each, "")
	t.hears("live", t.Events(channel, writers*each), written, 0)
	first := int64(1 << 62)
	for revision := range written {
		first = min(first, revision)
	}
	past := t.Watch(t.Key(""), clientv3.WithPrefix(), clientv3.WithRev(first))
	t.hears("past", t.Events(past, writers*each), written, 0)
}

func loadLate(t *T) {
	const writers, each, watchers = 4, 300, 24
	start := t.Revision() + 1
	type late struct {
		from    int64
		channel clientv3.WatchChan
	}
	var watches []late
	done := make(chan struct{})
	client := t.Connect()
	go func() {
		defer close(done)
		for i := range watchers {
			// Each begins somewhere between the first put and the newest.
			now, err := client.Get(t.Ctx, t.Key("none"))
			if err != nil {
				t.Failf("get: %v", err)
				return
			}
			from := start + (now.Header.Revision-start)*int64(i%4)/4
			channel := client.Watch(t.Ctx, t.Key(""), clientv3.WithPrefix(), clientv3.WithRev(from))
			watches = append(watches, late{from, channel})
		}
	}()
	written := t.write(writers, each, "")
	<-done
	for i, watch := range watches {
		count := 0
		for revision := range written {
			if revision >= watch.from {
				count++
			}
		}
		events := t.Events(watch.channel, count)
		t.hears(fmt.Sprintf("watch %d", i), events, written, watch.from)
	}
}

func loadSlow(t *T) {
	const writers, each = 6, 400
	s := t.streamOf(t.Connect())
	s.created(&pb.WatchCreateRequest{
		Key: []byte(t.Key("")), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(t.Key(""))),
	})
	quick := t.Watch(t.Key(""), clientv3.WithPrefix())
	// Far more than any window takes: nobody reads the slow stream meanwhile.
	written := t.write(writers, each, string(make([]byte, 4096)))
	t.hears("the quick one", t.Events(quick, writers*each), written, 0)
	var events []*clientv3.Event
	for len(events) < writers*each {
		events = append(events, s.next().Events...)
	}
	t.hears("the slow one", events, written, 0)
}

func loadSlowCompacted(t *T) {
	const writers, each = 6, 400
	s := t.streamOf(t.Connect())
	s.created(&pb.WatchCreateRequest{
		Key: []byte(t.Key("")), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(t.Key(""))),
	})
	written := t.write(writers, each, string(make([]byte, 4096)))
	compacted := t.Revision()
	t.compact(compacted)
	first := compacted - int64(len(written)) + 1
	// A prefix of the events without a hole, then either the rest or the compaction.
	next := first
	for next <= compacted {
		response := s.next()
		if response.Canceled {
			Equal(t, "compact_revision", response.CompactRevision, compacted)
			return
		}
		for _, event := range response.Events {
			if event.Kv.ModRevision != next {
				t.Stopf("revision %d, want %d", event.Kv.ModRevision, next)
			}
			t.EqualBytes("value", event.Kv.Value, written[next])
			next++
		}
	}
}
