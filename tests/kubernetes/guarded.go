package main

import (
	"strconv"
	"sync"

	"go.etcd.io/etcd/client/v3/kubernetes"
)

func createSucceedsOnce(t *T) {
	revision := t.Create("pod", "first")
	again, err := t.tryPut("pod", "second", 0)
	t.NoError(err, "create again")
	t.Check(!again.Succeeded, "the second create succeeded")
	t.Check(again.Revision == revision, "a refusal has revision %d, want %d", again.Revision, revision)
	if again.KV == nil || string(again.KV.Value) != "first" || again.KV.ModRevision != revision {
		t.Failf("a refused create shows %v", again.KV)
	}
	read, err := t.Client.Kubernetes.Get(t.Ctx, t.Key("pod"), kubernetes.GetOptions{})
	t.NoError(err, "get")
	if read.KV == nil || string(read.KV.Value) != "first" || read.Revision != revision {
		t.Failf("the object is %v at %d", read.KV, read.Revision)
	}
}

func updateWantsItsRevision(t *T) {
	first := t.Create("pod", "one")
	second := t.Update("pod", "two", first)
	stale, err := t.tryPut("pod", "three", first)
	t.NoError(err, "stale update")
	t.Check(!stale.Succeeded, "an update of a stale revision succeeded")
	if stale.KV == nil || stale.KV.ModRevision != second || stale.KV.Version != 2 {
		t.Failf("a refused update shows %v", stale.KV)
	}
	ahead, err := t.tryPut("pod", "three", second+1000)
	t.NoError(err, "update of the future")
	t.Check(!ahead.Succeeded, "an update of a future revision succeeded")
	missing, err := t.tryPut("nothing", "x", second)
	t.NoError(err, "update of nothing")
	t.Check(!missing.Succeeded && missing.KV == nil, "an update of nothing answered %+v", missing)
	t.Update("pod", "three", second)
	kvs, revision, err := t.ListAll(500)
	t.NoError(err, "list")
	t.history.checkMoment(t, "list", revision, kvs)
}

func deleteWantsItsRevision(t *T) {
	first := t.Create("pod", "one")
	second := t.Update("pod", "two", first)
	stale, err := t.tryDelete("pod", first)
	t.NoError(err, "stale delete")
	t.Check(!stale.Succeeded, "a delete of a stale revision succeeded")
	if stale.KV == nil || stale.KV.ModRevision != second {
		t.Failf("a refused delete shows %v", stale.KV)
	}
	gone := t.Delete("pod", second)
	t.Check(gone == second+1, "the delete is revision %d after %d", gone, second)
	again, err := t.tryDelete("pod", second)
	t.NoError(err, "delete again")
	t.Check(!again.Succeeded && again.KV == nil, "a second delete answered %+v", again)
	anew := t.Create("pod", "anew")
	read, err := t.Client.Kubernetes.Get(t.Ctx, t.Key("pod"), kubernetes.GetOptions{})
	t.NoError(err, "get")
	if read.KV == nil || read.KV.CreateRevision != anew || read.KV.Version != 1 {
		t.Failf("an object made anew is %v, want version 1 at %d", read.KV, anew)
	}
	past, err := t.Client.Kubernetes.Get(t.Ctx, t.Key("pod"), kubernetes.GetOptions{Revision: second})
	t.NoError(err, "get the past")
	if past.KV == nil || string(past.KV.Value) != "two" || past.Revision != anew {
		t.Failf("the past is %v at %d", past.KV, past.Revision)
	}
}

// contendedUpdatesLoseNothing counts with many writers, each of which tries again with what a
// refusal showed it, as GuaranteedUpdate does.
func contendedUpdatesLoseNothing(t *T) {
	const writers, increments = 8, 60
	t.Create("counter", "0")
	var group sync.WaitGroup
	for range writers {
		group.Go(func() {
			value, revision := 0, int64(-1)
			for done := 0; done < increments; {
				put, err := t.tryPut("counter", strconv.Itoa(value+1), revision)
				switch {
				case err != nil:
					t.Failf("update: %v", err)
					return
				case put.Succeeded:
					value, revision = value+1, put.Revision
					done++
				case put.KV == nil:
					t.Failf("a refusal shows no object")
					return
				default:
					value, _ = strconv.Atoi(string(put.KV.Value))
					revision = put.KV.ModRevision
				}
			}
		})
	}
	group.Wait()
	kvs, revision, err := t.ListAll(500)
	t.NoError(err, "list")
	t.history.checkMoment(t, "list", revision, kvs)
	want := strconv.Itoa(writers * increments)
	if len(kvs) != 1 || string(kvs[0].Value) != want {
		t.Failf("the counter is %v, want %s", kvs, want)
	}
}
