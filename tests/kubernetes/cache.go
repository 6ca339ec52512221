package main

import (
	"context"
	"fmt"
	"maps"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
)

// cache is what the API server keeps of a kind of object: a list, and all that a watch told since.
type cache struct {
	t        *T
	revision int64
	objects  map[string]*mvccpb.KeyValue
	watch    clientv3.WatchChan
	events   int
	cancel   context.CancelFunc
}

// newCache lists in pages and watches from the revision after.
func newCache(t *T) *cache {
	kvs, revision, err := t.ListAll(pageSize)
	t.NoError(err, "list")
	c := &cache{t: t, revision: revision, objects: map[string]*mvccpb.KeyValue{}}
	for _, kv := range kvs {
		c.objects[string(kv.Key)] = kv
	}
	// A leader is required, as the API server does, so that a cut-off member ends the watch.
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(t.Ctx))
	c.cancel = cancel
	c.watch = t.Client.Watch(ctx, t.Prefix, clientv3.WithPrefix(), clientv3.WithPrevKV(),
		clientv3.WithRev(revision+1), clientv3.WithProgressNotify())
	return c
}

// apply takes in one event, which must follow from what the cache holds.
func (c *cache) apply(event *clientv3.Event) {
	key := string(event.Kv.Key)
	before := c.objects[key]
	revision := event.Kv.ModRevision
	c.t.Check(revision >= c.revision, "an event of %d after %d", revision, c.revision)
	if (before == nil) != (event.PrevKv == nil) {
		c.t.Failf("%s was %v before, and the event says %v", key, before, event.PrevKv)
	} else if before != nil && before.String() != event.PrevKv.String() {
		c.t.Failf("%s was %v before, and the event says %v", key, before, event.PrevKv)
	}
	c.t.Check(event.IsCreate() == (before == nil && event.Type == mvccpb.Event_PUT),
		"%s: a create is told as %v", key, event)
	if event.Type == mvccpb.Event_DELETE {
		delete(c.objects, key)
	} else {
		c.objects[key] = event.Kv
	}
	c.revision = revision
	c.events++
}

// follow takes in what the watch tells until a condition holds.
func (c *cache) follow(isEnough func(clientv3.WatchResponse) bool) {
	for response := range c.watch {
		c.t.NoError(response.Err(), "watch")
		for _, event := range response.Events {
			c.apply(event)
		}
		c.t.Check(response.Header.Revision >= c.revision,
			"a response of revision %d with events up to %d", response.Header.Revision, c.revision)
		if isEnough(response) {
			return
		}
	}
	c.t.NoError(fmt.Errorf("it ended"), "watch")
}

// check says whether the cache is what lived at its newest event.
func (c *cache) check() {
	live := c.t.history.at(c.revision)
	got := map[string]object{}
	for key, kv := range c.objects {
		got[key] = object{string(kv.Value), kv.CreateRevision, kv.ModRevision, kv.Version}
	}
	c.t.Check(maps.Equal(got, live), "the cache at %d is not what lived then", c.revision)
}

func cacheFollowsFromItsList(t *T) {
	const count = 700
	furnish(t, count)
	stop := make(chan struct{})
	writers := churn(t, count, stop)
	caches := []*cache{newCache(t), newCache(t), newCache(t)}
	for _, cache := range caches {
		defer cache.cancel()
		cache.follow(func(clientv3.WatchResponse) bool { return cache.events > 500 })
	}
	close(stop)
	writers.Wait()
	last := t.Create("last", "")
	for _, cache := range caches {
		cache.follow(func(clientv3.WatchResponse) bool { return cache.revision == last })
		cache.check()
	}
	late := newCache(t)
	defer late.cancel()
	late.check()
}

// progressTellsHowNewACacheIs asks for progress as the API server does before it answers a
// consistent list from its cache: what was written before the question must have been told before
// the answer.
func progressTellsHowNewACacheIs(t *T) {
	const count = 200
	furnish(t, count)
	cache := newCache(t)
	defer cache.cancel()
	stop := make(chan struct{})
	writers := churn(t, count, stop)
	// What was told when progress was, and the revision that was promised with it.
	type promise struct{ told, promised int64 }
	var promises []promise
	for range 20 {
		wanted, err := t.List(0, 1, "")
		t.NoError(err, "list")
		stopAsking := askForProgress(t)
		cache.follow(func(response clientv3.WatchResponse) bool {
			if response.IsProgressNotify() {
				promises = append(promises, promise{cache.revision, response.Header.Revision})
			}
			return response.IsProgressNotify() && response.Header.Revision >= wanted.Revision
		})
		stopAsking()
	}
	close(stop)
	writers.Wait()
	for _, promise := range promises {
		for revision := promise.told + 1; revision <= promise.promised; revision++ {
			_, written := t.history.writes[revision]
			t.Check(!written, "revision %d was not told before the progress to %d", revision,
				promise.promised)
		}
	}
	last := t.Create("last", "")
	cache.follow(func(clientv3.WatchResponse) bool { return cache.revision == last })
	cache.check()
}

// askForProgress asks again and again until the returned function is called: etcd answers only
// when the stream has told all, and is silent otherwise.
func askForProgress(t *T) func() {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(t.Ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if err := t.Client.RequestProgress(ctx); err != nil && ctx.Err() == nil {
				t.Failf("request progress: %v", err)
				return
			}
			// A round trip paces the questions.
			_, _ = t.Client.Kubernetes.Get(ctx, t.Key("pace"), kubernetes.GetOptions{})
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

func watchBelowACompaction(t *T) {
	first := t.Create("pod", "one")
	second := t.Update("pod", "two", first)
	third := t.Update("pod", "three", second)
	_, err := t.Client.Compact(t.Ctx, third)
	t.NoError(err, "compact")
	watch := t.Client.Watch(t.Ctx, t.Prefix, clientv3.WithPrefix(), clientv3.WithRev(first))
	response := <-watch
	t.WantError("watch", response.Err(), rpctypes.ErrCompacted)
	compacted := response.CompactRevision
	t.Check(compacted == third, "compacted to %d, want %d", compacted, third)
	_, open := <-watch
	t.Check(!open, "the watch goes on")
	// What is left at the compacted revision can be listed, and watched from there.
	kept := t.Client.Watch(t.Ctx, t.Prefix, clientv3.WithPrefix(), clientv3.WithRev(third),
		clientv3.WithPrevKV())
	response = <-kept
	t.NoError(response.Err(), "watch from the compacted revision")
	if len(response.Events) != 1 || response.Events[0].Kv.ModRevision != third {
		t.Failf("the compacted revision's events are %v", response.Events)
	} else if response.Events[0].PrevKv != nil {
		t.Failf("what was compacted is told as %v", response.Events[0].PrevKv)
	}
}
