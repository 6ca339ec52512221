package main

import (
	"fmt"
	"io"
	"net"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func connectionCases() []testCase {
	return []testCase{
		{"a client that comes before the server is served", connectEarly},
		{"a watch outlives its connection and misses nothing", connectBroken},
		{"a hundred clients at once", connectMany},
		{"a thousand calls at once on one connection", connectBusy},
		{"clients come and go", connectChurn},
	}
}

// forwarder stands between client and server, and may be absent or break.
type forwarder struct {
	address, target string
	mutex           sync.Mutex
	listener        net.Listener
	connections     []net.Conn
}

// forwarder reserves an address at which nobody listens yet.
func (t *T) forwarder() *forwarder {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	t.NoError(err, "reserve an address")
	f := &forwarder{address: listener.Addr().String(), target: t.Endpoint}
	t.NoError(listener.Close(), "release it")
	t.Cleanup(f.stop)
	return f
}

func (f *forwarder) start() error {
	listener, err := net.Listen("tcp", f.address)
	if err != nil {
		return err
	}
	f.mutex.Lock()
	f.listener = listener
	f.mutex.Unlock()
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", f.target)
			if err != nil {
				client.Close()
				return
			}
			f.mutex.Lock()
			f.connections = append(f.connections, client, server)
			f.mutex.Unlock()
			go pump(client, server)
			go pump(server, client)
		}
	}()
	return nil
}

func pump(from, to net.Conn) {
	io.Copy(to, from)
	to.Close()
}

// cut breaks every connection; new ones are taken.
func (f *forwarder) cut() {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	for _, connection := range f.connections {
		connection.Close()
	}
	f.connections = nil
}

func (f *forwarder) stop() {
	f.mutex.Lock()
	if f.listener != nil {
		f.listener.Close()
	}
	f.mutex.Unlock()
	f.cut()
}

func connectEarly(t *T) {
	f := t.forwarder()
	client := t.ConnectWith(clientv3.Config{Endpoints: []string{f.address}})
	start := t.Put(t.Key("before"), "v")
	// Watch returns when its stream is open, so it has to wait beside.
	watching := make(chan clientv3.WatchChan, 1)
	go func() {
		watching <- client.Watch(t.Ctx, t.Key(""), clientv3.WithPrefix(), clientv3.WithRev(start))
	}()
	got := make(chan error, 1)
	go func() {
		_, err := client.Get(t.Ctx, t.Key("before"))
		got <- err
	}()
	t.NoError(f.start(), "start")
	channel := <-watching
	t.Told("the watch that waited", channel, "+before=v")
	t.NoError(<-got, "the get that waited")
	_, err := client.Put(t.Ctx, t.Key("after"), "v")
	t.NoError(err, "put")
	t.Told("then live", channel, "+after=v")
}

func connectBroken(t *T) {
	const rounds, each = 6, 50
	f := t.forwarder()
	t.NoError(f.start(), "start")
	client := t.ConnectWith(clientv3.Config{Endpoints: []string{f.address}})
	channel := t.WatchWith(client, t.Key(""), clientv3.WithPrefix())
	cut := make(chan struct{})
	done := make(chan struct{})
	go func() {
		for range cut {
			f.cut()
		}
		close(done)
	}()
	for round := range rounds {
		for i := range each {
			if i == each/2 {
				cut <- struct{}{}
			}
			t.Put(t.Key(fmt.Sprint(i)), fmt.Sprint(round))
		}
	}
	close(cut)
	<-done
	seen := 0
	for seen < rounds*each {
		response := t.Next(channel)
		// After a break the client resumes, and a second creation is told.
		for _, event := range response.Events {
			want := fmt.Sprintf("+%d=%d", seen%each, seen/each)
			if got := t.Show(event); got != want {
				t.Stopf("event %d is %s, want %s", seen, got, want)
			}
			seen++
		}
	}
}

func connectMany(t *T) {
	const clients, each = 100, 20
	var group sync.WaitGroup
	for c := range clients {
		client := t.Connect()
		group.Go(func() {
			for i := range each {
				value := fmt.Sprintf("%d-%d", c, i)
				if _, err := client.Put(t.Ctx, t.Key(fmt.Sprint(c)), value); err != nil {
					t.Failf("put: %v", err)
					return
				}
				response, err := client.Get(t.Ctx, t.Key(fmt.Sprint(c)))
				if err != nil {
					t.Failf("get: %v", err)
					return
				}
				t.EqualBytes("value", response.Kvs[0].Value, value)
				Equal(t, "version", response.Kvs[0].Version, int64(i+1))
			}
		})
	}
	group.Wait()
	Equal(t, "keys", t.Get(t.Key(""), clientv3.WithPrefix()).Count, clients)
}

func connectBusy(t *T) {
	const calls = 1000
	before := t.Revision()
	revisions := make([]int64, calls)
	var group sync.WaitGroup
	for i := range calls {
		group.Go(func() {
			response, err := t.Client.Put(t.Ctx, t.Key(fmt.Sprint(i)), "v")
			if err != nil {
				t.Failf("put: %v", err)
				return
			}
			revisions[i] = response.Header.Revision
		})
	}
	group.Wait()
	seen := map[int64]bool{}
	for _, revision := range revisions {
		t.Check(revision > before && revision <= before+calls && !seen[revision],
			"revision %d after %d", revision, before)
		seen[revision] = true
	}
}

func connectChurn(t *T) {
	for i := range 60 {
		client := t.Connect()
		_, err := client.Put(t.Ctx, t.Key("k"), fmt.Sprint(i))
		t.NoError(err, "put")
		if i%2 == 0 {
			// Closed with a watch open, and an event on its way.
			client.Watch(t.Ctx, t.Key("k"), clientv3.WithRev(1<<40))
		}
		t.NoError(client.Close(), "close")
	}
	t.EqualBytes("value", t.Get(t.Key("k")).Kvs[0].Value, "59")
}
