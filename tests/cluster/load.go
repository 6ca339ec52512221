package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// writers put at the same time.
const writers = 32

// load is puts through all endpoints, each of a key of its own.
type load struct {
	t       *T
	client  *clientv3.Client
	prefix  string
	next    atomic.Int64
	mutex   sync.Mutex
	taken   map[string]int64
	unclear map[string]error
}

func newLoad(c *cluster, prefix string) *load {
	return &load{
		t: c.t, client: c.connect(c.members...), prefix: prefix,
		taken: map[string]int64{}, unclear: map[string]error{},
	}
}

// run puts until there are so many, or until done is closed.
func (l *load) run(count int64, done <-chan struct{}) {
	var group sync.WaitGroup
	for range writers {
		group.Add(1)
		go func() {
			defer group.Done()
			for {
				number := l.next.Add(1)
				select {
				case <-done:
					return
				default:
				}
				if number > count {
					return
				}
				l.put(number)
			}
		}()
	}
	group.Wait()
}

func (l *load) put(number int64) {
	key := fmt.Sprintf("%s%06d", l.prefix, number)
	ctx, cancel := context.WithTimeout(l.t.ctx, 10*time.Second)
	defer cancel()
	answer, err := l.client.Put(ctx, key, "value of "+key)
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if err == nil {
		l.taken[key] = answer.Header.Revision
		return
	}
	l.unclear[key] = err
	if !isClear(err) {
		l.t.Failf("%s failed unclearly: %v", key, err)
	}
}

// isClear says whether an error tells a client what to think: its time is over, or the cluster
// could not answer. Anything else would be a bug.
func isClear(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	var known rpctypes.EtcdError
	if errors.As(err, &known) {
		code := known.Code()
		return code == codes.Unavailable || code == codes.DeadlineExceeded
	}
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

// progress waits until so many puts were begun.
func (l *load) progress(count int64) {
	l.t.Wait("the load gets on", func() bool { return l.next.Load() >= count })
}

// check reads everything back: what was taken is there with its revision, what was not taken may
// be, and nothing else is.
func (l *load) check() {
	ctx, cancel := context.WithTimeout(l.t.ctx, 60*time.Second)
	defer cancel()
	found := map[string]int64{}
	key := l.prefix
	for {
		page, err := l.client.Get(ctx, key, clientv3.WithLimit(1000),
			clientv3.WithRange(clientv3.GetPrefixRangeEnd(l.prefix)))
		l.t.NoError(err, "read everything back")
		for _, each := range page.Kvs {
			found[string(each.Key)] = each.ModRevision
			l.t.Check(string(each.Value) == "value of "+string(each.Key), "%s = %q", each.Key, each.Value)
		}
		if !page.More {
			break
		}
		key = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for key, revision := range l.taken {
		got, isThere := found[key]
		l.t.Check(isThere, "%s was answered and is lost", key)
		l.t.Check(!isThere || got == revision, "%s: revision %d, answered %d", key, got, revision)
		delete(found, key)
	}
	for key := range l.unclear {
		delete(found, key)
	}
	l.t.Check(len(found) == 0, "%d keys that nobody wrote", len(found))
	l.client.Close()
}

func putsWhileAFollowerIsStopped(t *T) {
	c := found(t, 3)
	putsWhileStopped(c, c.follower())
}

func putsWhileTheLeaderIsStopped(t *T) {
	c := found(t, 3)
	putsWhileStopped(c, c.leader())
}

func putsWhileStopped(c *cluster, victim *member) {
	total := int64(*putCount)
	l := newLoad(c, "load/")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.run(total, nil)
	}()
	l.progress(total / 3)
	victim.kill()
	l.progress(total * 2 / 3)
	c.start(victim, "existing")
	<-ended
	c.waitFor(victim)
	c.agree()
	l.check()
	l.mutex.Lock()
	defer l.mutex.Unlock()
	c.t.Check(int64(len(l.taken)+len(l.unclear)) == total, "%d taken, %d failed, of %d",
		len(l.taken), len(l.unclear), total)
	c.t.Check(len(l.unclear) < len(l.taken), "%d of %d puts failed", len(l.unclear), total)
}
