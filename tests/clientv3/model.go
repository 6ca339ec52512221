package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func modelCases() []testCase {
	return []testCase{
		{"random writes and reads are what a map answers", func(t *T) { runModel(t, 1500) }},
	}
}

type keyValue = mvccpb.KeyValue

// model is the store as maps: one for each revision. It is too simple to be wrong in the same way
// as a tree.
type model struct {
	revision int64
	// compacted is the oldest revision that may be read.
	compacted int64
	states    map[int64]map[string]*keyValue
}

func byKey(a, b *keyValue) int { return bytes.Compare(a.Key, b.Key) }

// next begins a revision as a copy of the current one.
func (m *model) next() map[string]*keyValue {
	state := maps.Clone(m.states[m.revision])
	m.revision++
	m.states[m.revision] = state
	return state
}

func (m *model) put(state map[string]*keyValue, key, value string) {
	kv := &keyValue{Key: []byte(key), Value: []byte(value), ModRevision: m.revision, Version: 1}
	kv.CreateRevision = m.revision
	if old := state[key]; old != nil {
		kv.CreateRevision, kv.Version = old.CreateRevision, old.Version+1
	}
	state[key] = kv
}

// query is a range with all that can be asked of it.
type query struct {
	key, end             string
	revision, limit      int64
	target               clientv3.SortTarget
	order                clientv3.SortOrder
	keysOnly, countOnly  bool
	serializable         bool
	minMod, maxMod       int64
	minCreate, maxCreate int64
}

func (q query) options() []clientv3.OpOption {
	options := []clientv3.OpOption{
		clientv3.WithRange(q.end), clientv3.WithRev(q.revision), clientv3.WithLimit(q.limit),
		clientv3.WithSort(q.target, q.order), clientv3.WithMinModRev(q.minMod),
		clientv3.WithMaxModRev(q.maxMod), clientv3.WithMinCreateRev(q.minCreate),
		clientv3.WithMaxCreateRev(q.maxCreate),
	}
	if q.keysOnly {
		options = append(options, clientv3.WithKeysOnly())
	}
	if q.countOnly {
		options = append(options, clientv3.WithCountOnly())
	}
	if q.serializable {
		options = append(options, clientv3.WithSerializable())
	}
	return options
}

// found is what lies in the range, in key order, and what of it passes the filters.
func (m *model) found(q query) (all, passing []*keyValue) {
	revision := cmp.Or(q.revision, m.revision)
	for _, kv := range m.states[revision] {
		if key := string(kv.Key); key >= q.key && key < q.end {
			all = append(all, kv)
		}
	}
	slices.SortFunc(all, byKey)
	for _, kv := range all {
		if kv.ModRevision >= q.minMod && (q.maxMod == 0 || kv.ModRevision <= q.maxMod) &&
			kv.CreateRevision >= q.minCreate &&
			(q.maxCreate == 0 || kv.CreateRevision <= q.maxCreate) {
			passing = append(passing, kv)
		}
	}
	return all, passing
}

func (q query) compare(a, b *keyValue) int {
	var result int
	switch q.target {
	case clientv3.SortByKey:
		result = bytes.Compare(a.Key, b.Key)
	case clientv3.SortByVersion:
		result = cmp.Compare(a.Version, b.Version)
	case clientv3.SortByCreateRevision:
		result = cmp.Compare(a.CreateRevision, b.CreateRevision)
	case clientv3.SortByModRevision:
		result = cmp.Compare(a.ModRevision, b.ModRevision)
	case clientv3.SortByValue:
		result = bytes.Compare(a.Value, b.Value)
	}
	if q.order == clientv3.SortDescend {
		return -result
	}
	return result
}

// fetchesAll says whether every key of the range is looked at before the limit cuts the answer.
func (q query) fetchesAll() bool {
	return q.order != clientv3.SortNone || q.minMod != 0 || q.maxMod != 0 || q.minCreate != 0 ||
		q.maxCreate != 0
}

// check says how an answer differs from the model's, or nothing. Keys that sort alike may come in
// any order, so places are compared by what they are sorted by.
func (m *model) check(q query, response *clientv3.GetResponse) string {
	all, passing := m.found(q)
	if response.Count != int64(len(all)) {
		return fmt.Sprintf("count %d, want %d", response.Count, len(all))
	}
	if response.Header.Revision != m.revision {
		return fmt.Sprintf("header revision %d, want %d", response.Header.Revision, m.revision)
	}
	if q.countOnly {
		if len(response.Kvs) != 0 || response.More {
			return fmt.Sprintf("count_only has %d keys, more %v", len(response.Kvs), response.More)
		}
		return ""
	}
	want := slices.Clone(passing)
	// Asked for a limit and a target but no order, etcd sorts only the keys that the limit lets it
	// fetch, and it fetches one more to know whether there are more.
	if !q.fetchesAll() && q.limit > 0 && int64(len(want)) > q.limit+1 {
		want = want[:q.limit+1]
	}
	slices.SortStableFunc(want, q.compare)
	if q.limit > 0 && int64(len(want)) > q.limit {
		want = want[:q.limit]
	}
	if len(response.Kvs) != len(want) || response.More != (len(want) < len(passing)) {
		return fmt.Sprintf("%d keys, more %v; want %d of %d", len(response.Kvs), response.More,
			len(want), len(passing))
	}
	known := map[string]*keyValue{}
	for _, kv := range passing {
		known[string(kv.Key)] = kv
	}
	for i, got := range response.Kvs {
		kv := known[string(got.Key)]
		delete(known, string(got.Key))
		if kv == nil {
			return fmt.Sprintf("place %d holds %q, which should not be there or was there", i, got.Key)
		}
		value := kv.Value
		if q.keysOnly {
			value = nil
		}
		if !bytes.Equal(got.Value, value) || got.ModRevision != kv.ModRevision ||
			got.CreateRevision != kv.CreateRevision || got.Version != kv.Version {
			return fmt.Sprintf("place %d: got %v, want %v", i, got, kv)
		}
		if q.compare(kv, want[i]) != 0 {
			return fmt.Sprintf("place %d holds %v, want %v", i, kv, want[i])
		}
	}
	return ""
}

func runModel(t *T, steps int) {
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	m := &model{states: map[int64]map[string]*keyValue{}}
	m.revision = t.Revision()
	m.compacted = m.revision
	m.states[m.revision] = map[string]*keyValue{}
	key := func() string { return t.Key(fmt.Sprintf("%02d", random.IntN(40))) }
	for step := range steps {
		switch choice := random.IntN(100); {
		case choice < 30:
			name, value := key(), fmt.Sprint(random.IntN(20))
			m.put(m.next(), name, value)
			Equal(t, "revision of a put", t.Put(name, value), m.revision)
		case choice < 38:
			m.deleteRange(t, key(), key())
		case choice < 46:
			m.txn(t, random, key)
		case choice < 48:
			m.compact(t, random)
		default:
			q := m.randomQuery(random, key)
			response, err := t.Client.Get(t.Ctx, q.key, q.options()...)
			if err != nil {
				t.Stopf("seed %d, step %d: %+v: %v", seed, step, q, err)
			}
			if problem := m.check(q, response); problem != "" {
				t.Stopf("seed %d, step %d: %+v: %s", seed, step, q, problem)
			}
		}
		if len(t.failures) > 0 {
			t.Stopf("seed %d, step %d: see above", seed, step)
		}
	}
}

func (m *model) randomQuery(random *rand.Rand, key func() string) query {
	revision := func() int64 {
		return m.compacted + random.Int64N(m.revision-m.compacted+1)
	}
	maybe := func(value func() int64) int64 {
		if random.IntN(4) > 0 {
			return 0
		}
		return value()
	}
	q := query{
		key: key(), end: key(),
		revision:     maybe(revision),
		limit:        maybe(func() int64 { return random.Int64N(12) }),
		target:       clientv3.SortTarget(random.IntN(5)),
		order:        clientv3.SortOrder(random.IntN(3)),
		keysOnly:     random.IntN(6) == 0,
		countOnly:    random.IntN(6) == 0,
		serializable: random.IntN(2) == 0,
		minMod:       maybe(revision), maxMod: maybe(revision),
		minCreate: maybe(revision), maxCreate: maybe(revision),
	}
	if random.IntN(2) == 0 {
		q.target, q.order = clientv3.SortByKey, clientv3.SortNone
	}
	return q
}

func (m *model) deleteRange(t *T, from, end string) {
	all, _ := m.found(query{key: from, end: end})
	if len(all) > 0 {
		state := m.next()
		for _, kv := range all {
			delete(state, string(kv.Key))
		}
	}
	response := t.Delete(from, clientv3.WithRange(end), clientv3.WithPrevKV())
	Equal(t, "deleted", response.Deleted, int64(len(all)))
	Equal(t, "revision of a delete", response.Header.Revision, m.revision)
	for i, kv := range response.PrevKvs {
		if i < len(all) && (!bytes.Equal(kv.Key, all[i].Key) || !bytes.Equal(kv.Value, all[i].Value)) {
			t.Failf("previous value %d: got %v, want %v", i, kv, all[i])
		}
	}
}

// txn changes several keys at once, when one of them is what the model says.
func (m *model) txn(t *T, random *rand.Rand, key func() string) {
	guard := key()
	var version int64
	if kv := m.states[m.revision][guard]; kv != nil {
		version = kv.Version
	}
	holds := random.IntN(3) > 0
	if !holds {
		version++
	}
	names := map[string]string{}
	for range 1 + random.IntN(5) {
		names[key()] = fmt.Sprint(random.IntN(20))
	}
	var ops []clientv3.Op
	for name, value := range names {
		ops = append(ops, clientv3.OpPut(name, value))
	}
	other := key()
	if holds {
		state := m.next()
		for name, value := range names {
			m.put(state, name, value)
		}
	} else if m.states[m.revision][other] != nil {
		delete(m.next(), other)
	}
	response, err := t.Client.Txn(t.Ctx).
		If(clientv3.Compare(clientv3.Version(guard), "=", version)).
		Then(ops...).Else(clientv3.OpDelete(other)).Commit()
	t.NoError(err, "txn")
	Equal(t, "succeeded", response.Succeeded, holds)
	Equal(t, "revision of a txn", response.Header.Revision, m.revision)
}

func (m *model) compact(t *T, random *rand.Rand) {
	revision := m.compacted + random.Int64N(m.revision-m.compacted+1)
	_, err := t.Client.Compact(t.Ctx, revision)
	// Whether the first revision was compacted by an earlier case is not the model's to know.
	if revision > m.compacted {
		t.NoError(err, "compact %d", revision)
	}
	for old := m.compacted; old < revision; old++ {
		delete(m.states, old)
	}
	m.compacted = revision
	_, err = t.Client.Get(t.Ctx, t.Key(""), clientv3.WithRev(revision-1))
	if revision > 1 && err == nil {
		_, again := t.Client.Compact(t.Ctx, revision)
		t.Failf("revision %d is read after compaction at %d (again: %v)", revision-1, revision, again)
	} else if revision > 1 {
		t.WantError("read below the compaction", err, rpctypes.ErrCompacted)
	}
}
