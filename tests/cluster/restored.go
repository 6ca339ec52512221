package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// save writes a member's backup to a file.
func (c *cluster) save(name string) string {
	client := c.connect(c.members[0])
	defer client.Close()
	path := filepath.Join(c.t.directory, name)
	reader, err := client.Snapshot(c.t.ctx)
	c.t.NoError(err, "take a backup")
	defer reader.Close()
	file, err := os.Create(path)
	c.t.NoError(err, "create the backup")
	defer file.Close()
	_, err = io.Copy(file, reader)
	c.t.NoError(err, "save the backup")
	return path
}

// restore gives each member the data of a backup, one after the other, as those of one new cluster.
func restored(t *T, backups ...string) *cluster {
	c := &cluster{t: t}
	for range backups {
		c.newMember()
	}
	for place, one := range c.members {
		restore := exec.Command(*restorer, "snapshot", "restore", backups[place],
			"--name", one.name, "--data-dir", one.dataDir, "--initial-cluster", c.initial(),
			"--initial-cluster-token", "tested", "--initial-advertise-peer-urls", one.peer)
		if printed, err := restore.CombinedOutput(); err != nil {
			t.Failf("restore %s: %v\n%s", one.name, err, tail(string(printed)))
			panic(stopCase{})
		}
	}
	return c
}

// startAll starts all members with these flags and waits until they answer.
func (c *cluster) startAll(flags ...string) {
	for _, one := range c.members {
		c.start(one, "new", flags...)
	}
	for _, one := range c.members {
		c.waitFor(one)
	}
}

func backupIsRestored(t *T) {
	old := found(t, 3)
	client := old.connect(old.members...)
	lease, err := client.Grant(t.ctx, 600)
	t.NoError(err, "grant")
	for number := range 100 {
		key := fmt.Sprintf("key%03d", number)
		_, err := client.Put(t.ctx, key, "value", clientv3.WithLease(lease.ID))
		t.NoError(err, "put")
	}
	_, err = client.Compact(t.ctx, 50)
	t.NoError(err, "compact")
	client.Close()
	backup := old.save("backup")
	for _, one := range old.members {
		one.kill()
	}
	c := restored(t, backup, backup, backup)
	c.startAll()
	client = c.connect(c.members...)
	defer client.Close()
	found, err := client.Get(t.ctx, "key", clientv3.WithPrefix())
	t.NoError(err, "get")
	t.Check(found.Count == 100, "%d keys are there", found.Count)
	t.Check(found.Header.Revision == 101, "the revision is %d", found.Header.Revision)
	members, err := client.MemberList(t.ctx)
	t.NoError(err, "list the members")
	t.Check(len(members.Members) == 3, "there are %d members", len(members.Members))
	left, err := client.TimeToLive(t.ctx, lease.ID, clientv3.WithAttachedKeys())
	t.NoError(err, "ask for the lease")
	t.Check(len(left.Keys) == 100, "the lease has %d keys", len(left.Keys))
	c.leader().kill()
	rest := c.connect(c.running()...)
	defer rest.Close()
	t.Wait("a put without the old leader", func() bool {
		ctx, cancel := context.WithTimeout(t.ctx, 10*time.Second)
		defer cancel()
		_, err := rest.Put(ctx, "after", "value")
		return err == nil
	})
	c.agree()
}

// differing is a cluster of three, of which the last holds another value than the others.
func differing(t *T, flags ...string) *cluster {
	var backups []string
	for _, value := range []string{"good", "other"} {
		one := found(t, 1)
		client := one.connect(one.members[0])
		_, err := client.Put(t.ctx, "key", value)
		t.NoError(err, "put")
		client.Close()
		backups = append(backups, one.save(value))
		one.members[0].kill()
	}
	c := restored(t, backups[0], backups[0], backups[1])
	c.startAll(flags...)
	return c
}

// accused waits for an alarm and says whose it is.
func (c *cluster) accused() uint64 {
	client := c.connect(c.members...)
	defer client.Close()
	var accused uint64
	c.t.Wait("an alarm", func() bool {
		ctx, cancel := context.WithTimeout(c.t.ctx, caseTimeMax)
		defer cancel()
		alarms, err := client.AlarmList(ctx)
		if err != nil || len(alarms.Alarms) == 0 {
			return false
		}
		accused = alarms.Alarms[0].MemberID
		kind := alarms.Alarms[0].Alarm
		c.t.Check(kind == etcdserverpb.AlarmType_CORRUPT, "the alarm is %v", kind)
		c.t.Check(len(alarms.Alarms) == 1, "there are %d alarms", len(alarms.Alarms))
		return true
	})
	_, err := client.Put(c.t.ctx, "key", "value")
	isRefused := err != nil && strings.Contains(err.Error(), "corrupt cluster")
	c.t.Check(isRefused, "a put into a corrupt cluster: %v", err)
	return accused
}

func (c *cluster) id(one *member) uint64 {
	state, err := c.status(one)
	c.t.NoError(err, "status")
	return state.Header.MemberId
}

func periodicCheckFindsIt(t *T) {
	c := differing(t, "--corrupt-check-time=1s")
	bad := c.members[2]
	leader := c.leader()
	accused := c.accused()
	if leader == bad || c.leader() == bad {
		// A leader that is alone with what it holds takes the others for corrupt.
		return
	}
	t.Check(accused == c.id(bad), "%x is accused instead of %x", accused, c.id(bad))
}

func compactionCheckFindsIt(t *T) {
	c := differing(t, "--compact-hash-check-time=1s", "--feature-gates=CompactHashCheck=true")
	client := c.connect(c.members...)
	defer client.Close()
	_, err := client.Put(t.ctx, "second", "value")
	t.NoError(err, "put")
	_, err = client.Compact(t.ctx, 3)
	t.NoError(err, "compact")
	accused, bad := c.accused(), c.id(c.members[2])
	t.Check(accused == bad, "%x is accused instead of %x", accused, bad)
}

func startFindsIt(t *T) {
	c := differing(t)
	good, bad := c.members[0], c.members[2]
	const gate = "--feature-gates=InitialCorruptCheck=true"
	bad.kill()
	c.start(bad, "new", gate)
	select {
	case err := <-bad.ended:
		bad.process = nil
		t.Check(err != nil, "it ended as if all were well")
	case <-t.ctx.Done():
		t.Failf("a member that differs was started")
		panic(stopCase{})
	}
	log, err := os.ReadFile(bad.log)
	t.NoError(err, "read the log")
	const text = "found data inconsistency with peers"
	t.Check(strings.Contains(string(log), text), "the log does not say why")
	// A sound one starts beside what it can compare itself with.
	good.kill()
	c.start(good, "new", gate)
	c.waitFor(good)
}
