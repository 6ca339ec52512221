package main

import (
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // registers the compressor
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func errorCases() []testCase {
	return []testCase{
		{"errors have etcd's codes and texts", errorTexts},
		{"the client knows errors again", errorIdentity},
		{"unknown methods and services are unimplemented", errorUnknown},
		{"bytes that are no message are refused", errorGarbage},
		{"metadata that asks for a leader is served", errorMetadata},
		{"a request may come compressed", errorCompressed},
		{"a call may be given up", errorGivenUp},
	}
}

func errorTexts(t *T) {
	kv := pb.NewKVClient(t.Client.ActiveConnection())
	key := []byte(t.Key("k"))
	t.Put(t.Key("k"), "1")
	last := t.Put(t.Key("k"), "2")
	t.compact(last)
	for name, row := range map[string]struct {
		call func() error
		code codes.Code
		text string
	}{
		"put of no key": {func() error { _, err := kv.Put(t.Ctx, &pb.PutRequest{}); return err },
			codes.InvalidArgument, "etcdserver: key is not provided"},
		"get of no key": {func() error { _, err := kv.Range(t.Ctx, &pb.RangeRequest{}); return err },
			codes.InvalidArgument, "etcdserver: key is not provided"},
		"delete of no key": {func() error {
			_, err := kv.DeleteRange(t.Ctx, &pb.DeleteRangeRequest{})
			return err
		}, codes.InvalidArgument, "etcdserver: key is not provided"},
		"value with ignore_value": {func() error {
			_, err := kv.Put(t.Ctx, &pb.PutRequest{Key: key, Value: []byte("v"), IgnoreValue: true})
			return err
		}, codes.InvalidArgument, "etcdserver: value is provided"},
		"lease with ignore_lease": {func() error {
			_, err := kv.Put(t.Ctx, &pb.PutRequest{Key: key, Lease: 1, IgnoreLease: true})
			return err
		}, codes.InvalidArgument, "etcdserver: lease is provided"},
		"ignore_value of no key": {func() error {
			_, err := kv.Put(t.Ctx, &pb.PutRequest{Key: []byte(t.Key("x")), IgnoreValue: true})
			return err
		}, codes.InvalidArgument, "etcdserver: key not found"},
		"a lease that is not": {func() error {
			_, err := kv.Put(t.Ctx, &pb.PutRequest{Key: key, Lease: 4711})
			return err
		}, codes.NotFound, "etcdserver: requested lease not found"},
		"below the compaction": {func() error {
			_, err := kv.Range(t.Ctx, &pb.RangeRequest{Key: key, Revision: last - 1})
			return err
		}, codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted"},
		"ahead": {func() error {
			_, err := kv.Range(t.Ctx, &pb.RangeRequest{Key: key, Revision: last + 1})
			return err
		}, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision"},
		"compaction again": {func() error {
			_, err := kv.Compact(t.Ctx, &pb.CompactionRequest{Revision: last})
			return err
		}, codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted"},
		"compaction ahead": {func() error {
			_, err := kv.Compact(t.Ctx, &pb.CompactionRequest{Revision: last + 1})
			return err
		}, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision"},
	} {
		t.WantStatus(name, row.call(), row.code, row.text)
	}
	// A negative revision is the current one.
	response, err := kv.Range(t.Ctx, &pb.RangeRequest{Key: key, Revision: -1})
	t.NoError(err, "negative revision")
	t.EqualBytes("its value", response.Kvs[0].Value, "2")
}

func errorIdentity(t *T) {
	_, err := t.Client.Get(t.Ctx, t.Key("k"), clientv3.WithRev(1<<40))
	t.WantError("future", err, rpctypes.ErrFutureRev)
	var own rpctypes.EtcdError
	if !errors.As(err, &own) {
		t.Stopf("not an error of etcd: %v", err)
	}
	Equal(t, "code", own.Code(), codes.OutOfRange)
	_, err = t.Client.Put(t.Ctx, "", "v")
	t.WantError("empty key", err, rpctypes.ErrEmptyKey)
	_, err = t.Client.Delete(t.Ctx, "")
	t.WantError("empty key", err, rpctypes.ErrEmptyKey)
}

func errorUnknown(t *T) {
	connection := t.Client.ActiveConnection()
	for method, text := range map[string]string{
		"/etcdserverpb.KV/Nothing":      "unknown method Nothing for service etcdserverpb.KV",
		"/etcdserverpb.Nothing/Nothing": "unknown service etcdserverpb.Nothing",
	} {
		err := connection.Invoke(t.Ctx, method, &pb.PutRequest{}, &pb.PutResponse{})
		t.WantStatus(method, err, codes.Unimplemented, text)
	}
}

// rawCodec sends bytes as they are.
type rawCodec struct{ encoding.Codec }

func (rawCodec) Marshal(v any) ([]byte, error)      { return v.([]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error { *v.(*[]byte) = data; return nil }
func (rawCodec) Name() string                       { return "proto" }

func errorGarbage(t *T) {
	connection := t.Client.ActiveConnection()
	for i, garbage := range [][]byte{
		{0xff}, {0x0a, 0x7f, 'k'}, {0x0a}, {0x08, 0x80}, {0x07, 1}, {0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f},
	} {
		for _, method := range []string{"Put", "Range", "Txn", "DeleteRange", "Compact"} {
			var answer []byte
			err := connection.Invoke(t.Ctx, "/etcdserverpb.KV/"+method, garbage, &answer,
				grpc.ForceCodec(rawCodec{}))
			Equal(t, fmt.Sprintf("%s of garbage %d: %v", method, i, err), status.Code(err), codes.Internal)
		}
	}
	t.Put(t.Key("k"), "still served")
}

func errorMetadata(t *T) {
	ctx := clientv3.WithRequireLeader(t.Ctx)
	_, err := t.Client.Put(ctx, t.Key("k"), "v")
	t.NoError(err, "put with a leader required")
	channel := t.Client.Watch(ctx, t.Key("k"), clientv3.WithCreatedNotify())
	t.Check(t.Next(channel).Created, "watch with a leader required")
	large := metadata.AppendToOutgoingContext(t.Ctx, "unknown-bin", string(make([]byte, 4000)))
	_, err = t.Client.Put(large, t.Key("k"), "v")
	t.NoError(err, "put with metadata of no meaning")
}

func errorCompressed(t *T) {
	kv := pb.NewKVClient(t.Client.ActiveConnection())
	value := make([]byte, 100_000)
	_, err := kv.Put(t.Ctx, &pb.PutRequest{Key: []byte(t.Key("k")), Value: value},
		grpc.UseCompressor("gzip"))
	t.NoError(err, "put")
	response, err := kv.Range(t.Ctx, &pb.RangeRequest{Key: []byte(t.Key("k"))},
		grpc.UseCompressor("gzip"))
	t.NoError(err, "get")
	t.EqualBytes("value", response.Kvs[0].Value, string(value))
}

func errorGivenUp(t *T) {
	for range 200 {
		ctx, cancel := context.WithCancel(t.Ctx)
		go cancel()
		_, err := t.Client.Put(ctx, t.Key("k"), "given up")
		t.Check(err == nil || errors.Is(err, context.Canceled) || status.Code(err) == codes.Canceled,
			"error: %v", err)
		cancel()
	}
	// A put that was given up may still be on its way, so the last goes to a key of its own.
	t.Put(t.Key("other"), "last")
	t.EqualBytes("value", t.Get(t.Key("other")).Kvs[0].Value, "last")
}
