package main

import (
	"context"
	"errors"
	"os"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// healthyAfter is how long members have to have been connected before etcd lets them be changed.
const healthyAfter = 5 * time.Second

// retry asks for a change until the cluster can bear it.
func retry(t *T, what string, change func(ctx context.Context) error) {
	t.Wait(what, func() bool {
		ctx, cancel := context.WithTimeout(t.ctx, 10*time.Second)
		defer cancel()
		err := change(ctx)
		isEarly := errors.Is(err, rpctypes.ErrUnhealthy) ||
			errors.Is(err, rpctypes.ErrMemberLearnerNotReady) || (err != nil && isClear(err))
		if err != nil && !isEarly {
			t.Failf("%s: %v", what, err)
			panic(stopCase{})
		}
		return err == nil
	})
}

// grow adds a member as a learner, starts it and promotes it.
func (c *cluster) grow(client *clientv3.Client) {
	one := c.newMember()
	var id uint64
	retry(c.t, "add "+one.name, func(ctx context.Context) error {
		added, err := client.MemberAddAsLearner(ctx, []string{one.peer})
		if err == nil {
			id = added.Member.ID
		}
		return err
	})
	c.start(one, "existing")
	retry(c.t, "promote "+one.name, func(ctx context.Context) error {
		_, err := client.MemberPromote(ctx, id)
		return err
	})
	c.waitFor(one)
}

// shrink removes a member, which then ends by itself.
func (c *cluster) shrink(client *clientv3.Client, one *member) {
	state, err := c.status(one)
	c.t.NoError(err, "status")
	retry(c.t, "remove "+one.name, func(ctx context.Context) error {
		_, err := client.MemberRemove(ctx, state.Header.MemberId)
		if errors.Is(err, rpctypes.ErrMemberNotFound) {
			return nil
		}
		return err
	})
	select {
	case <-one.ended:
		one.process = nil
	case <-c.t.ctx.Done():
		c.t.Failf("%s was removed and runs on", one.name)
		panic(stopCase{})
	}
	for place, each := range c.members {
		if each == one {
			c.members = append(c.members[:place:place], c.members[place+1:]...)
			break
		}
	}
}

func growsAndShrinks(t *T) {
	c := found(t, 1)
	first := c.members[0]
	client := c.connect(first)
	l := newLoad(c, "load/")
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		l.run(1<<40, done)
	}()
	for len(c.members) < 5 {
		c.grow(client)
		client.SetEndpoints(endpoints(c.members)...)
		l.client.SetEndpoints(endpoints(c.members)...)
	}
	list, err := client.MemberList(t.ctx)
	t.NoError(err, "list the members")
	t.Check(len(list.Members) == 5, "%d members", len(list.Members))
	for len(c.members) > 1 {
		victim := c.members[0]
		rest := endpoints(c.members[1:])
		client.SetEndpoints(rest...)
		l.client.SetEndpoints(rest...)
		c.shrink(client, victim)
	}
	close(done)
	<-ended
	client.Close()
	c.waitFor(c.members[0])
	l.check()
	t.Check(len(l.taken) > 100, "only %d puts were taken", len(l.taken))
}

func endpoints(members []*member) []string {
	var all []string
	for _, one := range members {
		all = append(all, one.client)
	}
	return all
}

func lostMemberIsReplaced(t *T) {
	c := found(t, 3)
	client := c.connect(c.members...)
	defer client.Close()
	for range 100 {
		_, err := client.Put(t.ctx, "key", "value")
		t.NoError(err, "put")
	}
	victim := c.follower()
	state, err := c.status(victim)
	t.NoError(err, "status")
	victim.kill()
	t.NoError(os.RemoveAll(victim.dataDir), "lose everything")
	retry(t, "remove the lost one", func(ctx context.Context) error {
		_, err := client.MemberRemove(ctx, state.Header.MemberId)
		return err
	})
	for place, each := range c.members {
		if each == victim {
			c.members = append(c.members[:place:place], c.members[place+1:]...)
			break
		}
	}
	client.SetEndpoints(endpoints(c.members)...)
	one := c.newMember()
	retry(t, "add another one", func(ctx context.Context) error {
		_, err := client.MemberAdd(ctx, []string{one.peer})
		return err
	})
	c.start(one, "existing")
	c.waitFor(one)
	c.agree()
}

func changesThatDoNotFit(t *T) {
	c := found(t, 3)
	client := c.connect(c.members...)
	defer client.Close()
	// Until members have been connected for a while the cluster counts as unhealthy.
	time.Sleep(healthyAfter + time.Second)
	refused := func(what string, err, want error) {
		t.Check(errors.Is(err, want), "%s: %v, want %v", what, err, want)
	}
	_, err := client.MemberAdd(t.ctx, []string{c.members[0].peer})
	refused("a URL that is taken", err, rpctypes.ErrPeerURLExist)
	_, err = client.MemberAddAsLearner(t.ctx, []string{c.members[0].peer})
	refused("a URL that is taken, for a learner", err, rpctypes.ErrPeerURLExist)
	_, err = client.MemberRemove(t.ctx, 12345)
	refused("a member that is none", err, rpctypes.ErrMemberNotFound)
	_, err = client.MemberUpdate(t.ctx, 12345, []string{"http://127.0.0.1:1"})
	refused("an update of none", err, rpctypes.ErrMemberNotFound)
	list, err := client.MemberList(t.ctx)
	t.NoError(err, "list")
	_, err = client.MemberPromote(t.ctx, list.Members[0].ID)
	refused("a promotion of a voter", err, rpctypes.ErrMemberNotLearner)
	_, err = client.MemberUpdate(t.ctx, list.Members[0].ID, list.Members[1].PeerURLs)
	refused("another member's URL", err, rpctypes.ErrPeerURLExist)
	_, err = client.MemberAddAsLearner(t.ctx, []string{"http://127.0.0.1:1"})
	t.NoError(err, "add a learner")
	_, err = client.MemberAddAsLearner(t.ctx, []string{"http://127.0.0.1:2"})
	refused("a second learner", err, rpctypes.ErrTooManyLearners)
	list, err = client.MemberList(t.ctx)
	t.NoError(err, "list")
	for _, each := range list.Members {
		if each.IsLearner {
			_, err = client.MemberPromote(t.ctx, each.ID)
			refused("a learner that never ran", err, rpctypes.ErrMemberLearnerNotReady)
		}
	}
	// With one member away, another voter would leave too few that are connected.
	c.follower().kill()
	t.Wait("the cluster is unhealthy", func() bool {
		_, err = client.MemberAdd(t.ctx, []string{"http://127.0.0.1:3"})
		return errors.Is(err, rpctypes.ErrUnhealthy)
	})
}
