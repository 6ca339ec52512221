package main

import (
	"errors"
	"strconv"
	"sync"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// compactOnce is a turn of one of several compactors: who counts a key on first compacts to the
// revision that it read the turn before. Returns whether it did, the new count and revision.
func compactOnce(t *T, key string, count, revision int64) (bool, int64, int64, error) {
	turn, err := t.Client.Txn(t.Ctx).
		If(clientv3.Compare(clientv3.Version(key), "=", count)).
		Then(clientv3.OpPut(key, strconv.FormatInt(revision, 10))).
		Else(clientv3.OpGet(key)).
		Commit()
	if err != nil {
		return false, count, revision, err
	}
	now := turn.Header.Revision
	if !turn.Succeeded {
		kvs := turn.Responses[0].GetResponseRange().Kvs
		if len(kvs) != 1 {
			return false, count, revision, errors.New("a refusal shows no counter")
		}
		return false, kvs[0].Version, now, nil
	}
	if revision == 0 {
		// Nobody compacts what it has not seen for a while.
		return true, count + 1, now, nil
	}
	_, err = t.Client.Compact(t.Ctx, revision)
	return true, count + 1, now, err
}

func oneOfSeveralCompactorsWins(t *T) {
	const compactors, turns = 3, 20
	key := t.Key("compact_rev_key")
	var won atomic.Int64
	var group sync.WaitGroup
	for range compactors {
		group.Go(func() {
			var count, revision int64
			for turn := range turns {
				_, _ = t.tryPut("object", strconv.Itoa(turn), 0)
				did, nextCount, nextRevision, err := compactOnce(t, key, count, revision)
				// Two may win one after the other, the later with the smaller revision.
				if err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
					t.Failf("compact: %v", err)
					return
				}
				if did {
					won.Add(1)
				}
				count, revision = nextCount, nextRevision
			}
		})
	}
	group.Wait()
	kept, err := t.Client.KV.Get(t.Ctx, key)
	t.NoError(err, "get the counter")
	if len(kept.Kvs) != 1 || kept.Kvs[0].Version != won.Load() {
		t.Failf("%d turns were won, and the counter is %v", won.Load(), kept.Kvs)
	}
}

// compactionCutsAListOrLeavesItWhole pages through lists while a compactor follows the writers
// closely: a page of a compacted revision is refused, and any other is exact.
func compactionCutsAListOrLeavesItWhole(t *T) {
	const count, lists = 1200, 25
	furnish(t, count)
	stop := make(chan struct{})
	writers := churn(t, count, stop)
	var compactions atomic.Int64
	var compactor sync.WaitGroup
	compactor.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			page, err := t.List(0, 1, "")
			if err == nil {
				_, err = t.Client.Compact(t.Ctx, page.Revision)
			}
			if err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
				t.Failf("compact: %v", err)
				return
			}
			compactions.Add(1)
		}
	})
	var moments []moment
	cut := 0
	for whole := 0; whole < lists && cut < 20*lists; {
		// Large pages as well, so that some lists end before the next compaction.
		limit := int64(pageSize)
		if (whole+cut)%2 == 0 {
			limit = 0
		}
		kvs, revision, err := t.ListAll(limit)
		switch {
		case errors.Is(err, rpctypes.ErrCompacted):
			cut++
		case err != nil:
			t.Failf("list: %v", err)
			cut = 20 * lists
		default:
			whole++
			moments = append(moments, moment{revision, kvs})
		}
	}
	close(stop)
	writers.Wait()
	compactor.Wait()
	t.Check(compactions.Load() > 0, "nothing was compacted beside the lists")
	t.Check(len(moments) > 0, "no list came to its end")
	for _, moment := range moments {
		t.history.checkMoment(t, "list beside compactions", moment.revision, moment.kvs)
	}
	kvs, revision, err := t.ListAll(pageSize)
	t.NoError(err, "list afterwards")
	t.history.checkMoment(t, "list afterwards", revision, kvs)
}
