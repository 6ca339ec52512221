package main

import (
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// requestBytesMax is the server's default for --max-request-bytes.
	requestBytesMax = 3 << 19
	// messageBytesMax is what its gRPC takes: half a megabyte more.
	messageBytesMax = requestBytesMax + 512<<10
)

func limitCases() []testCase {
	return []testCase{
		{"values of a megabyte come back as they were", limitLarge},
		{"a request is as large as allowed and no larger", limitRequest},
		{"a txn counts as a whole", limitTxn},
		{"a message larger than gRPC takes ends the call, not the connection", limitMessage},
		{"reads may be larger than writes", limitRead},
	}
}

// large is a client that does not refuse by itself what the server should.
func (t *T) large() *clientv3.Client {
	return t.ConnectWith(clientv3.Config{
		Endpoints: []string{t.Endpoint}, MaxCallSendMsgSize: 64 << 20,
	})
}

func pattern(size int, seed string) string {
	return strings.Repeat(seed, size/len(seed)+1)[:size]
}

func limitLarge(t *T) {
	for i, size := range []int{1, 4095, 4096, 4097, 16383, 16384, 65535, 65536, 300_000, 1 << 20} {
		value := pattern(size, fmt.Sprintf("%d.", i))
		t.Put(t.Key("k"), value)
		response := t.Get(t.Key("k"))
		t.EqualBytes(fmt.Sprintf("value of %d", size), response.Kvs[0].Value, value)
	}
	t.Delete(t.Key("k"))
}

func limitRequest(t *T) {
	client := t.large()
	// What the request has beside the value: key, tags, lengths and the log's own header.
	const around = 1024
	value := pattern(requestBytesMax-around, "x.")
	_, err := client.Put(t.Ctx, t.Key("k"), value)
	t.NoError(err, "put below the limit")
	t.EqualBytes("value", t.Get(t.Key("k")).Kvs[0].Value, value)
	for _, size := range []int{requestBytesMax, requestBytesMax + 1, messageBytesMax - around} {
		_, err = client.Put(t.Ctx, t.Key("k"), pattern(size, "y."))
		t.WantError(fmt.Sprintf("put of %d", size), err, rpctypes.ErrRequestTooLarge)
	}
	_, err = client.Delete(t.Ctx, pattern(requestBytesMax+1, "z"))
	t.WantError("delete of a large key", err, rpctypes.ErrRequestTooLarge)
	t.EqualBytes("value after refusals", t.Get(t.Key("k")).Kvs[0].Value, value)
	t.Delete(t.Key("k"))
}

func limitTxn(t *T) {
	client := t.large()
	part := pattern(100<<10, "t.")
	puts := func(count int) (ops []clientv3.Op) {
		for i := range count {
			ops = append(ops, clientv3.OpPut(t.Key(fmt.Sprint(i)), part))
		}
		return ops
	}
	_, err := client.Txn(t.Ctx).Then(puts(16)...).Commit()
	t.WantError("txn", err, rpctypes.ErrRequestTooLarge)
	_, err = client.Txn(t.Ctx).Then(puts(8)...).Else(puts(8)...).Commit()
	t.WantError("both branches", err, rpctypes.ErrRequestTooLarge)
	_, err = client.Txn(t.Ctx).Then(puts(15)...).Commit()
	t.NoError(err, "txn below the limit")
	t.Delete(t.Key(""), clientv3.WithPrefix())
}

func limitMessage(t *T) {
	client := t.large()
	for _, size := range []int{messageBytesMax + 1, 4 << 20, 20 << 20} {
		_, err := client.Put(t.Ctx, t.Key("k"), pattern(size, "m."))
		s, _ := status.FromError(err)
		Equal(t, fmt.Sprintf("code of %d: %v", size, err), s.Code(), codes.ResourceExhausted)
		t.Check(strings.HasPrefix(s.Message(), "grpc: received message larger than max (") &&
			strings.HasSuffix(s.Message(), fmt.Sprintf(" vs. %d)", messageBytesMax)),
			"text of %d: %q", size, s.Message())
	}
	_, err := client.Put(t.Ctx, t.Key("k"), "small")
	t.NoError(err, "put after them")
	t.EqualBytes("value", t.Get(t.Key("k")).Kvs[0].Value, "small")
}

func limitRead(t *T) {
	client := t.large()
	response, err := client.Get(t.Ctx, t.Key(pattern(requestBytesMax+1000, "k")))
	t.NoError(err, "get of a key larger than a write")
	Equal(t, "count", response.Count, 0)
}
