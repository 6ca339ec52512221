package main

import (
	"fmt"
	"strings"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
)

// txnOpsMax is the server's default for --max-txn-ops.
const txnOpsMax = 128

func txnCases() []testCase {
	return []testCase{
		{"every target compares in every way", txnCompares},
		{"a missing key compares as zero, its value as nothing", txnCompareMissing},
		{"a compare of a range holds for each of its keys", txnCompareRanges},
		{"all compares must hold", txnCompareAll},
		{"operations run in order and see each other", txnOrder},
		{"a txn is one revision", txnOneRevision},
		{"a txn that changes nothing moves no revision", txnNoRevision},
		{"a nested txn decides in the middle", txnNested},
		{"a key is put at most once in a branch", txnDuplicates},
		{"no list is longer than allowed, at any depth", txnTooManyOps},
		{"a txn without sense is refused", txnInvalid},
		{"what fails leaves nothing behind", txnAtomic},
		{"previous values come with a txn, too", txnPrevious},
		{"counters by compare and swap lose no step", txnSwap},
	}
}

func (t *T) commit(txn clientv3.Txn) *clientv3.TxnResponse {
	response, err := txn.Commit()
	t.NoError(err, "txn")
	return response
}

func (t *T) holds(compares ...clientv3.Cmp) bool {
	return t.commit(t.Client.Txn(t.Ctx).If(compares...)).Succeeded
}

func txnCompares(t *T) {
	t.Put(t.Key("other"), "")
	t.Put(t.Key("k"), "m")
	t.Put(t.Key("k"), "m")
	kv := t.Get(t.Key("k")).Kvs[0]
	for name, target := range map[string]struct {
		compare clientv3.Cmp
		own     int64
	}{
		"version":         {clientv3.Version(t.Key("k")), kv.Version},
		"create revision": {clientv3.CreateRevision(t.Key("k")), kv.CreateRevision},
		"mod revision":    {clientv3.ModRevision(t.Key("k")), kv.ModRevision},
		"lease":           {clientv3.LeaseValue(t.Key("k")), 0},
	} {
		for operator, want := range map[string][3]bool{
			"=": {false, true, false}, "!=": {true, false, true},
			"<": {false, false, true}, ">": {true, false, false},
		} {
			for i, holds := range want {
				with := target.own + int64(i) - 1
				got := t.holds(clientv3.Compare(target.compare.Clone(), operator, with))
				Equal(t, fmt.Sprintf("%s %d %s %d", name, target.own, operator, with), got, holds)
			}
		}
	}
	for operator, want := range map[string][4]bool{
		"=": {false, false, true, false}, "!=": {true, true, false, true},
		"<": {false, false, false, true}, ">": {true, true, false, false},
	} {
		for i, with := range []string{"", "lz", "m", "m\x00"} {
			got := t.holds(clientv3.Compare(clientv3.Value(t.Key("k")), operator, with))
			Equal(t, fmt.Sprintf("value m %s %q", operator, with), got, want[i])
		}
	}
}

func txnCompareMissing(t *T) {
	missing := t.Key("missing")
	for _, target := range []clientv3.Cmp{
		clientv3.Version(missing), clientv3.CreateRevision(missing), clientv3.ModRevision(missing),
		clientv3.LeaseValue(missing),
	} {
		Equal(t, "= 0", t.holds(clientv3.Compare(target.Clone(), "=", 0)), true)
		Equal(t, "> 0", t.holds(clientv3.Compare(target.Clone(), ">", 0)), false)
		Equal(t, "< 1", t.holds(clientv3.Compare(target.Clone(), "<", 1)), true)
		Equal(t, "!= 0", t.holds(clientv3.Compare(target.Clone(), "!=", 0)), false)
	}
	for _, operator := range strings.Fields("= != < >") {
		got := t.holds(clientv3.Compare(clientv3.Value(missing), operator, ""))
		Equal(t, "value "+operator, got, false)
	}
	t.Put(missing, "v")
	t.Delete(missing)
	deleted := clientv3.Compare(clientv3.Version(missing), "=", 0)
	Equal(t, "version of a deleted key", t.holds(deleted), true)
}

func txnCompareRanges(t *T) {
	for _, name := range strings.Fields("a b c") {
		t.Put(t.Key(name), "same")
	}
	value := func(from string) clientv3.Cmp {
		return clientv3.Compare(clientv3.Value(t.Key(from)), "=", "same")
	}
	all := value("").WithPrefix()
	Equal(t, "all the same", t.holds(all), true)
	t.Put(t.Key("c"), "other")
	Equal(t, "one differs", t.holds(all), false)
	Equal(t, "it is outside", t.holds(value("a").WithRange(t.Key("c"))), true)
	Equal(t, "nothing there: value", t.holds(value("x").WithPrefix()), false)
	none := clientv3.Compare(clientv3.CreateRevision(t.Key("x")), "=", 0).WithPrefix()
	Equal(t, "nothing there: create revision", t.holds(none), true)
	some := clientv3.Compare(clientv3.CreateRevision(t.Key("")), "=", 0).WithPrefix()
	Equal(t, "something there: create revision", t.holds(some), false)
	newer := clientv3.Compare(clientv3.ModRevision(t.Key("")), ">", 0).WithPrefix()
	Equal(t, "mod revisions", t.holds(newer), true)
}

func txnCompareAll(t *T) {
	t.Put(t.Key("k"), "v")
	yes := clientv3.Compare(clientv3.Value(t.Key("k")), "=", "v")
	no := clientv3.Compare(clientv3.Value(t.Key("k")), "=", "w")
	Equal(t, "none", t.holds(), true)
	Equal(t, "two that hold", t.holds(yes, yes), true)
	Equal(t, "the last fails", t.holds(yes, yes, no), false)
	Equal(t, "the first fails", t.holds(no, yes), false)
}

func txnOrder(t *T) {
	before := t.Put(t.Key("k"), "0")
	response := t.commit(t.Client.Txn(t.Ctx).Then(
		clientv3.OpGet(t.Key("k")),
		clientv3.OpPut(t.Key("k"), "1"),
		clientv3.OpGet(t.Key("k")),
		clientv3.OpGet(t.Key("k"), clientv3.WithRev(before)),
		clientv3.OpPut(t.Key("l"), "2"),
		clientv3.OpGet(t.Key(""), clientv3.WithPrefix(), clientv3.WithCountOnly()),
		clientv3.OpDelete(t.Key("m"), clientv3.WithPrefix()),
	))
	ranges := map[int]*pb.RangeResponse{}
	for i, one := range response.Responses {
		if r := one.GetResponseRange(); r != nil {
			ranges[i] = r
		}
	}
	Equal(t, "answers", len(response.Responses), 7)
	Equal(t, "ranges", len(ranges), 4)
	t.EqualBytes("before", ranges[0].Kvs[0].Value, "0")
	Equal(t, "revision before", ranges[0].Header.Revision, before)
	t.EqualBytes("after", ranges[2].Kvs[0].Value, "1")
	Equal(t, "revision after", ranges[2].Header.Revision, before+1)
	Equal(t, "mod_revision after", ranges[2].Kvs[0].ModRevision, before+1)
	t.EqualBytes("of old", ranges[3].Kvs[0].Value, "0")
	Equal(t, "count", ranges[5].Count, 2)
	Equal(t, "deleted", response.Responses[6].GetResponseDeleteRange().Deleted, 0)
	Equal(t, "revision", response.Header.Revision, before+1)
	put := response.Responses[1].GetResponsePut()
	Equal(t, "revision of the nested put", put.Header.Revision, before+1)
	Equal(t, "member of the nested put", put.Header.MemberId, 0)
}

func txnOneRevision(t *T) {
	t.Put(t.Key("gone"), "")
	before := t.Revision()
	response := t.commit(t.Client.Txn(t.Ctx).Then(
		clientv3.OpPut(t.Key("a"), ""), clientv3.OpPut(t.Key("b"), ""),
		clientv3.OpDelete(t.Key("gone")),
	))
	Equal(t, "revision", response.Header.Revision, before+1)
	for _, kv := range t.Get(t.Key(""), clientv3.WithPrefix()).Kvs {
		Equal(t, "mod_revision of "+t.Short(kv.Key), kv.ModRevision, before+1)
	}
	// Deleted and put again in one: a new life of the same revision.
	response = t.commit(t.Client.Txn(t.Ctx).Then(
		clientv3.OpDelete(t.Key("a")), clientv3.OpGet(t.Key("a")),
	))
	Equal(t, "gone within the txn", response.Responses[1].GetResponseRange().Count, 0)
}

func txnNoRevision(t *T) {
	before := t.Put(t.Key("k"), "v")
	for name, txn := range map[string]clientv3.Txn{
		"nothing":             t.Client.Txn(t.Ctx),
		"a read":              t.Client.Txn(t.Ctx).Then(clientv3.OpGet(t.Key("k"))),
		"a delete of nothing": t.Client.Txn(t.Ctx).Then(clientv3.OpDelete(t.Key("x"))),
		"the other branch": t.Client.Txn(t.Ctx).
			If(clientv3.Compare(clientv3.Version(t.Key("k")), "=", 9)).
			Then(clientv3.OpPut(t.Key("k"), "w")),
	} {
		Equal(t, name, t.commit(txn).Header.Revision, before)
	}
	Equal(t, "next put", t.Put(t.Key("k"), "v"), before+1)
}

func txnNested(t *T) {
	has := func(name string) clientv3.Cmp {
		return clientv3.Compare(clientv3.Version(t.Key(name)), ">", 0)
	}
	before := t.Put(t.Key("there"), "")
	wrong := []clientv3.Op{clientv3.OpPut(t.Key("wrong"), "")}
	response := t.commit(t.Client.Txn(t.Ctx).Then(
		clientv3.OpPut(t.Key("a"), "1"),
		clientv3.OpTxn([]clientv3.Cmp{has("there")},
			[]clientv3.Op{
				clientv3.OpPut(t.Key("b"), "2"),
				// The compares of all levels are decided before the first operation: a is not there.
				clientv3.OpTxn([]clientv3.Cmp{has("a")}, wrong,
					[]clientv3.Op{clientv3.OpPut(t.Key("d"), "3"), clientv3.OpGet(t.Key("b"))}),
			}, wrong),
		clientv3.OpGet(t.Key(""), clientv3.WithPrefix()),
	))
	Equal(t, "revision", response.Header.Revision, before+1)
	Equal(t, "keys", t.Keys(t.Get(t.Key(""), clientv3.WithPrefix())), "a b d there")
	outer := response.Responses[1].GetResponseTxn()
	if outer == nil || len(outer.Responses) != 2 {
		t.Stopf("outer nested txn: %v", outer)
	}
	inner := outer.Responses[1].GetResponseTxn()
	if inner == nil || len(inner.Responses) != 2 {
		t.Stopf("inner nested txn: %v", inner)
	}
	Equal(t, "outer succeeded", outer.Succeeded, true)
	Equal(t, "inner succeeded", inner.Succeeded, false)
	t.EqualBytes("read in the inner", inner.Responses[1].GetResponseRange().Kvs[0].Value, "2")
	header := outer.Header
	t.Check(header != nil && header.Revision == 0, "header of a nested txn: %v", header)
	Equal(t, "keys read at the end", response.Responses[2].GetResponseRange().Count, 4)
}

func txnDuplicates(t *T) {
	put := func(name string) clientv3.Op { return clientv3.OpPut(t.Key(name), "") }
	nested := func(ops ...clientv3.Op) clientv3.Op { return clientv3.OpTxn(nil, ops, nil) }
	get := clientv3.OpGet(t.Key("a"))
	del := func(from, end string) clientv3.Op {
		return clientv3.OpDelete(t.Key(from), clientv3.WithRange(t.Key(end)))
	}
	for name, ops := range map[string][]clientv3.Op{
		"put twice":               {put("a"), put("b"), put("a")},
		"put and delete":          {put("a"), clientv3.OpDelete(t.Key("a"))},
		"delete and put":          {clientv3.OpDelete(t.Key("a")), put("a")},
		"put in a deleted range":  {del("a", "c"), put("b")},
		"put twice, once nested":  {put("a"), nested(put("a"))},
		"put twice, both nested":  {nested(put("a")), nested(put("a"))},
		"put in a nested delete":  {put("b"), nested(del("a", "c"))},
		"nested put in a deleted": {del("a", "c"), nested(put("b"))},
	} {
		_, err := t.Client.Txn(t.Ctx).Then(ops...).Commit()
		t.WantError(name, err, rpctypes.ErrDuplicateKey)
		_, err = t.Client.Txn(t.Ctx).Else(ops...).Commit()
		t.WantError(name+", in the branch not taken", err, rpctypes.ErrDuplicateKey)
	}
	for name, txn := range map[string]clientv3.Txn{
		"both branches":  t.Client.Txn(t.Ctx).Then(put("a")).Else(put("a")),
		"deletes":        t.Client.Txn(t.Ctx).Then(del("a", "c"), del("b", "d"), del("b", "b\x00")),
		"end is outside": t.Client.Txn(t.Ctx).Then(del("a", "c"), put("c")),
		"both nested branches": t.Client.Txn(t.Ctx).Then(clientv3.OpTxn(nil,
			[]clientv3.Op{put("a")}, []clientv3.Op{put("a")})),
		"reads": t.Client.Txn(t.Ctx).Then(get, put("a"), get),
	} {
		_, err := txn.Commit()
		t.Check(err == nil, "%s: %v", name, err)
	}
}

func txnTooManyOps(t *T) {
	puts := func(count int, name string) (ops []clientv3.Op) {
		for i := range count {
			ops = append(ops, clientv3.OpPut(t.Key(fmt.Sprintf("%s%03d", name, i)), ""))
		}
		return ops
	}
	compares := func(count int) (list []clientv3.Cmp) {
		for range count {
			list = append(list, clientv3.Compare(clientv3.Version(t.Key("none")), "=", 0))
		}
		return list
	}
	txn := func() clientv3.Txn { return t.Client.Txn(t.Ctx) }
	for name, refused := range map[string]clientv3.Txn{
		"compares": txn().If(compares(txnOpsMax + 1)...),
		"then":     txn().Then(puts(txnOpsMax+1, "a")...),
		"else":     txn().Else(puts(txnOpsMax+1, "a")...),
		"nested":   txn().Then(clientv3.OpTxn(nil, puts(txnOpsMax, "a"), nil)),
	} {
		_, err := refused.Commit()
		t.WantError(name, err, rpctypes.ErrTooManyOps)
	}
	for name, taken := range map[string]clientv3.Txn{
		"all lists full": txn().If(compares(txnOpsMax)...).Then(puts(txnOpsMax, "a")...).
			Else(puts(txnOpsMax, "b")...),
		"nested with what is left": txn().Then(clientv3.OpTxn(nil, puts(txnOpsMax-1, "a"), nil)),
	} {
		_, err := taken.Commit()
		t.Check(err == nil, "%s: %v", name, err)
	}
}

func txnInvalid(t *T) {
	kv := pb.NewKVClient(t.Client.ActiveConnection())
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{}}}
	get := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{}}}
	del := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
		RequestDeleteRange: &pb.DeleteRangeRequest{},
	}}
	const noKey = "etcdserver: key is not provided"
	for name, row := range map[string]struct {
		request *pb.TxnRequest
		text    string
	}{
		"no operation":       {&pb.TxnRequest{Success: []*pb.RequestOp{{}}}, "etcdserver: key not found"},
		"none in the else":   {&pb.TxnRequest{Failure: []*pb.RequestOp{{}}}, "etcdserver: key not found"},
		"compare of no key":  {&pb.TxnRequest{Compare: []*pb.Compare{{}}}, noKey},
		"put of no key":      {&pb.TxnRequest{Success: []*pb.RequestOp{put}}, noKey},
		"get of no key":      {&pb.TxnRequest{Success: []*pb.RequestOp{get}}, noKey},
		"delete of no key":   {&pb.TxnRequest{Failure: []*pb.RequestOp{del}}, noKey},
		"nested without key": {&pb.TxnRequest{Success: []*pb.RequestOp{nestedOp(put)}}, noKey},
	} {
		_, err := kv.Txn(t.Ctx, row.request)
		t.WantStatus(name, err, codes.InvalidArgument, row.text)
	}
}

func nestedOp(op *pb.RequestOp) *pb.RequestOp {
	txn := &pb.TxnRequest{Success: []*pb.RequestOp{op}}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: txn}}
}

func txnAtomic(t *T) {
	before := t.Put(t.Key("k"), "v")
	future := clientv3.OpGet(t.Key("k"), clientv3.WithRev(before+100))
	put := func(option clientv3.OpOption) clientv3.Op {
		return clientv3.OpPut(t.Key("x"), "", option)
	}
	for name, row := range map[string]struct {
		last clientv3.Op
		want error
	}{
		"future revision":   {future, rpctypes.ErrFutureRev},
		"value of no key":   {put(clientv3.WithIgnoreValue()), rpctypes.ErrKeyNotFound},
		"lease of no key":   {put(clientv3.WithIgnoreLease()), rpctypes.ErrKeyNotFound},
		"lease that is not": {put(clientv3.WithLease(77)), rpctypes.ErrLeaseNotFound},
	} {
		_, err := t.Client.Txn(t.Ctx).Then(clientv3.OpPut(t.Key("first"), ""), row.last).Commit()
		t.WantError(name, err, row.want)
		nested := clientv3.OpTxn(nil, []clientv3.Op{row.last}, nil)
		_, err = t.Client.Txn(t.Ctx).Then(clientv3.OpPut(t.Key("first"), ""), nested).Commit()
		t.WantError(name+", nested", err, row.want)
		after := t.Get(t.Key(""), clientv3.WithPrefix())
		Equal(t, name+": keys", t.Keys(after), "k")
		Equal(t, name+": revision", after.Header.Revision, before)
	}
	// A failing operation of the branch that is not taken harms nothing.
	_, err := t.Client.Txn(t.Ctx).Then(clientv3.OpPut(t.Key("k"), "w")).
		Else(future).Commit()
	t.Check(err == nil, "failure in the other branch: %v", err)
}

func txnPrevious(t *T) {
	t.Put(t.Key("a"), "1")
	t.Put(t.Key("b"), "2")
	response := t.commit(t.Client.Txn(t.Ctx).Then(
		clientv3.OpPut(t.Key("a"), "3", clientv3.WithPrevKV()),
		clientv3.OpDelete(t.Key("b"), clientv3.WithPrevKV()),
		clientv3.OpPut(t.Key("c"), "4", clientv3.WithPrevKV()),
	))
	t.EqualBytes("put", response.Responses[0].GetResponsePut().PrevKv.GetValue(), "1")
	previous := response.Responses[1].GetResponseDeleteRange().PrevKvs
	if len(previous) != 1 {
		t.Stopf("delete: %v", previous)
	}
	t.EqualBytes("delete", previous[0].Value, "2")
	t.Check(response.Responses[2].GetResponsePut().PrevKv == nil, "a new key had a value")
}

func txnSwap(t *T) {
	const clients, steps = 8, 40
	t.Put(t.Key("counter"), "0")
	var group sync.WaitGroup
	for range clients {
		client := t.Connect()
		group.Go(func() {
			for done := 0; done < steps; {
				current, err := client.Get(t.Ctx, t.Key("counter"))
				if err != nil {
					t.Failf("get: %v", err)
					return
				}
				kv := current.Kvs[0]
				var number int
				fmt.Sscan(string(kv.Value), &number)
				response, err := client.Txn(t.Ctx).
					If(clientv3.Compare(clientv3.ModRevision(t.Key("counter")), "=", kv.ModRevision)).
					Then(clientv3.OpPut(t.Key("counter"), fmt.Sprint(number+1))).Commit()
				if err != nil {
					t.Failf("txn: %v", err)
					return
				}
				if response.Succeeded {
					done++
				}
			}
		})
	}
	group.Wait()
	kv := t.Get(t.Key("counter")).Kvs[0]
	t.EqualBytes("counter", kv.Value, fmt.Sprint(clients*steps))
	Equal(t, "version", kv.Version, clients*steps+1)
}
