package main

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/client/v3/kubernetes"
)

// write is one change of one object.
type write struct {
	key     string
	value   string
	deleted bool
}

// history is all writes by the revision the server gave them. It is read only when the writers are
// done: until then a revision that a reader has seen may not have come back to its writer.
type history struct {
	mutex  sync.Mutex
	writes map[int64]write
}

func newHistory() *history { return &history{writes: map[int64]write{}} }

func (h *history) note(t *T, revision int64, change write) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if other, taken := h.writes[revision]; taken {
		t.Failf("revision %d is given to %v and to %v", revision, other, change)
	}
	h.writes[revision] = change
}

// object is what the history says of one key at one moment.
type object struct {
	value                      string
	created, modified, version int64
}

// at is what lived at a revision.
func (h *history) at(revision int64) map[string]object {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	live := map[string]object{}
	for _, at := range slices.Sorted(maps.Keys(h.writes)) {
		if at > revision {
			break
		}
		change := h.writes[at]
		if change.deleted {
			delete(live, change.key)
			continue
		}
		before, existed := live[change.key]
		after := object{value: change.value, created: at, modified: at, version: 1}
		if existed {
			after.created, after.version = before.created, before.version+1
		}
		live[change.key] = after
	}
	return live
}

// checkMoment says whether objects in order are exactly what lived at a revision.
func (h *history) checkMoment(t *T, what string, revision int64, kvs []*mvccpb.KeyValue) {
	live := h.at(revision)
	t.Check(len(kvs) == len(live), "%s at %d: %d objects, want %d", what, revision, len(kvs),
		len(live))
	last := ""
	for _, kv := range kvs {
		key := string(kv.Key)
		t.Check(key > last, "%s at %d: %s comes after %s", what, revision, key, last)
		last = key
		got := object{string(kv.Value), kv.CreateRevision, kv.ModRevision, kv.Version}
		if want := live[key]; got != want {
			t.Failf("%s at %d: %s is %+v, want %+v", what, revision, key, got, want)
			return
		}
	}
}

// Create makes an object that must not exist, and returns its revision.
func (t *T) Create(name, value string) int64 { return t.Update(name, value, 0) }

// Update writes an object that must be of this revision, and returns the new one.
func (t *T) Update(name, value string, expected int64) int64 {
	put, err := t.tryPut(name, value, expected)
	t.NoError(err, "write "+name)
	if !put.Succeeded {
		t.NoError(fmt.Errorf("it is not of revision %d", expected), "write "+name)
	}
	return put.Revision
}

// Delete deletes an object that must be of this revision, and returns the revision of that.
func (t *T) Delete(name string, expected int64) int64 {
	gone, err := t.tryDelete(name, expected)
	t.NoError(err, "delete "+name)
	if !gone.Succeeded {
		t.NoError(fmt.Errorf("it is not of revision %d", expected), "delete "+name)
	}
	return gone.Revision
}

// tryPut writes an object if it is of this revision, and tells what it is otherwise.
func (t *T) tryPut(name, value string, expected int64) (kubernetes.PutResponse, error) {
	key := t.Key(name)
	options := kubernetes.PutOptions{GetOnFailure: true}
	put, err := t.Client.Kubernetes.OptimisticPut(t.Ctx, key, []byte(value), expected, options)
	if err == nil && put.Succeeded {
		t.history.note(t, put.Revision, write{key: key, value: value})
	}
	return put, err
}

// tryDelete deletes an object if it is of this revision, and tells what it is otherwise.
func (t *T) tryDelete(name string, expected int64) (kubernetes.DeleteResponse, error) {
	key := t.Key(name)
	options := kubernetes.DeleteOptions{GetOnFailure: true}
	gone, err := t.Client.Kubernetes.OptimisticDelete(t.Ctx, key, expected, options)
	if err == nil && gone.Succeeded {
		t.history.note(t, gone.Revision, write{key: key, deleted: true})
	}
	return gone, err
}

// List is one page.
func (t *T) List(revision, limit int64, after string) (kubernetes.ListResponse, error) {
	options := kubernetes.ListOptions{Revision: revision, Limit: limit}
	if after != "" {
		options.Continue = after + "\x00"
	}
	return t.Client.Kubernetes.List(t.Ctx, t.Prefix, options)
}

// ListAll is a list in pages, the later ones at the first one's revision.
func (t *T) ListAll(limit int64) ([]*mvccpb.KeyValue, int64, error) {
	var kvs []*mvccpb.KeyValue
	var revision int64
	after := ""
	for {
		page, err := t.List(revision, limit, after)
		if err != nil {
			return nil, revision, err
		}
		if revision == 0 {
			revision = page.Revision
		}
		kvs = append(kvs, page.Kvs...)
		if int64(len(page.Kvs)) == page.Count {
			return kvs, revision, nil
		}
		if len(page.Kvs) == 0 {
			return nil, revision, fmt.Errorf("an empty page with %d objects left", page.Count)
		}
		after = string(page.Kvs[len(page.Kvs)-1].Key)
	}
}
