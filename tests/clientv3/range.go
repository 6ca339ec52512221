package main

import (
	"fmt"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
)

func rangeCases() []testCase {
	return []testCase{
		{"ranges begin at the key and end before the end", rangeBounds},
		{"a limit cuts, says more and leaves the count", rangeLimit},
		{"count_only has a count and no keys", rangeCountOnly},
		{"keys_only has all but the value", rangeKeysOnly},
		{"every sort target goes both ways", rangeSorts},
		{"a sort comes before the limit", rangeSortLimit},
		{"revisions filter what is listed, not what is counted", rangeFilters},
		{"every revision since the first can be read", rangeRevisions},
		{"a long list in pages is the list", rangePages},
		{"serializable reads answer the same", rangeSerializable},
		{"what cannot be sorted by is refused", rangeSortInvalid},
		{"one answer may hold many megabytes", rangeLarge},
	}
}

func rangeBounds(t *T) {
	for _, name := range strings.Fields("a aa ab b c ca d") {
		t.Put(t.Key(name), name)
	}
	above := clientv3.WithRange(clientv3.GetPrefixRangeEnd(t.Key("")))
	for _, row := range []struct {
		from   string
		option clientv3.OpOption
		want   string
	}{
		{"a", clientv3.WithRange(t.Key("c")), "a aa ab b"},
		{"a", clientv3.WithRange(t.Key("a\x00")), "a"},
		{"a", clientv3.WithRange(t.Key("ab")), "a aa"},
		{"aaa", clientv3.WithRange(t.Key("b")), "ab"},
		{"c", clientv3.WithRange(t.Key("a")), ""},
		{"c", clientv3.WithRange(t.Key("c")), ""},
		{"a", clientv3.WithPrefix(), "a aa ab"},
		{"c", clientv3.WithPrefix(), "c ca"},
		{"x", clientv3.WithPrefix(), ""},
		{"", clientv3.WithPrefix(), "a aa ab b c ca d"},
		{"b", above, "b c ca d"},
	} {
		response := t.Get(t.Key(row.from), row.option)
		Equal(t, "range from "+row.from, t.Keys(response), row.want)
		Equal(t, "its count", response.Count, int64(len(strings.Fields(row.want))))
	}
	// Other cases' keys may follow ours; ours must be where they belong.
	all := t.Get("\x00", clientv3.WithFromKey())
	tail := t.Get(t.Key("c"), clientv3.WithFromKey())
	t.Check(all.Count >= 7 && tail.Count >= 3, "from a key on: %d and %d", all.Count, tail.Count)
	for _, response := range []*clientv3.GetResponse{all, tail} {
		t.Check(slices.IsSortedFunc(response.Kvs, byKey), "all keys are not in order")
		Equal(t, "count of all keys", response.Count, int64(len(response.Kvs)))
	}
	everything := t.Get("", clientv3.WithPrefix())
	Equal(t, "the empty prefix", everything.Count, all.Count)
}

func rangeLimit(t *T) {
	for i := range 10 {
		t.Put(t.Key(fmt.Sprint(i)), "v")
	}
	for limit := int64(0); limit <= 12; limit++ {
		response := t.Get(t.Key(""), clientv3.WithPrefix(), clientv3.WithLimit(limit))
		want := 10
		if limit > 0 {
			want = int(min(limit, 10))
		}
		what := fmt.Sprintf("limit %d: ", limit)
		Equal(t, what+"keys", len(response.Kvs), want)
		Equal(t, what+"more", response.More, want < 10)
		Equal(t, what+"count", response.Count, 10)
	}
}

func rangeCountOnly(t *T) {
	first := t.Put(t.Key("a"), "1")
	t.Put(t.Key("b"), "2")
	t.Delete(t.Key("a"))
	t.Put(t.Key("c"), "3")
	prefix, count := clientv3.WithPrefix(), clientv3.WithCountOnly()
	response := t.Get(t.Key(""), prefix, count)
	Equal(t, "keys", len(response.Kvs), 0)
	Equal(t, "count", response.Count, 2)
	Equal(t, "more", response.More, false)
	Equal(t, "count with a limit", t.Get(t.Key(""), prefix, count, clientv3.WithLimit(1)).Count, 2)
	Equal(t, "count of old", t.Get(t.Key(""), prefix, count, clientv3.WithRev(first)).Count, 1)
	Equal(t, "count before", t.Get(t.Key(""), prefix, count, clientv3.WithRev(first-1)).Count, 0)
	Equal(t, "count of one", t.Get(t.Key("b"), count).Count, 1)
	Equal(t, "count of none", t.Get(t.Key("a"), count).Count, 0)
}

func rangeKeysOnly(t *T) {
	t.Put(t.Key("k"), "0")
	t.Put(t.Key("k"), "value")
	full := t.Get(t.Key("k")).Kvs[0]
	kv := t.Get(t.Key("k"), clientv3.WithKeysOnly()).Kvs[0]
	Equal(t, "value", string(kv.Value), "")
	t.EqualBytes("key", kv.Key, string(full.Key))
	Equal(t, "mod_revision", kv.ModRevision, full.ModRevision)
	Equal(t, "create_revision", kv.CreateRevision, full.CreateRevision)
	Equal(t, "version", kv.Version, full.Version)
}

func rangeSorts(t *T) {
	// No two of a column are equal: where they are, etcd's order is any.
	for _, name := range strings.Fields("d b a c c a c d d a d d") {
		t.Put(t.Key(name), "")
	}
	t.Put(t.Key("b"), "w")
	t.Put(t.Key("a"), "z")
	t.Put(t.Key("c"), "x")
	t.Put(t.Key("d"), "y")
	// create: d b a c; mod: b a c d; version: b 2, a 4, c 4, d 6; value: b w, c x, d y, a z
	t.Put(t.Key("a"), "z")
	// mod: b c d a; version: b 2, c 4, a 5, d 6
	for _, row := range []struct {
		name   string
		target clientv3.SortTarget
		want   string
	}{
		{"key", clientv3.SortByKey, "a b c d"},
		{"create revision", clientv3.SortByCreateRevision, "d b a c"},
		{"mod revision", clientv3.SortByModRevision, "b c d a"},
		{"version", clientv3.SortByVersion, "b c a d"},
		{"value", clientv3.SortByValue, "b c d a"},
	} {
		reversed := strings.Fields(row.want)
		slices.Reverse(reversed)
		for order, want := range map[clientv3.SortOrder]string{
			clientv3.SortNone:    row.want,
			clientv3.SortAscend:  row.want,
			clientv3.SortDescend: strings.Join(reversed, " "),
		} {
			response := t.Get(t.Key(""), clientv3.WithPrefix(), clientv3.WithSort(row.target, order))
			Equal(t, fmt.Sprintf("%s, order %d", row.name, order), t.Keys(response), want)
		}
	}
}

func rangeSortLimit(t *T) {
	for _, name := range strings.Fields("c a d b") {
		t.Put(t.Key(name), "")
	}
	for name, options := range map[string][]clientv3.OpOption{
		"c": clientv3.WithFirstCreate(), "b": clientv3.WithLastCreate(),
		"a": clientv3.WithFirstKey(), "d": clientv3.WithLastKey(),
	} {
		response := t.Get(t.Key(""), options...)
		Equal(t, "first or last", t.Keys(response), name)
		Equal(t, "count", response.Count, 4)
		Equal(t, "more", response.More, true)
	}
	t.Put(t.Key("a"), "")
	Equal(t, "last changed", t.Keys(t.Get(t.Key(""), clientv3.WithLastRev()...)), "a")
	Equal(t, "first changed", t.Keys(t.Get(t.Key(""), clientv3.WithFirstRev()...)), "c")
}

func rangeFilters(t *T) {
	a := t.Put(t.Key("a"), "")
	b := t.Put(t.Key("b"), "")
	c := t.Put(t.Key("c"), "")
	a2 := t.Put(t.Key("a"), "")
	for _, row := range []struct {
		name    string
		options []clientv3.OpOption
		want    string
	}{
		{"min mod", []clientv3.OpOption{clientv3.WithMinModRev(c)}, "a c"},
		{"max mod", []clientv3.OpOption{clientv3.WithMaxModRev(c)}, "b c"},
		{"both mod", []clientv3.OpOption{clientv3.WithMinModRev(c), clientv3.WithMaxModRev(c)}, "c"},
		{"min create", []clientv3.OpOption{clientv3.WithMinCreateRev(b)}, "b c"},
		{"max create", []clientv3.OpOption{clientv3.WithMaxCreateRev(b)}, "a b"},
		{"create and mod", []clientv3.OpOption{
			clientv3.WithMaxCreateRev(a), clientv3.WithMinModRev(a2)}, "a"},
		{"none", []clientv3.OpOption{clientv3.WithMinModRev(a2 + 1)}, ""},
		{"old and filtered", []clientv3.OpOption{
			clientv3.WithRev(c), clientv3.WithMinModRev(b)}, "b c"},
	} {
		options := append(row.options, clientv3.WithPrefix())
		response := t.Get(t.Key(""), options...)
		Equal(t, row.name, t.Keys(response), row.want)
		Equal(t, row.name+": count", response.Count, 3)
		Equal(t, row.name+": more", response.More, false)
		limited := t.Get(t.Key(""), append(options, clientv3.WithLimit(1))...)
		want := strings.Fields(row.want)
		Equal(t, row.name+": more of the limited", limited.More, len(want) > 1)
		Equal(t, row.name+": limited", t.Keys(limited), strings.Join(want[:min(1, len(want))], ""))
	}
}

func rangeRevisions(t *T) {
	before := t.Revision()
	const writes = 60
	want := []string{""}
	live := map[string]string{}
	for i := range writes {
		name := string(rune('a' + i%7))
		if i%5 == 4 {
			if _, err := t.Client.Delete(t.Ctx, t.Key(name)); err != nil {
				t.Stopf("delete: %v", err)
			}
			if _, there := live[name]; !there {
				continue
			}
			delete(live, name)
		} else {
			t.Put(t.Key(name), fmt.Sprint(i))
			live[name] = fmt.Sprint(i)
		}
		want = append(want, listing(live))
	}
	for i, listed := range want {
		response := t.Get(t.Key(""), clientv3.WithPrefix(), clientv3.WithRev(before+int64(i)))
		got := map[string]string{}
		for _, kv := range response.Kvs {
			got[t.Short(kv.Key)] = string(kv.Value)
		}
		Equal(t, fmt.Sprintf("revision %d after the first", i), listing(got), listed)
		Equal(t, "header", response.Header.Revision, before+int64(len(want)-1))
	}
	_, err := t.Client.Get(t.Ctx, t.Key("a"), clientv3.WithRev(before+int64(len(want))))
	t.WantError("one past the last", err, rpctypes.ErrFutureRev)
}

func listing(entries map[string]string) string {
	words := make([]string, 0, len(entries))
	for key, value := range entries {
		words = append(words, key+"="+value)
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

func rangePages(t *T) {
	const keys, page = 3000, 97
	fillKeys(t, keys)
	revision := t.Revision()
	var listed []string
	from := t.Key("")
	end := clientv3.WithRange(clientv3.GetPrefixRangeEnd(t.Key("")))
	for {
		// Writes between the pages must not show in a list of one revision.
		t.Put(t.Key(fmt.Sprintf("%06d", 5*len(listed)+1)+"x"), "late")
		response := t.Get(from, end, clientv3.WithLimit(page), clientv3.WithRev(revision))
		for _, kv := range response.Kvs {
			listed = append(listed, t.Short(kv.Key))
		}
		Equal(t, "count of what is left", response.Count, int64(keys-len(listed)+len(response.Kvs)))
		if !response.More {
			break
		}
		from = string(response.Kvs[len(response.Kvs)-1].Key) + "\x00"
	}
	Equal(t, "listed", len(listed), keys)
	for i, name := range listed {
		if name != fmt.Sprintf("%06d", i) {
			t.Stopf("place %d holds %q", i, name)
		}
	}
}

// fillKeys puts keys 000000, 000001, ... in transactions of a hundred.
func fillKeys(t *T, count int) {
	for start := 0; start < count; start += 100 {
		var ops []clientv3.Op
		for i := start; i < min(start+100, count); i++ {
			ops = append(ops, clientv3.OpPut(t.Key(fmt.Sprintf("%06d", i)), fmt.Sprint(i)))
		}
		_, err := t.Client.Txn(t.Ctx).Then(ops...).Commit()
		t.NoError(err, "fill")
	}
}

func rangeSerializable(t *T) {
	revision := t.Put(t.Key("a"), "1")
	t.Put(t.Key("b"), "2")
	for _, options := range [][]clientv3.OpOption{
		{clientv3.WithPrefix()}, {clientv3.WithPrefix(), clientv3.WithRev(revision)},
		{clientv3.WithPrefix(), clientv3.WithCountOnly()}, {clientv3.WithPrefix(), clientv3.WithLimit(1)},
	} {
		linear := t.Get(t.Key(""), options...)
		local := t.Get(t.Key(""), append(options, clientv3.WithSerializable())...)
		Equal(t, "keys", t.Keys(local), t.Keys(linear))
		Equal(t, "count", local.Count, linear.Count)
		Equal(t, "more", local.More, linear.More)
	}
	_, err := t.Client.Get(t.Ctx, t.Key("a"), clientv3.WithSerializable(), clientv3.WithRev(1<<40))
	t.WantError("future", err, rpctypes.ErrFutureRev)
}

func rangeSortInvalid(t *T) {
	kv := pb.NewKVClient(t.Client.ActiveConnection())
	for _, request := range []*pb.RangeRequest{
		{Key: []byte("k"), SortOrder: 3}, {Key: []byte("k"), SortTarget: 5},
		{Key: []byte("k"), SortOrder: -1}, {Key: []byte("k"), SortTarget: -1},
	} {
		_, err := kv.Range(t.Ctx, request)
		t.WantStatus(fmt.Sprint(request), err, codes.InvalidArgument, "etcdserver: invalid sort option")
	}
}

func rangeLarge(t *T) {
	const keys, size = 24, 1 << 20
	for i := range keys {
		t.Put(t.Key(fmt.Sprintf("%02d", i)), strings.Repeat(string(rune('a'+i)), size))
	}
	response := t.Get(t.Key(""), clientv3.WithPrefix())
	Equal(t, "keys", len(response.Kvs), keys)
	for i, kv := range response.Kvs {
		if len(kv.Value) != size || strings.Trim(string(kv.Value), string(rune('a'+i))) != "" {
			t.Failf("value %d is not what was put: %d bytes", i, len(kv.Value))
		}
	}
	t.Delete(t.Key(""), clientv3.WithPrefix())
}
