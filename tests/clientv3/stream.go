package main

import (
	"fmt"
	"math"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// What the client hides: the messages of one watch stream.
func streamCases() []testCase {
	return []testCase{
		{"ids are the client's, or the next that is free", streamIds},
		{"an id that is taken is refused", streamIdTaken},
		{"what cannot be watched is created and cancelled at once", streamRefusals},
		{"a start below the compaction is created, then cancelled", streamCompacted},
		{"a cancel is answered once", streamCancel},
		{"progress has the id -1 and no events", streamProgress},
		{"a request of no kind is passed over", streamNoKind},
		{"an empty key and open end watch everything", streamEverything},
		{"a client that has said all still hears", streamHalfClosed},
		{"without fragments a large revision is one message", streamLarge},
	}
}

type watchStream struct {
	t      *T
	stream pb.Watch_WatchClient
}

func (t *T) stream() *watchStream { return t.streamOf(t.Client) }

func (t *T) streamOf(client *clientv3.Client) *watchStream {
	// Several events of a catch-up share a message, which may pass gRPC's default of 4 MiB.
	anySize := grpc.MaxCallRecvMsgSize(math.MaxInt32)
	stream, err := pb.NewWatchClient(client.ActiveConnection()).Watch(t.Ctx, anySize)
	t.NoError(err, "open a watch stream")
	return &watchStream{t, stream}
}

func (s *watchStream) send(request *pb.WatchRequest) {
	s.t.NoError(s.stream.Send(request), "send")
}

func (s *watchStream) create(request *pb.WatchCreateRequest) {
	s.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: request}})
}

func (s *watchStream) cancel(id int64) {
	request := &pb.WatchCancelRequest{WatchId: id}
	s.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: request}})
}

func (s *watchStream) progress() {
	request := &pb.WatchProgressRequest{}
	s.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: request}})
}

func (s *watchStream) next() *pb.WatchResponse {
	response, err := s.stream.Recv()
	s.t.NoError(err, "receive")
	return response
}

// created creates a watch and returns its id.
func (s *watchStream) created(request *pb.WatchCreateRequest) int64 {
	s.create(request)
	response := s.next()
	if !response.Created || response.Canceled {
		s.t.Stopf("not created: %v", response)
	}
	return response.WatchId
}

func streamIds(t *T) {
	s := t.stream()
	key := []byte(t.Key("k"))
	Equal(t, "the client's", s.created(&pb.WatchCreateRequest{Key: key, WatchId: 2}), 2)
	Equal(t, "a large one", s.created(&pb.WatchCreateRequest{Key: key, WatchId: 1 << 50}), 1<<50)
	for _, want := range []int64{0, 1, 3, 4} {
		Equal(t, "the next", s.created(&pb.WatchCreateRequest{Key: key}), want)
	}
	other := t.stream()
	Equal(t, "of another stream", other.created(&pb.WatchCreateRequest{Key: key}), 0)
	revision := t.Put(t.Key("k"), "v")
	seen := map[int64]bool{}
	for range 6 {
		response := s.next()
		t.Check(len(response.Events) == 1 && !seen[response.WatchId], "response %v", response)
		seen[response.WatchId] = true
		Equal(t, "header", response.Header.Revision, revision)
	}
}

func streamIdTaken(t *T) {
	s := t.stream()
	key := []byte(t.Key("k"))
	s.created(&pb.WatchCreateRequest{Key: key, WatchId: 7})
	s.create(&pb.WatchCreateRequest{Key: key, WatchId: 7})
	s.refused("mvcc: duplicate watch ID provided on the WatchStream")
	t.Put(t.Key("k"), "v")
	Equal(t, "the first lives", s.next().WatchId, 7)
	s.cancel(7)
	Equal(t, "canceled", s.next().Canceled, true)
	Equal(t, "free again", s.created(&pb.WatchCreateRequest{Key: key, WatchId: 7}), 7)
}

func (s *watchStream) refused(reason string) {
	response := s.next()
	Equal(s.t, "id of "+reason, response.WatchId, -1)
	Equal(s.t, "created of "+reason, response.Created, true)
	Equal(s.t, "canceled of "+reason, response.Canceled, true)
	Equal(s.t, "reason", response.CancelReason, reason)
}

func streamRefusals(t *T) {
	s := t.stream()
	a, b := []byte(t.Key("a")), []byte(t.Key("b"))
	s.create(&pb.WatchCreateRequest{Key: b, RangeEnd: a})
	s.refused("mvcc: watcher range is empty")
	s.create(&pb.WatchCreateRequest{Key: b, RangeEnd: b})
	s.refused("mvcc: watcher range is empty")
	s.create(&pb.WatchCreateRequest{Key: b, StartRevision: -1})
	s.refused("etcdserver: mvcc: required revision has been compacted")
	Equal(t, "the stream lives", s.created(&pb.WatchCreateRequest{Key: b}), 0)
}

func streamCompacted(t *T) {
	first := t.Put(t.Key("k"), "1")
	last := t.Put(t.Key("k"), "2")
	t.compact(last)
	s := t.stream()
	id := s.created(&pb.WatchCreateRequest{Key: []byte(t.Key("k")), StartRevision: first})
	response := s.next()
	Equal(t, "id", response.WatchId, id)
	Equal(t, "canceled", response.Canceled, true)
	Equal(t, "compact_revision", response.CompactRevision, last)
	Equal(t, "created", response.Created, false)
	Equal(t, "reason", response.CancelReason, "")
	Equal(t, "header's revision", response.Header.Revision, 0)
}

func streamCancel(t *T) {
	s := t.stream()
	key := []byte(t.Key("k"))
	gone := s.created(&pb.WatchCreateRequest{Key: key})
	kept := s.created(&pb.WatchCreateRequest{Key: key})
	s.cancel(99)
	s.cancel(gone)
	s.cancel(gone)
	response := s.next()
	Equal(t, "canceled", response.Canceled, true)
	Equal(t, "id", response.WatchId, gone)
	Equal(t, "created", response.Created, false)
	t.Put(t.Key("k"), "v")
	response = s.next()
	Equal(t, "id of the event", response.WatchId, kept)
	Equal(t, "events", len(response.Events), 1)
}

func streamProgress(t *T) {
	s := t.stream()
	s.created(&pb.WatchCreateRequest{Key: []byte(t.Key("k"))})
	revision := t.Put(t.Key("unwatched"), "")
	// Answered only when the stream has caught up, so it is asked again until it is.
	answers := make(chan *pb.WatchResponse, 1)
	go func() {
		if response, err := s.stream.Recv(); err == nil {
			answers <- response
		}
	}()
	for {
		s.progress()
		t.Get(t.Key("k"))
		select {
		case response := <-answers:
			Equal(t, "id", response.WatchId, -1)
			Equal(t, "events", len(response.Events), 0)
			t.Check(response.Header.Revision >= revision, "revision %d, put %d",
				response.Header.Revision, revision)
			t.Check(!response.Created && !response.Canceled, "response %v", response)
			return
		case <-t.Ctx.Done():
			t.Stopf("no progress")
		default:
		}
	}
}

func streamNoKind(t *T) {
	s := t.stream()
	s.send(&pb.WatchRequest{})
	Equal(t, "the next", s.created(&pb.WatchCreateRequest{Key: []byte(t.Key("k"))}), 0)
}

func streamEverything(t *T) {
	s := t.stream()
	s.created(&pb.WatchCreateRequest{RangeEnd: []byte{0}})
	t.Put("\x00"+t.prefix, "low")
	t.Put("\xff\xff"+t.prefix, "high")
	t.Delete("\x00" + t.prefix)
	t.Delete("\xff\xff" + t.prefix)
	var words []string
	for len(words) < 4 {
		for _, event := range s.next().Events {
			words = append(words, fmt.Sprintf("%v:%s", event.Type, event.Kv.Value))
		}
	}
	Equal(t, "events", strings.Join(words, " "), "PUT:low PUT:high DELETE: DELETE:")
	// Without an end, an empty key is the key of one zero byte.
	one := t.stream()
	one.created(&pb.WatchCreateRequest{})
	t.Put(t.Key("unwatched"), "")
	t.Put("\x00", "zero")
	response := one.next()
	t.EqualBytes("value", response.Events[0].Kv.Value, "zero")
	t.Delete("\x00")
}

func streamHalfClosed(t *T) {
	s := t.stream()
	s.created(&pb.WatchCreateRequest{Key: []byte(t.Key("k"))})
	t.NoError(s.stream.CloseSend(), "half close")
	for i := range 3 {
		t.Put(t.Key("k"), fmt.Sprint(i))
		t.EqualBytes("value", s.next().Events[0].Kv.Value, fmt.Sprint(i))
	}
}

func streamLarge(t *T) {
	const keys, size = 100, 14 << 10
	write := func(fill string) {
		var ops []clientv3.Op
		for i := range keys {
			value := strings.Repeat(fill, size)
			ops = append(ops, clientv3.OpPut(t.Key(fmt.Sprintf("%03d", i)), value))
		}
		t.commit(t.Client.Txn(t.Ctx).Then(ops...))
	}
	write("a")
	s := t.stream()
	s.created(&pb.WatchCreateRequest{
		Key: []byte(t.Key("")), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(t.Key(""))), PrevKv: true,
	})
	write("b")
	response := s.next()
	Equal(t, "events", len(response.Events), keys)
	Equal(t, "fragment", response.Fragment, false)
	for i, event := range response.Events {
		Equal(t, "key", t.Short(event.Kv.Key), fmt.Sprintf("%03d", i))
		t.Check(strings.Count(string(event.Kv.Value), "b") == size, "value %d", i)
		t.Check(strings.Count(string(event.PrevKv.GetValue()), "a") == size, "previous value %d", i)
	}
}
