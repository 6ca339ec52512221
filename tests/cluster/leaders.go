package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func membersAgreeOnWhoTheyAre(t *T) {
	c := found(t, 3)
	var clusterID, leader uint64
	for _, one := range c.members {
		client := c.connect(one)
		list, err := client.MemberList(t.ctx)
		t.NoError(err, "list the members")
		t.Check(len(list.Members) == 3, "%s knows %d members", one.name, len(list.Members))
		for _, each := range list.Members {
			t.Check(each.Name != "" && len(each.ClientURLs) == 1 && len(each.PeerURLs) == 1,
				"%s knows %v", one.name, each)
		}
		state, err := client.Status(t.ctx, one.client)
		t.NoError(err, "status")
		if clusterID == 0 {
			clusterID, leader = state.Header.ClusterId, state.Leader
		}
		t.Check(state.Header.ClusterId == clusterID, "%s is of another cluster", one.name)
		t.Check(state.Leader == leader && leader != 0, "two leaders: %x, %x", state.Leader, leader)
		t.Check(!state.IsLearner && len(state.Errors) == 0, "%s: %v", one.name, state)
		client.Close()
	}
	// What one has taken the others show, at once when it is asked for linearizably.
	for place, one := range c.members {
		client, other := c.connect(one), c.connect(c.members[(place+1)%3])
		key := fmt.Sprintf("key%d", place)
		put, err := client.Put(t.ctx, key, one.name)
		t.NoError(err, "put through "+one.name)
		got, err := other.Get(t.ctx, key)
		t.NoError(err, "get")
		t.Check(len(got.Kvs) == 1 && got.Kvs[0].ModRevision == put.Header.Revision,
			"%s does not show what %s took", c.members[(place+1)%3].name, one.name)
		client.Close()
		other.Close()
	}
	c.agree()
}

func leaderHandsOver(t *T) {
	c := found(t, 3)
	leader := c.leader()
	before, err := c.status(leader)
	t.NoError(err, "status")
	err = leader.stop()
	t.Check(err != nil && err.Error() == "signal: terminated", "it ended with %v", err)
	next := c.leader()
	after, err := c.status(next)
	t.NoError(err, "status")
	// An election that nobody was asked to hold would have needed a term for pre-votes that failed.
	t.Check(after.RaftTerm == before.RaftTerm+1, "term %d after %d", after.RaftTerm, before.RaftTerm)
	c.start(leader, "existing")
	c.waitFor(leader)
	c.agree()
}

func leadershipMoves(t *T) {
	c := found(t, 3)
	leader, follower := c.leader(), c.follower()
	to, err := c.status(follower)
	t.NoError(err, "status")
	client := c.connect(follower)
	_, err = client.MoveLeader(t.ctx, to.Header.MemberId)
	t.Check(errors.Is(err, rpctypes.ErrNotLeader), "a follower moves leadership: %v", err)
	client.Close()
	client = c.connect(leader)
	defer client.Close()
	_, err = client.MoveLeader(t.ctx, 12345)
	t.Check(errors.Is(err, rpctypes.ErrBadLeaderTransferee), "to nobody: %v", err)
	_, err = client.MoveLeader(t.ctx, to.Header.MemberId)
	t.NoError(err, "move leadership")
	t.Check(c.leader() == follower, "another one leads")
}

func leasesAndWatchesSurviveALeader(t *T) {
	c := found(t, 3)
	leader := c.leader()
	client := c.connect(c.members...)
	defer client.Close()
	lease, err := client.Grant(t.ctx, 10)
	t.NoError(err, "grant")
	alive, err := client.KeepAlive(t.ctx, lease.ID)
	t.NoError(err, "keep alive")
	_, err = client.Put(t.ctx, "held", "value", clientv3.WithLease(lease.ID))
	t.NoError(err, "put")
	watch := client.Watch(clientv3.WithRequireLeader(t.ctx), "watched/", clientv3.WithPrefix())
	count := 0
	put := func() {
		count++
		key := fmt.Sprintf("watched/%04d", count)
		t.Wait("a put", func() bool {
			ctx, cancel := context.WithTimeout(t.ctx, 5*time.Second)
			defer cancel()
			_, err := client.Put(ctx, key, "value")
			return err == nil
		})
	}
	for range 10 {
		put()
	}
	leader.kill()
	for range 10 {
		put()
	}
	c.start(leader, "existing")
	c.waitFor(leader)
	for range 10 {
		put()
	}
	seen := map[string]bool{}
	last := int64(0)
	for len(seen) < count {
		select {
		case answer, isOpen := <-watch:
			if !isOpen || answer.Err() != nil {
				// A watch that requires a leader ends without one, and is begun again after the last.
				watch = client.Watch(clientv3.WithRequireLeader(t.ctx), "watched/",
					clientv3.WithPrefix(), clientv3.WithRev(last+1))
				continue
			}
			for _, event := range answer.Events {
				t.Check(event.Kv.ModRevision > last, "%s again at %d", event.Kv.Key, event.Kv.ModRevision)
				last = event.Kv.ModRevision
				seen[string(event.Kv.Key)] = true
			}
		case <-t.ctx.Done():
			t.Failf("%d of %d keys were seen", len(seen), count)
			return
		}
	}
	for len(alive) > 0 {
		<-alive
	}
	t.Wait("a keep-alive of the new leader", func() bool { return len(alive) > 0 })
	held, err := client.Get(t.ctx, "held")
	t.NoError(err, "get")
	t.Check(len(held.Kvs) == 1, "the lease has run out although it was kept alive")
	_, err = client.Revoke(t.ctx, lease.ID)
	t.NoError(err, "revoke")
	held, err = client.Get(t.ctx, "held")
	t.NoError(err, "get")
	t.Check(len(held.Kvs) == 0, "a key outlives its lease")
	c.agree()
}

func nothingWithoutAQuorum(t *T) {
	c := found(t, 3)
	client := c.connect(c.members...)
	_, err := client.Put(t.ctx, "before", "value")
	t.NoError(err, "put")
	client.Close()
	last := c.leader()
	for _, one := range c.members {
		if one != last {
			one.kill()
		}
	}
	alone := c.connect(last)
	defer alone.Close()
	t.Wait("the last one knows that it is alone", func() bool {
		state, err := c.status(last)
		return err == nil && state.Leader == 0 && len(state.Errors) == 1
	})
	within := func() context.Context {
		ctx, cancel := context.WithTimeout(t.ctx, 10*time.Second)
		context.AfterFunc(t.ctx, cancel)
		return ctx
	}
	_, err = alone.Put(within(), "alone", "value")
	t.Check(err != nil, "a put is answered without a quorum")
	_, err = alone.Get(within(), "before")
	t.Check(err != nil, "a linearizable read is answered without a quorum")
	got, err := alone.Get(within(), "before", clientv3.WithSerializable())
	t.Check(err == nil && len(got.Kvs) == 1, "a serializable read: %v", err)
	_, err = alone.Get(clientv3.WithRequireLeader(t.ctx), "before", clientv3.WithSerializable())
	t.Check(errors.Is(err, rpctypes.ErrNoLeader), "with a leader required: %v", err)
	for _, one := range c.members {
		if one != last {
			c.start(one, "existing")
		}
	}
	for _, one := range c.members {
		c.waitFor(one)
	}
	_, err = alone.Put(t.ctx, "after", "value")
	t.NoError(err, "put with a quorum again")
	c.agree()
}
