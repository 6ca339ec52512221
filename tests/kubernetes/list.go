package main

import (
	"fmt"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/v3/kubernetes"
)

// pageSize is what the API server's clients ask for at once.
const pageSize = 500

// furnish makes many objects, some of them changed and some gone again.
func furnish(t *T, count int) {
	var group sync.WaitGroup
	const writers = 16
	for writer := range writers {
		group.Go(func() {
			for number := writer; number < count; number += writers {
				name := fmt.Sprintf("pods/%05d", number)
				made, err := t.tryPut(name, fmt.Sprint("made ", number), 0)
				if err == nil && number%3 == 0 {
					_, err = t.tryPut(name, fmt.Sprint("changed ", number), made.Revision)
				}
				if err == nil && number%7 == 1 {
					_, err = t.tryDelete(name, made.Revision)
				}
				if err != nil {
					t.Failf("%s: %v", name, err)
					return
				}
			}
		})
	}
	group.Wait()
}

// churn changes, deletes and makes objects until told to stop.
func churn(t *T, count int, stop <-chan struct{}) *sync.WaitGroup {
	var group sync.WaitGroup
	const writers = 4
	for writer := range writers {
		group.Go(func() {
			for round := writer; ; round += writers {
				select {
				case <-stop:
					return
				default:
				}
				name := fmt.Sprintf("pods/%05d", round*31%count)
				seen, err := t.tryPut(name, fmt.Sprint("churned ", round), 0)
				if err == nil && !seen.Succeeded && seen.KV != nil {
					if round%5 == 0 {
						_, err = t.tryDelete(name, seen.KV.ModRevision)
					} else {
						_, err = t.tryPut(name, fmt.Sprint("churned ", round), seen.KV.ModRevision)
					}
				}
				if err != nil {
					t.Failf("%s: %v", name, err)
					return
				}
			}
		})
	}
	return &group
}

// moment is a whole list and the revision it was told to be of.
type moment struct {
	revision int64
	kvs      []*mvccpb.KeyValue
}

func listInPagesIsOneMoment(t *T) {
	const count = 1700
	furnish(t, count)
	stop := make(chan struct{})
	writers := churn(t, count, stop)
	var moments []moment
	for range 6 {
		kvs, revision, err := t.ListAll(pageSize)
		if err != nil {
			t.Failf("list: %v", err)
			break
		}
		moments = append(moments, moment{revision, kvs})
	}
	close(stop)
	writers.Wait()
	for _, moment := range moments {
		t.history.checkMoment(t, "list in pages", moment.revision, moment.kvs)
	}
	t.Check(moments != nil && moments[0].revision < moments[len(moments)-1].revision,
		"nothing was written beside the lists")
	kvs, revision, err := t.ListAll(0)
	t.NoError(err, "list without pages")
	t.history.checkMoment(t, "list without pages", revision, kvs)
	counted, err := t.Client.Kubernetes.Count(t.Ctx, t.Prefix, kubernetes.CountOptions{})
	t.NoError(err, "count")
	t.Check(counted == int64(len(kvs)), "counted %d objects, want %d", counted, len(kvs))
}

func listAtOldRevisionIsThePast(t *T) {
	furnish(t, 300)
	_, last, err := t.ListAll(0)
	t.NoError(err, "list")
	for back := int64(0); back < 300; back += 23 {
		var kvs []*mvccpb.KeyValue
		after := ""
		for {
			page, err := t.List(last-back, 100, after)
			t.NoError(err, "list at an old revision")
			t.Check(page.Revision == last, "a page of the past is told at %d", page.Revision)
			kvs = append(kvs, page.Kvs...)
			if int64(len(page.Kvs)) == page.Count {
				break
			}
			after = string(page.Kvs[len(page.Kvs)-1].Key)
		}
		t.history.checkMoment(t, "list of the past", last-back, kvs)
	}
	_, err = t.List(last+1000, 100, "")
	t.WantError("list of the future", err, rpctypes.ErrFutureRev)
}
