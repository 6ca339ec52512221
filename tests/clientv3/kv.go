package main

import (
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func kvCases() []testCase {
	return []testCase{
		{"a put moves the revision by one and tells it", putRevision},
		{"a key tells when it was made, changed and how often", putMetadata},
		{"prev_kv is what the key was", putPrevious},
		{"ignore_value keeps the value", putIgnoreValue},
		{"ignore_lease keeps the lease", putIgnoreLease},
		{"keys and values are any bytes", putAnyBytes},
		{"a delete counts, tells and begins a new life", deleteForms},
		{"a delete of nothing moves no revision", deleteNothing},
		{"a delete takes a range, a prefix or all that follows", deleteRanges},
		{"every header names the member, the cluster and the term", headers},
		{"one client's puts are seen by another's gets", readYourWrites},
	}
}

func putRevision(t *T) {
	before := t.Revision()
	for i := int64(1); i <= 5; i++ {
		Equal(t, "revision of the put", t.Put(t.Key("k"), "v"), before+i)
		Equal(t, "revision of a get", t.Get(t.Key("k")).Header.Revision, before+i)
	}
}

func putMetadata(t *T) {
	created := t.Put(t.Key("k"), "1")
	t.Put(t.Key("other"), "x")
	changed := t.Put(t.Key("k"), "2")
	response := t.Get(t.Key("k"))
	if len(response.Kvs) != 1 {
		t.Stopf("got %d keys, want 1", len(response.Kvs))
	}
	kv := response.Kvs[0]
	t.EqualBytes("key", kv.Key, t.Key("k"))
	t.EqualBytes("value", kv.Value, "2")
	Equal(t, "create_revision", kv.CreateRevision, created)
	Equal(t, "mod_revision", kv.ModRevision, changed)
	Equal(t, "version", kv.Version, 2)
	Equal(t, "lease", kv.Lease, 0)
	Equal(t, "count", response.Count, 1)
	Equal(t, "more", response.More, false)

	missing := t.Get(t.Key("missing"))
	Equal(t, "keys of a missing key", len(missing.Kvs), 0)
	Equal(t, "count of a missing key", missing.Count, 0)
}

func putPrevious(t *T) {
	put := func(value string) *clientv3.PutResponse {
		response, err := t.Client.Put(t.Ctx, t.Key("k"), value, clientv3.WithPrevKV())
		t.NoError(err, "put")
		return response
	}
	first := put("1")
	t.Check(first.PrevKv == nil, "a new key has a previous value %v", first.PrevKv)
	second := put("")
	if second.PrevKv == nil {
		t.Stopf("no previous value")
	}
	t.EqualBytes("previous value", second.PrevKv.Value, "1")
	Equal(t, "previous mod_revision", second.PrevKv.ModRevision, first.Header.Revision)
	third := put("3")
	t.Check(third.PrevKv != nil && len(third.PrevKv.Value) == 0, "empty value: got %v", third.PrevKv)
	Equal(t, "previous version", third.PrevKv.GetVersion(), 2)

	without, err := t.Client.Put(t.Ctx, t.Key("k"), "4")
	t.NoError(err, "put")
	t.Check(without.PrevKv == nil, "previous value without being asked: %v", without.PrevKv)

	t.Delete(t.Key("k"))
	after := put("5")
	t.Check(after.PrevKv == nil, "a deleted key has a previous value %v", after.PrevKv)
}

func putIgnoreValue(t *T) {
	_, err := t.Client.Put(t.Ctx, t.Key("k"), "", clientv3.WithIgnoreValue())
	t.WantError("missing key", err, rpctypes.ErrKeyNotFound)
	created := t.Put(t.Key("k"), "kept")
	_, err = t.Client.Put(t.Ctx, t.Key("k"), "x", clientv3.WithIgnoreValue())
	t.WantError("value given", err, rpctypes.ErrValueProvided)
	Equal(t, "revision after refusals", t.Revision(), created)

	changed := t.Put(t.Key("k"), "", clientv3.WithIgnoreValue())
	Equal(t, "revision", changed, created+1)
	kv := t.Get(t.Key("k")).Kvs[0]
	t.EqualBytes("value", kv.Value, "kept")
	Equal(t, "version", kv.Version, 2)
	Equal(t, "mod_revision", kv.ModRevision, changed)
	Equal(t, "create_revision", kv.CreateRevision, created)
}

func putIgnoreLease(t *T) {
	_, err := t.Client.Put(t.Ctx, t.Key("k"), "x", clientv3.WithIgnoreLease())
	t.WantError("missing key", err, rpctypes.ErrKeyNotFound)
	t.Put(t.Key("k"), "1")
	_, err = t.Client.Put(t.Ctx, t.Key("k"), "x", clientv3.WithIgnoreLease(), clientv3.WithLease(7))
	t.WantError("lease given", err, rpctypes.ErrLeaseProvided)
	t.Put(t.Key("k"), "2", clientv3.WithIgnoreLease())
	kv := t.Get(t.Key("k")).Kvs[0]
	t.EqualBytes("value", kv.Value, "2")
	Equal(t, "lease", kv.Lease, 0)
	Equal(t, "version", kv.Version, 2)
}

func putAnyBytes(t *T) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	names := []string{"", "\x00", "\xff", "\xff\xff", "a\x00b", "a\x00", string(every), "日本語"}
	names = append(names, strings.Repeat("long", 4096))
	for i, name := range names {
		t.Put(t.Key(name), fmt.Sprint(i)+name)
	}
	for i, name := range names {
		response := t.Get(t.Key(name))
		if len(response.Kvs) != 1 {
			t.Failf("key %q: %d found", brief([]byte(name)), len(response.Kvs))
			continue
		}
		t.EqualBytes("value", response.Kvs[0].Value, fmt.Sprint(i)+name)
	}
	all := t.Get(t.Key(""), clientv3.WithPrefix())
	Equal(t, "count below the prefix", all.Count, int64(len(names)))
}

func deleteForms(t *T) {
	t.Put(t.Key("k"), "1")
	last := t.Put(t.Key("k"), "2")
	response := t.Delete(t.Key("k"), clientv3.WithPrevKV())
	Equal(t, "deleted", response.Deleted, 1)
	Equal(t, "revision", response.Header.Revision, last+1)
	if len(response.PrevKvs) != 1 {
		t.Stopf("%d previous values", len(response.PrevKvs))
	}
	t.EqualBytes("previous value", response.PrevKvs[0].Value, "2")
	Equal(t, "previous version", response.PrevKvs[0].Version, 2)
	Equal(t, "count after it", t.Get(t.Key("k")).Count, 0)

	again := t.Put(t.Key("k"), "3")
	kv := t.Get(t.Key("k")).Kvs[0]
	Equal(t, "create_revision of the new life", kv.CreateRevision, again)
	Equal(t, "version of the new life", kv.Version, 1)
	old := t.Get(t.Key("k"), clientv3.WithRev(last))
	t.EqualBytes("value before the delete", old.Kvs[0].Value, "2")
	gone := t.Get(t.Key("k"), clientv3.WithRev(response.Header.Revision))
	Equal(t, "keys at the delete's revision", len(gone.Kvs), 0)

	without := t.Delete(t.Key("k"))
	Equal(t, "previous values without being asked", len(without.PrevKvs), 0)
}

func deleteNothing(t *T) {
	before := t.Put(t.Key("k"), "v")
	response := t.Delete(t.Key("missing"), clientv3.WithPrevKV())
	Equal(t, "deleted", response.Deleted, 0)
	Equal(t, "revision", response.Header.Revision, before)
	backward := t.Delete(t.Key("z"), clientv3.WithRange(t.Key("a")))
	Equal(t, "deleted by a backward range", backward.Deleted, 0)
	Equal(t, "next put", t.Put(t.Key("k"), "v"), before+1)
}

func deleteRanges(t *T) {
	fill := func() {
		for _, name := range strings.Fields("a b c d e") {
			t.Put(t.Key(name), name)
		}
	}
	left := func() string { return t.Keys(t.Get(t.Key(""), clientv3.WithPrefix())) }
	// All keys from one on would take those of later cases too: the key's first byte is above all.
	high := "\xff" + t.prefix

	fill()
	response := t.Delete(t.Key("b"), clientv3.WithRange(t.Key("d")), clientv3.WithPrevKV())
	Equal(t, "deleted by range", response.Deleted, 2)
	Equal(t, "left by range", left(), "a d e")
	Equal(t, "previous values", len(response.PrevKvs), 2)
	for i, want := range []string{"b", "c"} {
		t.EqualBytes("previous values go by key", response.PrevKvs[i].Value, want)
	}
	fill()
	before := t.Revision()
	response = t.Delete(t.Key(""), clientv3.WithPrefix())
	Equal(t, "deleted by prefix", response.Deleted, 5)
	Equal(t, "revisions of five deletes at once", response.Header.Revision, before+1)
	Equal(t, "left by prefix", left(), "")

	for _, name := range []string{"1", "2", "3"} {
		t.Put(high+name, name)
	}
	response = t.Delete(high+"2", clientv3.WithFromKey())
	t.Check(response.Deleted >= 2, "deleted from a key on: %d", response.Deleted)
	Equal(t, "left from a key on", t.Get(high, clientv3.WithPrefix()).Count, 1)
	t.Delete(high + "1")
}

func headers(t *T) {
	put, err := t.Client.Put(t.Ctx, t.Key("k"), "v")
	t.NoError(err, "put")
	want := put.Header
	t.Check(want.ClusterId != 0 && want.MemberId != 0 && want.RaftTerm != 0, "header %v", want)
	get := t.Get(t.Key("k"))
	deleted := t.Delete(t.Key("k"))
	txn, err := t.Client.Txn(t.Ctx).Then(clientv3.OpPut(t.Key("k"), "v")).Commit()
	t.NoError(err, "txn")
	status, err := t.Client.Status(t.Ctx, t.Endpoint)
	t.NoError(err, "status")
	members, err := t.Client.MemberList(t.Ctx)
	t.NoError(err, "member list")
	alarms, err := t.Client.AlarmList(t.Ctx)
	t.NoError(err, "alarm list")
	for name, header := range map[string]*responseHeader{
		"get": get.Header, "delete": deleted.Header, "txn": txn.Header, "status": status.Header,
		"member list": members.Header, "alarm list": alarms.Header,
	} {
		Equal(t, name+": cluster", header.ClusterId, want.ClusterId)
		Equal(t, name+": member", header.MemberId, want.MemberId)
		Equal(t, name+": term", header.RaftTerm, want.RaftTerm)
	}
	Equal(t, "revision of status", status.Header.Revision, txn.Header.Revision)
	Equal(t, "revision of the member list", members.Header.Revision, 0)
}

func readYourWrites(t *T) {
	other := t.Connect()
	for i := range 200 {
		value := fmt.Sprint(i)
		revision := t.Put(t.Key("k"), value)
		response, err := other.Get(t.Ctx, t.Key("k"))
		t.NoError(err, "get")
		t.EqualBytes("value", response.Kvs[0].Value, value)
		read := response.Header.Revision
		t.Check(read >= revision, "revision %d after %d", read, revision)
	}
}
