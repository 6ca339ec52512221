package main

import (
	"context"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func watchCases() []testCase {
	return []testCase{
		{"events tell what happened, in order", watchOrder},
		{"the past is told before the present", watchHistory},
		{"a start in the future waits for it", watchFuture},
		{"a start below the compaction is refused with its revision", watchCompacted},
		{"prev_kv is the value before, while it is known", watchPrevious},
		{"filters leave out puts or deletes", watchFilters},
		{"ranges, prefixes and all that follows are watched", watchRanges},
		{"the changes of one revision come together", watchTogether},
		{"created_notify comes first", watchCreated},
		{"progress that is asked for is told", watchProgress},
		{"progress comes by itself to those who want it", watchProgressNotify},
		{"a cancelled watch leaves the others alone", watchCancel},
		{"a thousand watches on one stream get their own", watchMany},
		{"watches on many streams get the same", watchStreams},
		{"an impossible range is cancelled", watchImpossible},
		{"a write and its event are one", watchAfterWrite},
	}
}

// Watch begins a watch that is certain to see what is written after it.
func (t *T) Watch(key string, options ...clientv3.OpOption) clientv3.WatchChan {
	return t.WatchWith(t.Client, key, options...)
}

// WatchWith is Watch on another client. It waits for the creation, so that the server has begun.
func (t *T) WatchWith(
	client *clientv3.Client, key string, options ...clientv3.OpOption,
) clientv3.WatchChan {
	channel := client.Watch(t.Ctx, key, append(options, clientv3.WithCreatedNotify())...)
	response := t.Next(channel)
	if !response.Created || response.Canceled {
		t.Stopf("watch of %s was not created: %v", t.Short([]byte(key)), response.Err())
	}
	return channel
}

// Next is the channel's next response.
func (t *T) Next(channel clientv3.WatchChan) clientv3.WatchResponse {
	select {
	case response, open := <-channel:
		if !open {
			t.Stopf("the watch ended")
		}
		return response
	case <-t.Ctx.Done():
		t.Stopf("no event came")
		panic("not reached")
	}
}

// Events gathers a number of events. All must be of good responses, and ascend.
func (t *T) Events(channel clientv3.WatchChan, count int) []*clientv3.Event {
	var events []*clientv3.Event
	last := int64(0)
	for len(events) < count {
		response := t.Next(channel)
		if err := response.Err(); err != nil {
			t.Stopf("the watch ended after %d of %d events: %v", len(events), count, err)
		}
		for _, event := range response.Events {
			t.Check(event.Kv.ModRevision >= last, "revision %d after %d", event.Kv.ModRevision, last)
			last = event.Kv.ModRevision
		}
		if len(response.Events) > 0 {
			t.Check(response.Header.Revision >= last, "header %d, event %d", response.Header.Revision, last)
		}
		events = append(events, response.Events...)
	}
	if len(events) > count {
		t.Stopf("%d events, want %d; the first too many: %s", len(events), count, t.Show(events[count]))
	}
	return events
}

// Show is an event as a word: +key=value for a put, -key for a delete.
func (t *T) Show(event *clientv3.Event) string {
	if event.Type == clientv3.EventTypeDelete {
		return "-" + t.Short(event.Kv.Key)
	}
	return fmt.Sprintf("+%s=%s", t.Short(event.Kv.Key), brief(event.Kv.Value))
}

// Told gathers as many events as there are words and compares.
func (t *T) Told(what string, channel clientv3.WatchChan, want string) []*clientv3.Event {
	events := t.Events(channel, len(strings.Fields(want)))
	words := make([]string, len(events))
	for i, event := range events {
		words[i] = t.Show(event)
	}
	Equal(t, what, strings.Join(words, " "), want)
	return events
}

func watchOrder(t *T) {
	channel := t.Watch(t.Key("k"))
	first := t.Put(t.Key("k"), "1")
	t.Put(t.Key("other"), "x")
	t.Put(t.Key("k"), "2")
	deleted := t.Delete(t.Key("k")).Header.Revision
	t.Put(t.Key("k"), "")
	events := t.Told("events", channel, "+k=1 +k=2 -k +k=")
	Equal(t, "first mod_revision", events[0].Kv.ModRevision, first)
	Equal(t, "create_revision of the second", events[1].Kv.CreateRevision, first)
	Equal(t, "version of the second", events[1].Kv.Version, 2)
	t.Check(events[0].IsCreate() && events[1].IsModify(), "create and modify are mistaken")
	tombstone := events[2].Kv
	Equal(t, "tombstone's mod_revision", tombstone.ModRevision, deleted)
	t.Check(tombstone.CreateRevision == 0 && tombstone.Version == 0 && len(tombstone.Value) == 0,
		"a tombstone has more than key and revision: %v", tombstone)
	t.Check(events[0].PrevKv == nil && events[1].PrevKv == nil, "prev_kv without being asked")
}

func watchHistory(t *T) {
	first := t.Put(t.Key("a"), "1")
	t.Put(t.Key("b"), "2")
	t.Put(t.Key("a"), "3")
	t.Delete(t.Key("b"))
	want := strings.Fields("+a=1 +b=2 +a=3 -b +c=4")
	var channels []clientv3.WatchChan
	for i := range want {
		options := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithRev(first + int64(i))}
		channels = append(channels, t.Watch(t.Key(""), options...))
	}
	t.Put(t.Key("c"), "4")
	for i, channel := range channels {
		t.Told(fmt.Sprintf("from %d on", i), channel, strings.Join(want[i:], " "))
	}
	one := t.Watch(t.Key("a"), clientv3.WithRev(first))
	t.Told("one key", one, "+a=1 +a=3")
	t.Put(t.Key("b"), "5")
	t.Put(t.Key("a"), "6")
	t.Told("then live", one, "+a=6")
}

func watchFuture(t *T) {
	now := t.Revision()
	channel := t.Watch(t.Key("k"), clientv3.WithRev(now+4))
	live := t.Watch(t.Key("k"), clientv3.WithRev(now+1))
	for i := range 6 {
		t.Put(t.Key("k"), fmt.Sprint(i))
	}
	t.Told("future", channel, "+k=3 +k=4 +k=5")
	t.Told("next", live, "+k=0 +k=1 +k=2 +k=3 +k=4 +k=5")
}

func watchCompacted(t *T) {
	first := t.Put(t.Key("k"), "0")
	for i := 1; i < 6; i++ {
		t.Put(t.Key("k"), fmt.Sprint(i))
	}
	t.compact(first + 3)
	for start := first; start < first+3; start++ {
		channel := t.Client.Watch(t.Ctx, t.Key("k"), clientv3.WithRev(start))
		response := t.Next(channel)
		Equal(t, "compact_revision", response.CompactRevision, first+3)
		Equal(t, "canceled", response.Canceled, true)
		t.WantError("error", response.Err(), rpctypes.ErrCompacted)
		if _, open := <-channel; open {
			t.Failf("a cancelled watch goes on")
		}
	}
	t.Told("at the compaction", t.Watch(t.Key("k"), clientv3.WithRev(first+3)), "+k=3 +k=4 +k=5")
}

func watchPrevious(t *T) {
	t.Put(t.Key("k"), "1")
	channel := t.Watch(t.Key("k"), clientv3.WithPrevKV())
	first := t.Put(t.Key("k"), "2")
	t.Delete(t.Key("k"))
	t.Put(t.Key("k"), "3")
	t.Put(t.Key("k"), "4", clientv3.WithLease(0))
	previous := func(events []*clientv3.Event) string {
		var words []string
		for _, event := range events {
			word := "none"
			if event.PrevKv != nil {
				word = string(event.PrevKv.Value)
			}
			words = append(words, word)
		}
		return strings.Join(words, " ")
	}
	live := t.Told("live", channel, "+k=2 -k +k=3 +k=4")
	Equal(t, "values before", previous(live), "1 2 none 3")
	deleted := live[1].PrevKv
	t.Check(deleted != nil && deleted.ModRevision == first && deleted.Version == 2,
		"value before the delete: %v", deleted)
	past := t.Watch(t.Key("k"), clientv3.WithPrevKV(), clientv3.WithRev(first))
	told := t.Told("past", past, "+k=2 -k +k=3 +k=4")
	Equal(t, "values before, in the past", previous(told), "1 2 none 3")

	t.compact(first)
	cut := t.Watch(t.Key("k"), clientv3.WithPrevKV(), clientv3.WithRev(first))
	told = t.Told("compacted", cut, "+k=2 -k +k=3 +k=4")
	Equal(t, "values before, compacted", previous(told), "none 2 none 3")
}

func watchFilters(t *T) {
	first := t.Revision() + 1
	puts := t.Watch(t.Key("k"), clientv3.WithFilterDelete())
	deletes := t.Watch(t.Key("k"), clientv3.WithFilterPut())
	end := t.Watch(t.Key("k"), clientv3.WithFilterPut(), clientv3.WithFilterDelete())
	t.Put(t.Key("k"), "1")
	t.Delete(t.Key("k"))
	t.Put(t.Key("k"), "2")
	t.Delete(t.Key("k"))
	t.Put(t.Key("k"), "3")
	t.Told("no deletes", puts, "+k=1 +k=2 +k=3")
	t.Told("no puts", deletes, "-k -k")
	t.Told("no deletes in the past", t.Watch(t.Key("k"), clientv3.WithRev(first),
		clientv3.WithFilterDelete()), "+k=1 +k=2 +k=3")
	t.Told("no puts in the past", t.Watch(t.Key("k"), clientv3.WithRev(first),
		clientv3.WithFilterPut()), "-k -k")
	select {
	case response := <-end:
		t.Failf("a watch without puts and deletes got %v", response)
	default:
	}
}

func watchRanges(t *T) {
	high := "\xff" + t.prefix
	key := t.Watch(t.Key("b"))
	ranged := t.Watch(t.Key("b"), clientv3.WithRange(t.Key("d")))
	prefix := t.Watch(t.Key("b"), clientv3.WithPrefix())
	from := t.Watch(high+"b", clientv3.WithFromKey())
	for _, name := range strings.Fields("a b ba c d") {
		t.Put(t.Key(name), "")
		t.Put(high+name, "")
	}
	t.Delete(t.Key(""), clientv3.WithPrefix())
	t.Delete(high, clientv3.WithPrefix())
	t.Told("key", key, "+b= -b")
	t.Told("range", ranged, "+b= +ba= +c= -b -ba -c")
	t.Told("prefix", prefix, "+b= +ba= -b -ba")
	events := t.Events(from, 8)
	t.EqualBytes("first from a key on", events[0].Kv.Key, high+"b")
	t.EqualBytes("last from a key on", events[7].Kv.Key, high+"d")
}

func watchTogether(t *T) {
	t.Put(t.Key("x"), "")
	start := t.Revision() + 1
	live := t.Watch(t.Key(""), clientv3.WithPrefix())
	var ops []clientv3.Op
	for i := range txnOpsMax - 1 {
		ops = append(ops, clientv3.OpPut(t.Key(fmt.Sprintf("%03d", i)), ""))
	}
	ops = append(ops, clientv3.OpDelete(t.Key("x")))
	t.commit(t.Client.Txn(t.Ctx).Then(ops...))
	past := t.Watch(t.Key(""), clientv3.WithPrefix(), clientv3.WithRev(start))
	for name, channel := range map[string]clientv3.WatchChan{"live": live, "past": past} {
		response := t.Next(channel)
		Equal(t, name+": events in the response", len(response.Events), txnOpsMax)
		Equal(t, name+": header", response.Header.Revision, start)
		for i, event := range response.Events {
			Equal(t, name+": revision", event.Kv.ModRevision, start)
			want := "-x"
			if i < txnOpsMax-1 {
				want = fmt.Sprintf("+%03d=", i)
			}
			Equal(t, name+": event in the order of the txn", t.Show(event), want)
		}
	}
}

func watchCreated(t *T) {
	start := t.Put(t.Key("k"), "1")
	channel := t.Client.Watch(t.Ctx, t.Key("k"), clientv3.WithCreatedNotify(), clientv3.WithRev(start))
	response := t.Next(channel)
	Equal(t, "created", response.Created, true)
	Equal(t, "events beside it", len(response.Events), 0)
	Equal(t, "revision", response.Header.Revision, start)
	t.Told("then the past", channel, "+k=1")
	silent := t.Client.Watch(t.Ctx, t.Key("k"), clientv3.WithRev(start))
	first := t.Next(silent)
	t.Check(!first.Created && len(first.Events) == 1, "first response: %v", first)
}

// RequestProgress reaches all watches of the stream; the client hands it to each channel.
func watchProgress(t *T) {
	channel := t.Watch(t.Key("k"))
	other := t.Watch(t.Key("l"))
	revision := t.Put(t.Key("unwatched"), "x")
	// Asked until told: a watch that is not yet synced is answered with silence.
	told := make(chan clientv3.WatchResponse, 1)
	go func() { told <- <-channel }()
	for asking := true; asking; {
		t.NoError(t.Client.RequestProgress(t.Ctx), "request progress")
		select {
		case response := <-told:
			asking = false
			t.Check(response.IsProgressNotify(), "not progress: %v", response)
			t.Check(response.Header.Revision >= revision, "progress %d, put %d",
				response.Header.Revision, revision)
		case <-t.Ctx.Done():
			t.Stopf("no progress")
		default:
			// A round trip, so that asking does not outrun answering.
			t.Get(t.Key("k"))
		}
	}
	response := t.Next(other)
	t.Check(response.IsProgressNotify(), "the other watch: %v", response)
	// Nothing that progress has spoken for may come after it.
	put := t.Put(t.Key("k"), "1")
	for {
		response := t.Next(channel)
		if response.IsProgressNotify() {
			t.Check(response.Header.Revision < put, "progress %d before its event %d",
				response.Header.Revision, put)
			continue
		}
		Equal(t, "event", t.Show(response.Events[0]), "+k=1")
		break
	}
}

// The server's interval is ten minutes; it has to be started with a short one for this case.
func watchProgressNotify(t *T) {
	channel := t.Watch(t.Key("k"), clientv3.WithProgressNotify())
	revision := t.Put(t.Key("unwatched"), "x")
	for told := 0; told < 2; {
		response := t.Next(channel)
		t.Check(response.IsProgressNotify(), "not progress: %v", response)
		if response.Header.Revision >= revision {
			told++
		}
	}
	t.Put(t.Key("k"), "1")
	for {
		response := t.Next(channel)
		if !response.IsProgressNotify() {
			Equal(t, "event", t.Show(response.Events[0]), "+k=1")
			return
		}
	}
}

func watchCancel(t *T) {
	ctx, cancel := context.WithCancel(t.Ctx)
	stopped := t.Client.Watch(ctx, t.Key("k"), clientv3.WithCreatedNotify())
	t.Next(stopped)
	going := t.Watch(t.Key("k"))
	t.Put(t.Key("k"), "1")
	t.Told("before", stopped, "+k=1")
	cancel()
	for range stopped {
		// The channel is closed; an event on its way may still be in it.
	}
	t.Put(t.Key("k"), "2")
	t.Told("the other", going, "+k=1 +k=2")
	again := t.Watch(t.Key("k"))
	t.Put(t.Key("k"), "3")
	t.Told("a new one", again, "+k=3")
}

func watchMany(t *T) {
	const watches = 1000
	channels := make([]clientv3.WatchChan, watches)
	for i := range channels {
		channels[i] = t.Client.Watch(t.Ctx, t.Key(fmt.Sprintf("%04d", i)), clientv3.WithCreatedNotify())
	}
	all := t.Watch(t.Key(""), clientv3.WithPrefix())
	for i, channel := range channels {
		t.Check(t.Next(channel).Created, "watch %d was not created", i)
	}
	for round := range 2 {
		for start := 0; start < watches; start += 100 {
			var ops []clientv3.Op
			for i := range 100 {
				name := t.Key(fmt.Sprintf("%04d", start+i))
				ops = append(ops, clientv3.OpPut(name, fmt.Sprint(round)))
			}
			t.commit(t.Client.Txn(t.Ctx).Then(ops...))
		}
	}
	for i, channel := range channels {
		t.Told("events", channel, fmt.Sprintf("+%04d=0 +%04d=1", i, i))
	}
	t.Events(all, 2*watches)
}

func watchStreams(t *T) {
	const clients, watches = 8, 10
	var channels []clientv3.WatchChan
	for range clients {
		client := t.Connect()
		for range watches {
			channels = append(channels, t.WatchWith(client, t.Key(""), clientv3.WithPrefix()))
		}
	}
	var want []string
	for i := range 50 {
		name := fmt.Sprint(i % 7)
		t.Put(t.Key(name), fmt.Sprint(i))
		want = append(want, fmt.Sprintf("+%s=%d", name, i))
	}
	for i, channel := range channels {
		t.Told(fmt.Sprintf("watch %d", i), channel, strings.Join(want, " "))
	}
}

func watchImpossible(t *T) {
	for _, end := range []string{"a", "b"} {
		channel := t.Client.Watch(t.Ctx, t.Key("b"), clientv3.WithRange(t.Key(end)))
		response := t.Next(channel)
		Equal(t, "canceled", response.Canceled, true)
		t.Check(response.Err() != nil && strings.Contains(response.Err().Error(),
			"mvcc: watcher range is empty"), "error: %v", response.Err())
	}
	t.Told("the stream goes on", t.Watch(t.Key("k"), clientv3.WithRev(t.Put(t.Key("k"), "1"))), "+k=1")
}

// What a client has been told to be written can be read at once at the revision of its event.
func watchAfterWrite(t *T) {
	channel := t.Watch(t.Key("k"))
	for i := range 100 {
		put := t.Put(t.Key("k"), fmt.Sprint(i))
		events := t.Events(channel, 1)
		Equal(t, "revision", events[0].Kv.ModRevision, put)
		response := t.Get(t.Key("k"), clientv3.WithSerializable())
		t.EqualBytes("value after its event", response.Kvs[0].Value, fmt.Sprint(i))
	}
}
