package main

import (
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	health "google.golang.org/grpc/health/grpc_health_v1"
)

func clusterCases() []testCase {
	return []testCase{
		{"the member list names this member", clusterMembers},
		{"status tells sizes, versions and places in the log", clusterStatus},
		{"no alarm is raised", clusterAlarms},
		{"the hash of the keys speaks for a revision", clusterHashKV},
		{"the health service says that it serves", clusterHealth},
		{"the client finds the member's endpoints", clusterSync},
	}
}

func clusterMembers(t *T) {
	for name, options := range map[string][]clientv3.OpOption{
		"linearizable": nil, "serializable": {clientv3.WithSerializable()},
	} {
		response, err := t.Client.MemberList(t.Ctx, options...)
		t.NoError(err, "%s", name)
		if len(response.Members) != 1 {
			t.Stopf("%s: %d members", name, len(response.Members))
		}
		member := response.Members[0]
		Equal(t, name+": id", member.ID, response.Header.MemberId)
		t.Check(member.Name != "" && !member.IsLearner, "%s: %v", name, member)
		t.Check(len(member.PeerURLs) > 0, "%s: no peer URLs", name)
		t.Check(len(member.ClientURLs) > 0, "%s: no client URLs", name)
	}
}

func clusterStatus(t *T) {
	status := func() *clientv3.StatusResponse {
		response, err := t.Client.Status(t.Ctx, t.Endpoint)
		t.NoError(err, "status")
		return response
	}
	before := status()
	Equal(t, "version", before.Version, "3.7.1")
	Equal(t, "leader", before.Leader, before.Header.MemberId)
	Equal(t, "learner", before.IsLearner, false)
	Equal(t, "errors", len(before.Errors), 0)
	Equal(t, "quota", before.DbSizeQuota, 2<<30)
	term := before.RaftTerm
	t.Check(term > 0 && term == before.Header.RaftTerm, "term %d", term)
	t.Check(before.DbSize > 0 && before.DbSizeInUse > 0 && before.DbSizeInUse <= before.DbSize,
		"sizes %d of %d", before.DbSizeInUse, before.DbSize)
	t.Put(t.Key("k"), "v")
	after := status()
	t.Check(after.RaftIndex > before.RaftIndex, "index %d after %d", after.RaftIndex, before.RaftIndex)
	t.Check(after.RaftAppliedIndex > before.RaftAppliedIndex, "applied %d after %d",
		after.RaftAppliedIndex, before.RaftAppliedIndex)
	t.Check(after.RaftAppliedIndex <= after.RaftIndex, "applied %d of %d",
		after.RaftAppliedIndex, after.RaftIndex)
	Equal(t, "revision", after.Header.Revision, before.Header.Revision+1)
	// etcd writes the storage version some seconds after its first start.
	for after.StorageVersion != "3.7.0" && t.Ctx.Err() == nil {
		after = status()
	}
	Equal(t, "storage version", after.StorageVersion, "3.7.0")
}

func clusterAlarms(t *T) {
	response, err := t.Client.AlarmList(t.Ctx)
	t.NoError(err, "alarm list")
	Equal(t, "alarms", len(response.Alarms), 0)
}

func clusterHashKV(t *T) {
	hash := func(revision int64) *clientv3.HashKVResponse {
		response, err := t.Client.HashKV(t.Ctx, t.Endpoint, revision)
		t.NoError(err, "hash at %d", revision)
		return response
	}
	first := t.Put(t.Key("k"), "1")
	now := hash(0)
	Equal(t, "hash_revision", now.HashRevision, first)
	Equal(t, "hash again", hash(0).Hash, now.Hash)
	Equal(t, "hash at the revision", hash(first).Hash, now.Hash)
	last := t.Put(t.Key("k"), "2")
	t.Check(hash(0).Hash != now.Hash, "a put did not change the hash")
	Equal(t, "hash of the past", hash(first).Hash, now.Hash)
	_, err := t.Client.HashKV(t.Ctx, t.Endpoint, last+1)
	t.WantError("future", err, rpctypes.ErrFutureRev)
	// Physical, for the hash of the store below covers the work that a compaction leaves.
	t.compact(last, clientv3.WithCompactPhysical())
	_, err = t.Client.HashKV(t.Ctx, t.Endpoint, first)
	t.WantError("compacted", err, rpctypes.ErrCompacted)
	Equal(t, "compact_revision", hash(0).CompactRevision, last)

	maintenance := pb.NewMaintenanceClient(t.Client.ActiveConnection())
	whole, err := maintenance.Hash(t.Ctx, &pb.HashRequest{})
	t.NoError(err, "hash of the store")
	again, err := maintenance.Hash(t.Ctx, &pb.HashRequest{})
	t.NoError(err, "hash of the store")
	Equal(t, "hash of the store again", again.Hash, whole.Hash)
}

func clusterHealth(t *T) {
	client := health.NewHealthClient(t.Client.ActiveConnection())
	response, err := client.Check(t.Ctx, &health.HealthCheckRequest{})
	t.NoError(err, "check")
	Equal(t, "status", response.Status, health.HealthCheckResponse_SERVING)
	_, err = client.Check(t.Ctx, &health.HealthCheckRequest{Service: "nobody"})
	t.WantStatus("unknown service", err, codes.NotFound, "unknown service")
	watch, err := client.Watch(t.Ctx, &health.HealthCheckRequest{})
	t.NoError(err, "watch")
	first, err := watch.Recv()
	t.NoError(err, "first of the watch")
	Equal(t, "watched status", first.Status, health.HealthCheckResponse_SERVING)
	list, err := client.List(t.Ctx, &health.HealthListRequest{})
	t.NoError(err, "list")
	Equal(t, "listed status", list.Statuses[""].GetStatus(), health.HealthCheckResponse_SERVING)
}

func clusterSync(t *T) {
	client := t.Connect()
	t.NoError(client.Sync(t.Ctx), "sync")
	endpoints := fmt.Sprint(client.Endpoints())
	t.Check(strings.Contains(endpoints, "127.0.0.1") || strings.Contains(endpoints, "localhost"),
		"endpoints %s", endpoints)
	_, err := client.Put(t.Ctx, t.Key("k"), "v")
	t.NoError(err, "put")
}
