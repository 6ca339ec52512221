module ringd.test/gateway

go 1.26
