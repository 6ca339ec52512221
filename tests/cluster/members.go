package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// member is one process of a cluster.
type member struct {
	name    string
	client  string
	peer    string
	dataDir string
	log     string
	process *exec.Cmd
	ended   chan error
}

// cluster is the members of a case.
type cluster struct {
	t       *T
	members []*member
	count   int
}

// newMember finds ports that nobody listened on a moment ago.
func (c *cluster) newMember() *member {
	c.count++
	name := fmt.Sprintf("infra%d", c.count)
	var urls []string
	var listeners []net.Listener
	for range 2 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		c.t.NoError(err, "find a port")
		listeners = append(listeners, listener)
		urls = append(urls, "http://"+listener.Addr().String())
	}
	for _, listener := range listeners {
		listener.Close()
	}
	// A case may have several clusters.
	directory, err := os.MkdirTemp(c.t.directory, name+"-")
	c.t.NoError(err, "make a directory")
	one := &member{
		name: name, client: urls[0], peer: urls[1],
		dataDir: filepath.Join(directory, "data"), log: filepath.Join(directory, "log"),
	}
	c.members = append(c.members, one)
	return one
}

// found starts a cluster of so many members and waits until all of them answer.
func found(t *T, count int) *cluster {
	c := &cluster{t: t}
	for range count {
		c.newMember()
	}
	for _, one := range c.members {
		c.start(one, "new")
	}
	for _, one := range c.members {
		c.waitFor(one)
	}
	return c
}

// initial is what the members are told of each other.
func (c *cluster) initial() string {
	var initial []string
	for _, each := range c.members {
		initial = append(initial, each.name+"="+each.peer)
	}
	return strings.Join(initial, ",")
}

// start starts a member, for the first time or again.
func (c *cluster) start(one *member, state string, flags ...string) {
	log, err := os.OpenFile(one.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	c.t.NoError(err, "open a log")
	defer log.Close()
	arguments := []string{
		"--name", one.name, "--data-dir", one.dataDir,
		"--listen-client-urls", one.client, "--advertise-client-urls", one.client,
		"--listen-peer-urls", one.peer, "--initial-advertise-peer-urls", one.peer,
		"--initial-cluster", c.initial(), "--initial-cluster-state", state,
		"--initial-cluster-token", "tested",
	}
	one.process = exec.Command(*server, append(arguments, flags...)...)
	one.process.Stdout, one.process.Stderr = log, log
	c.t.NoError(one.process.Start(), "start "+one.name)
	c.t.started = append(c.t.started, one)
	process, ended := one.process, make(chan error, 1)
	one.ended = ended
	go func() { ended <- process.Wait() }()
}

// kill ends a member as a power cut would.
func (m *member) kill() {
	if m.process != nil {
		m.process.Process.Signal(syscall.SIGKILL)
		<-m.ended
		m.process = nil
	}
}

// stop asks a member to end, and says how it did.
func (m *member) stop() error {
	m.process.Process.Signal(syscall.SIGTERM)
	err := <-m.ended
	m.process = nil
	return err
}

// connect makes a client of some members.
func (c *cluster) connect(members ...*member) *clientv3.Client {
	var endpoints []string
	for _, one := range members {
		endpoints = append(endpoints, one.client)
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, Context: c.t.ctx, DialTimeout: 20 * time.Second,
		// The client's own warnings would only repeat what the cases say.
		Logger: zap.NewNop(),
	})
	c.t.NoError(err, "connect")
	return client
}

// waitFor waits until a member answers what only a cluster with a leader can.
func (c *cluster) waitFor(one *member) {
	client := c.connect(one)
	defer client.Close()
	c.t.Wait(one.name+" answers", func() bool {
		select {
		case err := <-one.ended:
			one.ended <- err
			lines, _ := os.ReadFile(one.log)
			c.t.Failf("%s ended: %v\n%s", one.name, err, tail(string(lines)))
			panic(stopCase{})
		default:
		}
		ctx, cancel := context.WithTimeout(c.t.ctx, 2*time.Second)
		defer cancel()
		_, err := client.Get(ctx, "health")
		return err == nil
	})
}

func tail(lines string) string {
	all := strings.Split(strings.TrimSpace(lines), "\n")
	return strings.Join(all[max(0, len(all)-15):], "\n")
}

// leader asks the members that run which of them leads.
func (c *cluster) leader() *member {
	var leader *member
	c.t.Wait("a leader", func() bool {
		for _, one := range c.running() {
			status, err := c.status(one)
			if err == nil && status.Leader == status.Header.MemberId {
				leader = one
				return true
			}
		}
		return false
	})
	return leader
}

func (c *cluster) status(one *member) (*clientv3.StatusResponse, error) {
	client := c.connect(one)
	defer client.Close()
	ctx, cancel := context.WithTimeout(c.t.ctx, 2*time.Second)
	defer cancel()
	return client.Status(ctx, one.client)
}

func (c *cluster) running() []*member {
	var running []*member
	for _, one := range c.members {
		if one.process != nil {
			running = append(running, one)
		}
	}
	return running
}

// follower is a member that does not lead.
func (c *cluster) follower() *member {
	leader := c.leader()
	for _, one := range c.running() {
		if one != leader {
			return one
		}
	}
	c.t.Failf("there is no follower")
	panic(stopCase{})
}

// agree waits until all members that run say the same of the whole history.
func (c *cluster) agree() {
	c.t.Wait("the members agree", func() bool {
		revisions, hashes := map[int64]bool{}, map[uint32]bool{}
		for _, one := range c.running() {
			client := c.connect(one)
			ctx, cancel := context.WithTimeout(c.t.ctx, 5*time.Second)
			hash, err := client.HashKV(ctx, one.client, 0)
			cancel()
			client.Close()
			if err != nil {
				return false
			}
			revisions[hash.Header.Revision], hashes[hash.Hash] = true, true
		}
		return len(revisions) == 1 && len(hashes) == 1
	})
}
