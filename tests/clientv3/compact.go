package main

import (
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func compactCases() []testCase {
	return []testCase{
		{"what lies below a compaction is gone, what lies above is there", compactBounds},
		{"a compaction never goes back and never ahead", compactErrors},
		{"a compaction moves no revision", compactNoRevision},
		{"the newest version of every key survives", compactKeepsNewest},
		{"a deleted key is gone for good", compactDeleted},
		{"reads in a txn see a compaction, too", compactTxn},
		{"a physical compaction of many revisions ends", compactPhysical},
	}
}

func (t *T) compact(revision int64, options ...clientv3.CompactOption) {
	_, err := t.Client.Compact(t.Ctx, revision, options...)
	t.NoError(err, "compact %d", revision)
}

func compactBounds(t *T) {
	first := t.Put(t.Key("k"), "0")
	const writes = 20
	for i := 1; i < writes; i++ {
		t.Put(t.Key("k"), fmt.Sprint(i))
	}
	for _, cut := range []int64{5, 6, 13, 19} {
		t.compact(first + cut)
		for i := int64(0); i < writes; i++ {
			for _, extra := range []clientv3.OpOption{
				clientv3.WithLimit(1), clientv3.WithCountOnly(), clientv3.WithSerializable(),
			} {
				response, err := t.Client.Get(t.Ctx, t.Key("k"), clientv3.WithRev(first+i), extra)
				if i < cut {
					t.WantError(fmt.Sprintf("revision %d below %d", i, cut), err, rpctypes.ErrCompacted)
				} else if err != nil {
					t.Failf("revision %d with a compaction at %d: %v", i, cut, err)
				} else if len(response.Kvs) > 0 {
					t.EqualBytes("value", response.Kvs[0].Value, fmt.Sprint(i))
				}
			}
		}
	}
}

func compactErrors(t *T) {
	revision := t.Put(t.Key("k"), "1")
	last := t.Put(t.Key("k"), "2")
	_, err := t.Client.Compact(t.Ctx, last+1)
	t.WantError("ahead", err, rpctypes.ErrFutureRev)
	t.compact(revision)
	_, err = t.Client.Compact(t.Ctx, revision)
	t.WantError("again", err, rpctypes.ErrCompacted)
	_, err = t.Client.Compact(t.Ctx, revision-1)
	t.WantError("back", err, rpctypes.ErrCompacted)
	_, err = t.Client.Compact(t.Ctx, 0)
	t.WantError("zero", err, rpctypes.ErrCompacted)
	_, err = t.Client.Compact(t.Ctx, -1)
	t.WantError("below zero", err, rpctypes.ErrCompacted)
	t.compact(last)
	Equal(t, "value at the current revision", string(t.Get(t.Key("k")).Kvs[0].Value), "2")
	_, err = t.Client.Compact(t.Ctx, last+1)
	t.WantError("ahead of the current", err, rpctypes.ErrFutureRev)
}

func compactNoRevision(t *T) {
	t.Put(t.Key("k"), "1")
	last := t.Put(t.Key("k"), "2")
	response, err := t.Client.Compact(t.Ctx, last-1)
	t.NoError(err, "compact")
	Equal(t, "revision", response.Header.Revision, last)
	Equal(t, "next put", t.Put(t.Key("k"), "3"), last+1)
}

func compactKeepsNewest(t *T) {
	for _, name := range strings.Fields("a b c a b a") {
		t.Put(t.Key(name), "old of "+name)
	}
	want := t.Get(t.Key(""), clientv3.WithPrefix())
	last := t.Put(t.Key("later"), "")
	t.Put(t.Key("a"), "new of a")
	t.compact(last, clientv3.WithCompactPhysical())
	for _, revision := range []int64{last, last + 1} {
		got := t.Get(t.Key(""), clientv3.WithPrefix(), clientv3.WithRev(revision))
		Equal(t, "keys", t.Keys(got), "a b c later")
		for i := range want.Kvs {
			if revision > last && i == 0 {
				t.EqualBytes("new value", got.Kvs[0].Value, "new of a")
				Equal(t, "version", got.Kvs[0].Version, want.Kvs[0].Version+1)
				continue
			}
			t.EqualBytes("value", got.Kvs[i].Value, string(want.Kvs[i].Value))
			Equal(t, "version", got.Kvs[i].Version, want.Kvs[i].Version)
			Equal(t, "mod_revision", got.Kvs[i].ModRevision, want.Kvs[i].ModRevision)
			Equal(t, "create_revision", got.Kvs[i].CreateRevision, want.Kvs[i].CreateRevision)
		}
	}
}

func compactDeleted(t *T) {
	t.Put(t.Key("k"), "1")
	deleted := t.Delete(t.Key("k")).Header.Revision
	t.compact(deleted, clientv3.WithCompactPhysical())
	Equal(t, "at the delete", t.Get(t.Key("k"), clientv3.WithRev(deleted)).Count, 0)
	again := t.Put(t.Key("k"), "2")
	kv := t.Get(t.Key("k")).Kvs[0]
	Equal(t, "create_revision", kv.CreateRevision, again)
	Equal(t, "version", kv.Version, 1)
	Equal(t, "before the new life", t.Get(t.Key("k"), clientv3.WithRev(deleted)).Count, 0)
}

func compactTxn(t *T) {
	old := t.Put(t.Key("k"), "1")
	last := t.Put(t.Key("k"), "2")
	t.compact(last)
	read := clientv3.OpGet(t.Key("k"), clientv3.WithRev(old))
	_, err := t.Client.Txn(t.Ctx).Then(read).Commit()
	t.WantError("read-only txn", err, rpctypes.ErrCompacted)
	_, err = t.Client.Txn(t.Ctx).Then(clientv3.OpPut(t.Key("k"), "3"), read).Commit()
	t.WantError("writing txn", err, rpctypes.ErrCompacted)
	Equal(t, "revision", t.Revision(), last)
}

func compactPhysical(t *T) {
	const rounds = 30
	for range rounds {
		fillKeys(t, 200)
	}
	last := t.Revision()
	t.compact(last, clientv3.WithCompactPhysical())
	response := t.Get(t.Key(""), clientv3.WithPrefix())
	Equal(t, "keys", response.Count, 200)
	for _, kv := range response.Kvs {
		Equal(t, "version", kv.Version, rounds)
	}
	t.Delete(t.Key(""), clientv3.WithPrefix())
	t.compact(t.Revision(), clientv3.WithCompactPhysical())
	Equal(t, "keys after all were deleted", t.Get(t.Key(""), clientv3.WithPrefix()).Count, 0)
}
