package main

import (
	"fmt"
	"sort"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

const (
	// requestBytesMax is what the cases of sizes set --max-request-bytes to.
	requestBytesMax = 100_000
	// messageBytesMax is what gRPC takes then: half a megabyte more.
	messageBytesMax = requestBytesMax + 512<<10
	txnOpsMax       = 5
	streamsMax      = 3
)

func limitCases() []limitCase {
	bytes := []string{fmt.Sprintf("--max-request-bytes=%d", requestBytesMax)}
	ops := []string{fmt.Sprintf("--max-txn-ops=%d", txnOpsMax)}
	streams := []string{fmt.Sprintf("--max-concurrent-streams=%d", streamsMax)}
	return []limitCase{
		{"request bytes: the last that passes and the first that does not", bytes, requestSizes},
		{"message bytes: the last that gRPC takes and the first it does not", bytes, messageSizes},
		{"message bytes: a stream that sends too much ends alone", bytes, streamMessageSizes},
		{"txn ops: each list, and lists within lists", ops, txnOps},
		{"txn ops: none allowed", []string{"--max-txn-ops=0"}, txnOps},
		{"streams: one too many is refused, and room comes back", streams, streamsOpen},
		{"streams: no limit is told when there is none", nil, streamsUntold},
		{"pings: without a call", nil, pingsIdle},
		{"pings: with a call open", nil, pingsBeside},
		{"pings: answers wipe the record", nil, pingsForgiven},
		{"pings: as often as the flag allows", []string{"--grpc-keepalive-min-time=1ns"}, pingsAllowed},
		{"keep-alive: who is silent is pinged and dropped, who answers stays",
			[]string{"--grpc-keepalive-interval=1s", "--grpc-keepalive-timeout=1s"}, keepAlive},
		{"headers: as large as any client's", nil, headerSizes},
		{"deadline: calls that wait are ended", nil, deadlinesWaiting},
		{"deadline: calls that come too late", nil, deadlinesPast},
		{"deadline: a nonsense one", nil, deadlinesMalformed},
	}
}

// edge finds the largest size that passes, between one that does and one that does not.
func edge(low, high int, passes func(size int) bool) int {
	return low + sort.Search(high-low, func(more int) bool { return !passes(low + more + 1) })
}

func requestSizes(c *held) {
	k := c.connect(windowDefault)
	defer k.close()
	value := func(size int) []byte { return make([]byte, size) }
	lease := &pb.PutRequest{Key: []byte("k"), Lease: 1, PrevKv: true}
	for _, kind := range []struct {
		name, path string
		request    func(size int) proto.Message
	}{
		{"put", putPath, func(size int) proto.Message { return put("k", value(size)) }},
		{"put of a lease that is not there", putPath, func(size int) proto.Message {
			request := proto.Clone(lease).(*pb.PutRequest)
			request.Value = value(size)
			return request
		}},
		{"delete", deletePath, func(size int) proto.Message {
			return &pb.DeleteRangeRequest{Key: value(size), PrevKv: true}
		}},
		{"txn", txnPath, func(size int) proto.Message {
			return &pb.TxnRequest{
				Success: []*pb.RequestOp{putOp("a", value(size/2))},
				Failure: []*pb.RequestOp{putOp("b", value(size-size/2))},
			}
		}},
		{"txn that only reads", txnPath, func(size int) proto.Message {
			return &pb.TxnRequest{Success: []*pb.RequestOp{rangeOp(string(value(size)))}}
		}},
		{"range", rangePath, func(size int) proto.Message {
			return &pb.RangeRequest{Key: value(size)}
		}},
	} {
		refused := func(size int) string {
			outcome := k.call(kind.path, encoded(kind.request(size)))
			if strings.Contains(outcome, "too large") {
				return outcome
			}
			return ""
		}
		passes := func(size int) bool { return refused(size) == "" }
		last := edge(requestBytesMax/2, 2*requestBytesMax, passes)
		c.see("%s: %d passes, then %s", kind.name, last, refused(last+1))
	}
}

func messageSizes(c *held) {
	k := c.connect(windowDefault)
	defer k.close()
	read := encoded(&pb.RangeRequest{Key: []byte("k")})
	for _, path := range []string{rangePath, streamPath, "/etcdserverpb.Lease/LeaseLeases"} {
		for _, size := range []int{
			messageBytesMax - 1, messageBytesMax, messageBytesMax + 1, 3 * messageBytesMax,
		} {
			payload := filled(read, size)
			if path == "/etcdserverpb.Lease/LeaseLeases" {
				payload = filled(nil, size)
			}
			c.see("%s of %d: %s", path, size, k.call(path, payload))
		}
	}
	c.see("and then: %s", k.call(rangePath, read))
}

func streamMessageSizes(c *held) {
	k := c.connect(windowDefault)
	defer k.close()
	other := c.watch(k)
	for _, path := range []string{watchPath, alivePath} {
		id := k.open(path)
		c.must(k.send(id, filled(nil, messageBytesMax+1), false), "send")
		c.see("%s: %s", path, k.finish(id))
	}
	// The stream beside them goes on.
	c.must(k.send(other, createRequest("k", "", 0), false), "create again")
	c.must(k.until(func() bool {
		messages, _ := split(k.streams[other].body)
		return len(messages) == 2
	}), "the answers of the other stream")
}

func putOp(key string, value []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put(key, value)}}
}

func rangeOp(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{
		RequestRange: &pb.RangeRequest{Key: []byte(key)},
	}}
}

func txnOp(txn *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: txn}}
}

func txnOps(c *held) {
	k := c.connect(windowDefault)
	defer k.close()
	compares := func(count int) (list []*pb.Compare) {
		for n := range count {
			list = append(list, &pb.Compare{Key: []byte{'c', byte(n)}})
		}
		return list
	}
	puts := func(prefix string, count int) (list []*pb.RequestOp) {
		for n := range count {
			list = append(list, putOp(fmt.Sprint(prefix, n), nil))
		}
		return list
	}
	see := func(what string, txn *pb.TxnRequest) {
		c.see("%s: %s", what, k.call(txnPath, encoded(txn)))
	}
	for count := range txnOpsMax + 2 {
		see(fmt.Sprintf("%d compares", count), &pb.TxnRequest{Compare: compares(count)})
		see(fmt.Sprintf("%d in success", count), &pb.TxnRequest{Success: puts("s", count)})
		see(fmt.Sprintf("%d in failure", count), &pb.TxnRequest{Failure: puts("f", count)})
		all := &pb.TxnRequest{
			Compare: compares(count), Success: puts("s", count), Failure: puts("f", count),
		}
		see(fmt.Sprintf("%d of each", count), all)
		// The outer list takes from what the inner may have, the inner one alone counted or not.
		for outer := 1; outer <= 3; outer++ {
			inner := &pb.TxnRequest{Success: puts("i", count)}
			ops := append(puts("o", outer-1), txnOp(inner))
			see(fmt.Sprintf("%d within %d", count, outer), &pb.TxnRequest{Success: ops})
			deep := &pb.TxnRequest{Failure: []*pb.RequestOp{txnOp(inner)}, Compare: compares(2)}
			ops = append(puts("o", outer-1), txnOp(deep))
			see(fmt.Sprintf("%d within 2 within %d", count, outer), &pb.TxnRequest{Failure: ops})
		}
	}
	// Two faults at once: which of them is told.
	see("too many and no key", &pb.TxnRequest{Success: append(puts("s", txnOpsMax), putOp("", nil))})
	see("no key and too many within", &pb.TxnRequest{
		Success: []*pb.RequestOp{putOp("", nil), txnOp(&pb.TxnRequest{Success: puts("i", txnOpsMax)})},
	})
	see("a key twice and too many", &pb.TxnRequest{
		Success: append(puts("s", txnOpsMax), putOp("s0", nil)),
	})
}

// watch opens a watch stream with a watch on it, and waits for the answer.
func (c *held) watch(k *conn) uint32 {
	id := k.open(watchPath)
	c.must(k.send(id, createRequest("k", "", 0), false), "create")
	stream := k.streams[id]
	c.must(k.until(func() bool { return len(stream.body) > 0 || stream.over }), "the watch")
	return id
}

func createRequest(key, end string, from int64) []byte {
	return encoded(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
		CreateRequest: &pb.WatchCreateRequest{
			Key: []byte(key), RangeEnd: []byte(end), StartRevision: from,
		},
	}})
}

func streamsOpen(c *held) {
	k := c.connect(windowDefault)
	defer k.close()
	c.see("told: %d", k.settings[3])
	var ids []uint32
	for range streamsMax {
		ids = append(ids, c.watch(k))
	}
	for range 3 {
		c.see("one more: %s", k.finish(k.open(watchPath)))
	}
	c.see("a call: %s", k.call(rangePath, encoded(&pb.RangeRequest{Key: []byte("k")})))
	// Room comes back with a stream that the client ends.
	k.framer.WriteRSTStream(ids[0], 8)
	c.see("after one has ended: %s", k.call(rangePath, encoded(&pb.RangeRequest{Key: []byte("k")})))
	again := c.watch(k)
	c.see("in its place: over %v", k.streams[again].over)
	c.see("one more: %s", k.finish(k.open(watchPath)))
	for _, id := range append(ids[1:], again) {
		c.see("another: over %v", k.streams[id].over)
	}
	other := c.connect(windowDefault)
	defer other.close()
	c.see("on another connection: over %v", other.streams[c.watch(other)].over)
}

func streamsUntold(c *held) {
	k := c.connect(windowDefault)
	defer k.close()
	const many = 500
	var ids []uint32
	for range many {
		ids = append(ids, k.open(watchPath))
		c.must(k.send(k.nextID-2, createRequest("k", "", 0), false), "create")
	}
	for _, id := range ids {
		stream := k.streams[id]
		c.must(k.until(func() bool { return len(stream.body) > 0 || stream.over }), "the watch")
		if stream.over {
			c.wrongf("stream %d: %s", id, stream.outcome())
		}
	}
	c.see("a call: %s", k.call(rangePath, encoded(&pb.RangeRequest{Key: []byte("k")})))
}

// ping pings so often, and says whether that was fine.
func (k *conn) ping(count int) string {
	before := k.acks
	for range count {
		k.framer.WritePing(false, [8]byte{1})
	}
	if err := k.until(func() bool { return k.acks == before+count }); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d answered", count)
}

// pingToEnd pings until the server has had enough, one after the other.
func (k *conn) pingToEnd() string {
	for count := 1; count <= 10; count++ {
		if k.ping(1) != "1 answered" {
			return fmt.Sprintf("ping %d is too many: %s", count, k.goAway)
		}
		// What it says of a ping it says behind the answer.
		if count > 3 {
			if k.until(func() bool { return k.ended != nil }) == nil {
				return fmt.Sprintf("ping %d is too many: %s", count, k.goAway)
			}
		}
	}
	return "ten pings in a row are fine"
}

func pingsIdle(c *held) {
	k := c.connect(windowDefault)
	defer k.close()
	c.see("%s", k.pingToEnd())
}

func pingsBeside(c *held) {
	k := c.connect(windowDefault)
	defer k.close()
	id := c.watch(k)
	// The answer of the watch has forgiven the first one.
	c.see("%s", k.ping(1))
	c.see("%s", k.ping(2))
	c.see("stream over: %v", k.streams[id].over)
	for range 2 {
		k.framer.WritePing(false, [8]byte{1})
	}
	err := k.until(func() bool { return k.ended != nil })
	c.see("%s, closed: %v", k.goAway, err == nil)
}

func pingsForgiven(c *held) {
	k := c.connect(windowDefault)
	defer k.close()
	for range 20 {
		c.see("%s", k.call(rangePath, encoded(&pb.RangeRequest{Key: []byte("k")})))
		c.see("%s", k.ping(3))
	}
}

func pingsAllowed(c *held) {
	k := c.connect(windowDefault)
	defer k.close()
	c.watch(k)
	for range 50 {
		if seen := k.ping(1); seen != "1 answered" {
			c.wrongf("with a call open: %s", seen)
		}
	}
	// Without a call the flag does not count.
	other := c.connect(windowDefault)
	defer other.close()
	c.see("%s", other.pingToEnd())
}

func keepAlive(c *held) {
	alive, dead := c.connect(windowDefault), c.connect(windowDefault)
	defer alive.close()
	defer dead.close()
	dead.playsDead = true
	id := c.watch(alive)
	c.watch(dead)
	done := make(chan error, 1)
	go func() { done <- dead.until(func() bool { return dead.ended != nil }) }()
	err := alive.until(func() bool { return alive.pings >= 3 })
	c.must(err, "three pings to who answers")
	c.must(<-done, "the end of who does not")
	c.see("silent: pinged %v, %q", dead.pings > 0, dead.goAway)
	c.see("alive: over %v, %s", alive.streams[id].over,
		alive.call(rangePath, encoded(&pb.RangeRequest{Key: []byte("k")})))
}

func headerSizes(c *held) {
	read := encoded(&pb.RangeRequest{Key: []byte("k")})
	k := c.connect(windowDefault)
	defer k.close()
	for _, size := range []int{100, 4_000, 16_000, 30_000, 60_000} {
		text := strings.Repeat("t", size)
		c.see("%d: %s", size, k.call(rangePath, read, "something", text))
		c.see("%d of a token: %s", size, k.call(rangePath, read, "token", text))
		c.see("then: %s", k.call(rangePath, read))
	}
}

// named is the request of a recipe: a name, and a lease.
func named(name string, lease int64) []byte {
	request := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), []byte(name))
	request = protowire.AppendTag(request, 2, protowire.VarintType)
	return protowire.AppendVarint(request, uint64(lease))
}

// late is how a call ended whose time was over. In etcd the call, which has a status for it, and
// its stream, which is reset, race for who is first.
func late(outcome string) string {
	if strings.Contains(outcome, "grpc-status=4 grpc-message=context deadline exceeded") {
		return "reset CANCEL"
	}
	return outcome
}

func deadlinesWaiting(c *held) {
	k := c.connect(windowDefault)
	defer k.close()
	for lease := range int64(2) {
		grant := &pb.LeaseGrantRequest{ID: lease + 1, TTL: 1000}
		c.ask(k, grantPath, grant, &pb.LeaseGrantResponse{})
	}
	c.see("lock: %s", k.call(lockPath, named("l", 1)))
	c.see("campaign: %s", k.call(campaignPath, named("e", 1)))
	const soon = "300m"
	locked := k.call(lockPath, named("l", 2), "grpc-timeout", soon)
	c.see("lock that waits: %s", late(locked))
	elected := k.call(campaignPath, named("e", 2), "grpc-timeout", soon)
	c.see("campaign that waits: %s", late(elected))
	for _, path := range []string{watchPath, alivePath} {
		c.see("%s: %s", path, late(k.finish(k.open(path, "grpc-timeout", soon))))
	}
	c.see("observe: %s", late(k.call(observePath, named("none", 0), "grpc-timeout", soon)))
	// What waited has left nothing behind that holds the lock.
	c.see("unlock: %s", k.call("/v3lockpb.Lock/Unlock",
		protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), []byte("l/1"))))
	var left pb.RangeResponse
	c.ask(k, rangePath, &pb.RangeRequest{Key: []byte("e/"), RangeEnd: []byte("m")}, &left)
	for _, kv := range left.Kvs {
		c.see("left: %s", kv.Key)
	}
}

func deadlinesPast(c *held) {
	k := c.connect(windowDefault)
	defer k.close()
	read := encoded(&pb.RangeRequest{Key: []byte("k")})
	for _, timeout := range []string{"0S", "0n", "0m"} {
		for _, path := range []string{rangePath, putPath, watchPath, alivePath, streamPath, lockPath} {
			c.see("%s %s: %s", path, timeout, k.call(path, read, "grpc-timeout", timeout))
		}
	}
	c.see("long: %s", k.call(rangePath, read, "grpc-timeout", "99999999H"))
}

func deadlinesMalformed(c *held) {
	k := c.connect(windowDefault)
	defer k.close()
	read := encoded(&pb.RangeRequest{Key: []byte("k")})
	for _, timeout := range []string{"", "S", "1", "1x", "-1S", "+1S", "123456789S", "1.5S"} {
		for _, path := range []string{rangePath, watchPath} {
			c.see("%s %q: %s", path, timeout, k.call(path, read, "grpc-timeout", timeout))
		}
	}
}
