package main

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func unservedCases() []testCase {
	return []testCase{
		{"what is not served yet says so", unservedUnary},
	}
}

func unservedUnary(t *T) {
	connection := t.Client.ActiveConnection()
	for service, methods := range map[string][]string{
		"etcdserverpb.Auth": {"AuthEnable", "AuthDisable", "AuthStatus", "UserAdd",
			"UserGet", "UserList", "UserDelete", "UserChangePassword", "UserGrantRole",
			"UserRevokeRole", "RoleAdd", "RoleGet", "RoleList", "RoleDelete",
			"RoleGrantPermission", "RoleRevokePermission"},
	} {
		for _, method := range methods {
			// An empty message is a valid one of every type.
			err := connection.Invoke(t.Ctx, "/"+service+"/"+method, &pb.HashRequest{}, &pb.HashResponse{})
			Equal(t, method, status.Code(err), codes.Unimplemented)
		}
	}
	t.Put(t.Key("k"), "still served")
}
