package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

func stmCases() []testCase {
	return []testCase{
		{"money moves between accounts and none is lost, serializable snapshot", func(t *T) {
			stmTransfers(t, concurrency.SerializableSnapshot)
		}},
		{"money moves between accounts and none is lost, serializable", func(t *T) {
			stmTransfers(t, concurrency.Serializable)
		}},
		{"counters lose no step, repeatable reads", func(t *T) {
			stmCounters(t, concurrency.RepeatableReads)
		}},
		{"a snapshot is of one revision", stmSnapshot},
	}
}

func stmTransfers(t *T, isolation concurrency.Isolation) {
	const accounts, total, clients, transfers = 6, 600, 6, 25
	name := func(i int) string { return t.Key(fmt.Sprint(i)) }
	for i := range accounts {
		t.Put(name(i), fmt.Sprint(total/accounts))
	}
	var group sync.WaitGroup
	for range clients {
		client := t.Connect()
		group.Go(func() {
			for range transfers {
				from, to := rand.IntN(accounts), rand.IntN(accounts)
				if from == to {
					continue
				}
				apply := func(stm concurrency.STM) error {
					a, _ := strconv.Atoi(stm.Get(name(from)))
					b, _ := strconv.Atoi(stm.Get(name(to)))
					amount := rand.IntN(a + 1)
					stm.Put(name(from), strconv.Itoa(a-amount))
					stm.Put(name(to), strconv.Itoa(b+amount))
					return nil
				}
				_, err := concurrency.NewSTM(client, apply, concurrency.WithIsolation(isolation),
					concurrency.WithAbortContext(t.Ctx))
				if err != nil {
					t.Failf("transfer: %v", err)
					return
				}
			}
		})
	}
	group.Wait()
	sum := 0
	for _, kv := range t.Get(t.Key(""), clientv3.WithPrefix()).Kvs {
		amount, err := strconv.Atoi(string(kv.Value))
		t.Check(err == nil && amount >= 0, "account %s holds %s", t.Short(kv.Key), kv.Value)
		sum += amount
	}
	Equal(t, "money", sum, total)
}

func stmCounters(t *T, isolation concurrency.Isolation) {
	const clients, steps = 5, 20
	var group sync.WaitGroup
	for range clients {
		client := t.Connect()
		group.Go(func() {
			for range steps {
				apply := func(stm concurrency.STM) error {
					count, _ := strconv.Atoi(stm.Get(t.Key("count")))
					stm.Put(t.Key("count"), strconv.Itoa(count+1))
					return nil
				}
				_, err := concurrency.NewSTM(client, apply, concurrency.WithIsolation(isolation),
					concurrency.WithAbortContext(t.Ctx))
				if err != nil {
					t.Failf("step: %v", err)
					return
				}
			}
		})
	}
	group.Wait()
	t.EqualBytes("count", t.Get(t.Key("count")).Kvs[0].Value, fmt.Sprint(clients*steps))
}

// Two keys are always written together; whoever reads both must never see them differ.
func stmSnapshot(t *T) {
	const writes, reads = 100, 100
	write := func(value string) error {
		_, err := t.Client.Txn(t.Ctx).Then(clientv3.OpPut(t.Key("a"), value),
			clientv3.OpPut(t.Key("b"), value)).Commit()
		return err
	}
	t.NoError(write("0"), "first write")
	var group sync.WaitGroup
	group.Go(func() {
		for i := range writes {
			if err := write(fmt.Sprint(i)); err != nil {
				t.Failf("write: %v", err)
				return
			}
		}
	})
	client := t.Connect()
	for range reads {
		var a, b string
		_, err := concurrency.NewSTM(client, func(stm concurrency.STM) error {
			a, b = stm.Get(t.Key("a")), stm.Get(t.Key("b"))
			return nil
		}, concurrency.WithPrefetch(t.Key("a")), concurrency.WithAbortContext(t.Ctx))
		if err != nil {
			t.Failf("read: %v", err)
			break
		}
		Equal(t, "b beside a", b, a)
	}
	group.Wait()
}
