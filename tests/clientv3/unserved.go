package main

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func unservedCases() []testCase {
	return []testCase{
		{"what is not served yet says so", unservedUnary},
		{"streams that are not served yet say so", unservedStreams},
	}
}

func unservedUnary(t *T) {
	connection := t.Client.ActiveConnection()
	for service, methods := range map[string][]string{
		"etcdserverpb.Lease":       {"LeaseGrant", "LeaseRevoke", "LeaseTimeToLive", "LeaseLeases"},
		"etcdserverpb.Cluster":     {"MemberAdd", "MemberRemove", "MemberUpdate", "MemberPromote"},
		"etcdserverpb.Maintenance": {"Defragment", "MoveLeader", "Downgrade"},
		"etcdserverpb.Auth": {"AuthEnable", "AuthDisable", "AuthStatus", "Authenticate", "UserAdd",
			"UserGet", "UserList", "UserDelete", "UserChangePassword", "UserGrantRole",
			"UserRevokeRole", "RoleAdd", "RoleGet", "RoleList", "RoleDelete",
			"RoleGrantPermission", "RoleRevokePermission"},
		"v3lockpb.Lock":         {"Lock", "Unlock"},
		"v3electionpb.Election": {"Campaign", "Proclaim", "Leader", "Resign"},
	} {
		for _, method := range methods {
			// An empty message is a valid one of every type.
			err := connection.Invoke(t.Ctx, "/"+service+"/"+method, &pb.HashRequest{}, &pb.HashResponse{})
			Equal(t, method, status.Code(err), codes.Unimplemented)
		}
	}
	alarm := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE}
	_, err := pb.NewMaintenanceClient(connection).Alarm(t.Ctx, alarm)
	Equal(t, "Alarm ACTIVATE", status.Code(err), codes.Unimplemented)
	t.Put(t.Key("k"), "still served")
}

func unservedStreams(t *T) {
	connection := t.Client.ActiveConnection()
	for _, method := range []string{
		"/etcdserverpb.KV/RangeStream", "/etcdserverpb.Lease/LeaseKeepAlive",
		"/v3electionpb.Election/Observe",
	} {
		description := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
		stream, err := connection.NewStream(t.Ctx, description, method)
		t.NoError(err, "open %s", method)
		// The refusal may come before the message is sent; it is in what is received.
		_ = stream.SendMsg(&pb.HashRequest{})
		_ = stream.CloseSend()
		err = stream.RecvMsg(&pb.HashResponse{})
		Equal(t, method, status.Code(err), codes.Unimplemented)
	}
}
