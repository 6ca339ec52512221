package main

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// responseHeader is long to spell where only its fields matter.
type responseHeader = pb.ResponseHeader
