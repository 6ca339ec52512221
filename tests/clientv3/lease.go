package main

import (
	"context"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"google.golang.org/grpc/codes"
)

func leaseCases() []testCase {
	return []testCase{
		{"a lease that nobody keeps alive takes its keys along", leaseExpires},
		{"a lease that is kept alive does not run out", leaseKeptAlive},
		{"a revoke deletes all keys of a lease in one revision", leaseRevoked},
		{"a key goes from lease to lease and is let go", leaseAttach},
		{"what cannot be is refused", leaseRefused},
		{"a lease that is gone answers with less than nothing", leaseGone},
		{"answers on one stream come in the order of the requests", leaseStreamOrder},
		{"one of many holds the mutex", mutexMany},
		{"an election goes on with the next candidate", electionMany},
	}
}

func (t *T) grant(seconds int64) clientv3.LeaseID {
	lease, err := t.Client.Grant(t.Ctx, seconds)
	t.NoError(err, "grant")
	t.Cleanup(func() { _, _ = t.Client.Revoke(context.Background(), lease.ID) })
	return lease.ID
}

func leaseExpires(t *T) {
	lease := t.grant(2)
	since := t.Revision()
	watch := t.Client.Watch(t.Ctx, t.Key(""), clientv3.WithPrefix(), clientv3.WithRev(since+1))
	for _, key := range []string{"c", "a", "b"} {
		t.Put(t.Key(key), "v", clientv3.WithLease(lease))
	}
	granted := time.Now()
	var deleted []*clientv3.Event
	for len(deleted) < 3 {
		response, ok := <-watch
		t.Check(ok && response.Err() == nil, "the watch ended: %v", response.Err())
		for _, event := range response.Events {
			if event.Type == mvccpb.Event_DELETE {
				deleted = append(deleted, event)
			}
		}
	}
	t.Check(time.Since(granted) > 1500*time.Millisecond, "gone after %v", time.Since(granted))
	for i, name := range []string{"a", "b", "c"} {
		Equal(t, "key", t.Short(deleted[i].Kv.Key), name)
		Equal(t, "revision", deleted[i].Kv.ModRevision, deleted[0].Kv.ModRevision)
	}
	Equal(t, "keys left", t.Get(t.Key(""), clientv3.WithPrefix()).Count, int64(0))
}

func leaseKeptAlive(t *T) {
	lease := t.grant(2)
	t.Put(t.Key("k"), "v", clientv3.WithLease(lease))
	alive, err := t.Client.KeepAlive(t.Ctx, lease)
	t.NoError(err, "keep alive")
	for begun := time.Now(); time.Since(begun) < 3500*time.Millisecond; {
		response, ok := <-alive
		t.Check(ok, "the stream ended")
		Equal(t, "ttl", response.TTL, int64(2))
	}
	Equal(t, "key", t.Get(t.Key("k")).Count, int64(1))
}

func leaseRevoked(t *T) {
	lease := t.grant(60)
	for i := range 300 {
		t.Put(t.Key(fmt.Sprintf("%03d", i)), "v", clientv3.WithLease(lease))
	}
	left, err := t.Client.TimeToLive(t.Ctx, lease, clientv3.WithAttachedKeys())
	t.NoError(err, "time to live")
	Equal(t, "granted", left.GrantedTTL, int64(60))
	Equal(t, "keys", len(left.Keys), 300)
	before := t.Revision()
	revoked, err := t.Client.Revoke(t.Ctx, lease)
	t.NoError(err, "revoke")
	Equal(t, "revision", revoked.Header.Revision, before+1)
	Equal(t, "keys left", t.Get(t.Key(""), clientv3.WithPrefix()).Count, int64(0))
	empty := t.grant(60)
	before = t.Revision()
	revoked, err = t.Client.Revoke(t.Ctx, empty)
	t.NoError(err, "revoke")
	Equal(t, "revision without keys", revoked.Header.Revision, before)
}

func leaseAttach(t *T) {
	first, second := t.grant(60), t.grant(60)
	keys := func(lease clientv3.LeaseID) int {
		left, err := t.Client.TimeToLive(t.Ctx, lease, clientv3.WithAttachedKeys())
		t.NoError(err, "time to live")
		return len(left.Keys)
	}
	key := t.Key("k")
	t.Put(key, "1", clientv3.WithLease(first))
	Equal(t, "lease of the key", t.Get(key).Kvs[0].Lease, int64(first))
	t.Put(key, "2", clientv3.WithLease(second))
	Equal(t, "keys of the first", keys(first), 0)
	Equal(t, "keys of the second", keys(second), 1)
	t.Put(key, "3", clientv3.WithIgnoreLease())
	Equal(t, "lease of the key", t.Get(key).Kvs[0].Lease, int64(second))
	t.Put(key, "4")
	Equal(t, "keys of the second", keys(second), 0)
	t.Put(key, "5", clientv3.WithLease(first))
	t.Delete(key)
	Equal(t, "keys of the first", keys(first), 0)
}

func leaseRefused(t *T) {
	_, err := t.Client.Put(t.Ctx, t.Key("k"), "v", clientv3.WithLease(12345))
	t.WantError("a put with an unknown lease", err, rpctypes.ErrLeaseNotFound)
	_, err = t.Client.Revoke(t.Ctx, 12345)
	t.WantError("a revoke of an unknown lease", err, rpctypes.ErrLeaseNotFound)
	_, err = t.Client.Grant(t.Ctx, 9_000_000_001)
	t.WantError("a lease for ever", err, rpctypes.ErrLeaseTTLTooLarge)
	lease := t.grant(60)
	client := pb.NewLeaseClient(t.Client.ActiveConnection())
	_, err = client.LeaseGrant(t.Ctx, &pb.LeaseGrantRequest{TTL: 60, ID: int64(lease)})
	t.WantStatus("a lease twice", err, codes.FailedPrecondition, "etcdserver: lease already exists")
	granted, err := client.LeaseGrant(t.Ctx, &pb.LeaseGrantRequest{TTL: -5, ID: -int64(lease)})
	t.NoError(err, "a negative id")
	Equal(t, "ttl", granted.TTL, int64(2))
	_, err = t.Client.Revoke(t.Ctx, clientv3.LeaseID(-int64(lease)))
	t.NoError(err, "revoke of a negative id")
}

func leaseGone(t *T) {
	left, err := t.Client.TimeToLive(t.Ctx, 12345, clientv3.WithAttachedKeys())
	t.NoError(err, "time to live")
	Equal(t, "ttl", left.TTL, int64(-1))
	Equal(t, "granted", left.GrantedTTL, int64(0))
	_, err = t.Client.KeepAliveOnce(t.Ctx, 12345)
	t.WantError("a keep-alive of an unknown lease", err, rpctypes.ErrLeaseNotFound)
}

func leaseStreamOrder(t *T) {
	leases := []int64{int64(t.grant(60)), 999, int64(t.grant(30)), 998}
	wanted := []int64{60, 0, 30, 0}
	stream, err := pb.NewLeaseClient(t.Client.ActiveConnection()).LeaseKeepAlive(t.Ctx)
	t.NoError(err, "open")
	const rounds = 500
	go func() {
		for i := range rounds {
			_ = stream.Send(&pb.LeaseKeepAliveRequest{ID: leases[i%len(leases)]})
		}
		_ = stream.CloseSend()
	}()
	for i := range rounds {
		response, err := stream.Recv()
		t.NoError(err, "answer %d", i)
		Equal(t, "id", response.ID, leases[i%len(leases)])
		Equal(t, "ttl", response.TTL, wanted[i%len(leases)])
		t.Check(response.Header.Revision > 0, "no revision")
	}
	_, err = stream.Recv()
	Equal(t, "the end", fmt.Sprint(err), "EOF")
}

func mutexMany(t *T) {
	const claimants = 8
	holders, done := make(chan int, 1), make(chan error, claimants)
	for range claimants {
		go func() {
			session, err := concurrency.NewSession(t.Client, concurrency.WithTTL(10))
			if err != nil {
				done <- err
				return
			}
			defer session.Close()
			mutex := concurrency.NewMutex(session, t.Key("lock"))
			for range 5 {
				if err = mutex.Lock(t.Ctx); err != nil {
					break
				}
				select {
				case holders <- 1:
					<-holders
				default:
					err = fmt.Errorf("two hold the lock")
				}
				if err == nil {
					err = mutex.Unlock(t.Ctx)
				}
				if err != nil {
					break
				}
			}
			done <- err
		}()
	}
	for range claimants {
		t.NoError(<-done, "a claimant")
	}
}

func electionMany(t *T) {
	first, err := concurrency.NewSession(t.Client, concurrency.WithTTL(10))
	t.NoError(err, "session")
	defer first.Close()
	second, err := concurrency.NewSession(t.Client, concurrency.WithTTL(10))
	t.NoError(err, "session")
	defer second.Close()
	name := t.Key("election")
	leader := concurrency.NewElection(first, name)
	t.NoError(leader.Campaign(t.Ctx, "first"), "campaign")
	observed := leader.Observe(t.Ctx)
	elected := make(chan error, 1)
	next := concurrency.NewElection(second, name)
	go func() { elected <- next.Campaign(t.Ctx, "second") }()
	see := func(value string) {
		response, ok := <-observed
		t.Check(ok, "the observation ended")
		Equal(t, "leader", string(response.Kvs[0].Value), value)
	}
	see("first")
	t.NoError(leader.Proclaim(t.Ctx, "still first"), "proclaim")
	see("still first")
	t.NoError(leader.Resign(t.Ctx), "resign")
	t.NoError(<-elected, "campaign of the second")
	see("second")
}
