package main

import (
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
)

const eventCount = 40

// recordEvents makes a lease and events on it, as the API server does: many share one lease.
func recordEvents(t *T, ttlSeconds int64) clientv3.LeaseID {
	lease, err := t.Client.Grant(t.Ctx, ttlSeconds)
	t.NoError(err, "grant a lease")
	options := kubernetes.PutOptions{LeaseID: lease.ID}
	for number := range eventCount {
		// Not in the order of the keys.
		key := t.Key(fmt.Sprintf("events/%02d", number*7%eventCount))
		put, err := t.Client.Kubernetes.OptimisticPut(t.Ctx, key, []byte("it happened"), 0, options)
		t.NoError(err, "record an event")
		t.Check(put.Succeeded, "%s was there before", key)
	}
	return lease.ID
}

// followEnd waits for the events' end, which is one revision, in the order of the keys.
func followEnd(t *T, watch clientv3.WatchChan, lease clientv3.LeaseID) {
	var gone []*clientv3.Event
	for len(gone) < eventCount {
		response, open := <-watch
		if !open {
			t.NoError(fmt.Errorf("it ended with %d deletions", len(gone)), "watch")
		}
		t.NoError(response.Err(), "watch")
		for _, event := range response.Events {
			if event.Type == mvccpb.Event_DELETE {
				gone = append(gone, event)
			}
		}
	}
	for number, event := range gone {
		key := t.Key(fmt.Sprintf("events/%02d", number))
		t.Check(string(event.Kv.Key) == key, "deletion %d is of %s", number, event.Kv.Key)
		t.Check(event.Kv.ModRevision == gone[0].Kv.ModRevision, "%s went at %d and not at %d", key,
			event.Kv.ModRevision, gone[0].Kv.ModRevision)
		if event.PrevKv == nil || event.PrevKv.Lease != int64(lease) {
			t.Failf("%s was %v before", key, event.PrevKv)
		}
	}
}

func watchEvents(t *T) clientv3.WatchChan {
	return t.Client.Watch(t.Ctx, t.Key("events/"), clientv3.WithPrefix(), clientv3.WithPrevKV())
}

func eventsGoWithTheirLease(t *T) {
	lease := recordEvents(t, 3600)
	attached, err := t.Client.TimeToLive(t.Ctx, lease, clientv3.WithAttachedKeys())
	t.NoError(err, "time to live")
	t.Check(len(attached.Keys) == eventCount, "%d keys are attached", len(attached.Keys))
	// One is kept by being written again without a lease, and one moves to another.
	kept, err := t.Client.Put(t.Ctx, t.Key("kept"), "", clientv3.WithLease(lease))
	t.NoError(err, "put on the lease")
	freed := clientv3.OpPut(t.Key("kept"), "free")
	txn, err := t.Client.Txn(t.Ctx).
		If(clientv3.Compare(clientv3.ModRevision(t.Key("kept")), "=", kept.Header.Revision)).
		Then(freed).Commit()
	t.NoError(err, "free the key")
	t.Check(txn.Succeeded, "the key was changed by somebody else")
	watch := t.Client.Watch(t.Ctx, t.Key("events/"), clientv3.WithPrefix(), clientv3.WithPrevKV(),
		clientv3.WithRev(txn.Header.Revision))
	_, err = t.Client.Revoke(t.Ctx, lease)
	t.NoError(err, "revoke the lease")
	followEnd(t, watch, lease)
	page, err := t.List(0, 0, "")
	t.NoError(err, "list")
	t.Check(len(page.Kvs) == 1 && string(page.Kvs[0].Value) == "free", "left are %v", page.Kvs)
	_, err = t.Client.Put(t.Ctx, t.Key("late"), "", clientv3.WithLease(lease))
	t.WantError("a put on a revoked lease", err, rpctypes.ErrLeaseNotFound)
}

func eventsGoWhenTheirLeaseExpires(t *T) {
	watch := watchEvents(t)
	// Long enough for one transaction on a busy machine.
	lease, err := t.Client.Grant(t.Ctx, 5)
	t.NoError(err, "grant a lease")
	var ops []clientv3.Op
	for number := range eventCount {
		key := t.Key(fmt.Sprintf("events/%02d", number*7%eventCount))
		ops = append(ops, clientv3.OpPut(key, "it happened", clientv3.WithLease(lease.ID)))
	}
	_, err = t.Client.Txn(t.Ctx).Then(ops...).Commit()
	t.NoError(err, "record the events")
	followEnd(t, watch, lease.ID)
	left, err := t.Client.Kubernetes.Count(t.Ctx, t.Prefix, kubernetes.CountOptions{})
	t.NoError(err, "count")
	t.Check(left == 0, "%d events are left", left)
	_, err = t.Client.KeepAliveOnce(t.Ctx, lease.ID)
	t.WantError("renewing an expired lease", err, rpctypes.ErrLeaseNotFound)
}
