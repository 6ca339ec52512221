module ringd.test/etcdctl

go 1.26
