package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience bounds every wait for a server; nothing is judged by how long it took.
const patience = 20 * time.Second

// wrong opens a line that says what should not have been seen.
const wrong = "WRONG "

// side is a server by its binary.
type side struct {
	name, binary string
}

// held is a case while it is held with one server.
type held struct {
	side   string
	server *server
	mutex  sync.Mutex
	lines  []string
}

// stopped is what a case that cannot go on panics with.
type stopped struct{}

// hold runs a case on a server of its own and gives what was seen.
func (s side) hold(directory string, flags []string, hold func(c *held)) string {
	c := &held{side: s.name}
	defer os.RemoveAll(directory)
	var err error
	if c.server, err = start(s.binary, directory, flags); err != nil {
		return fmt.Sprintf("%sstart: %v\n", wrong, err)
	}
	defer c.server.stop()
	func() {
		defer func() {
			if reason := recover(); reason != nil {
				if _, ended := reason.(stopped); !ended {
					panic(reason)
				}
			}
		}()
		hold(c)
	}()
	if !c.server.runs() {
		c.wrongf("the server has ended")
	}
	return strings.Join(append(c.lines, ""), "\n")
}

// see notes what both servers must show alike.
func (c *held) see(format string, arguments ...any) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.lines = append(c.lines, "      "+fmt.Sprintf(format, arguments...))
}

// wrongf notes what no server may show.
func (c *held) wrongf(format string, arguments ...any) { c.see(wrong+format, arguments...) }

// stopf is wrongf and ends the case. Only the case's own goroutine may call it.
func (c *held) stopf(format string, arguments ...any) {
	c.wrongf(format, arguments...)
	panic(stopped{})
}

// must ends the case when something failed on which the rest builds.
func (c *held) must(err error, what string, arguments ...any) {
	if err != nil {
		c.stopf("%s: %v", fmt.Sprintf(what, arguments...), err)
	}
}

// server is a running member.
type server struct {
	address string
	process *exec.Cmd
	ended   chan struct{}
}

// start runs a member. Its ids do not depend on the ports: what a request's size comes to in the
// log depends on the member's id.
func start(binary, directory string, flags []string) (*server, error) {
	addresses, err := freeAddresses(2)
	if err != nil {
		return nil, err
	}
	client, peer := addresses[0], addresses[1]
	arguments := slices.Concat([]string{
		"--name", "member", "--data-dir", filepath.Join(directory, "data"),
		"--listen-client-urls", "http://" + client, "--advertise-client-urls", "http://" + client,
		"--listen-peer-urls", "http://" + peer,
		"--initial-advertise-peer-urls", "http://localhost:2380",
		"--initial-cluster", "member=http://localhost:2380",
		"--quota-backend-bytes", strconv.Itoa(16 << 30),
		"--log-level", "fatal",
	}, flags)
	process := exec.Command(binary, arguments...)
	process.Stderr = os.Stderr
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return nil, err
	}
	if err := process.Start(); err != nil {
		return nil, err
	}
	s := &server{address: client, process: process, ended: make(chan struct{})}
	go func() {
		process.Wait()
		close(s.ended)
	}()
	until := time.Now().Add(patience)
	for {
		answer, err := http.Get("http://" + client + "/readyz")
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return s, nil
			}
			err = fmt.Errorf("readyz: %s", answer.Status)
		}
		if !s.runs() || time.Now().After(until) {
			s.stop()
			return nil, err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// freeAddresses are some that nobody listened at a moment ago.
func freeAddresses(count int) (addresses []string, err error) {
	for range count {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer listener.Close()
		addresses = append(addresses, listener.Addr().String())
	}
	return addresses, nil
}

func (s *server) runs() bool {
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

func (s *server) stop() {
	s.process.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.process.Process.Kill()
		<-s.ended
	}
}

// memory is what the process holds that belongs to no file, in bytes.
func (c *held) memory() int64 {
	path := fmt.Sprintf("/proc/%d/status", c.server.process.Process.Pid)
	status, err := os.ReadFile(path)
	c.must(err, "read %s", path)
	for line := range strings.Lines(string(status)) {
		if rest, found := strings.CutPrefix(line, "RssAnon:"); found {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			c.must(err, "RssAnon")
			return kib << 10
		}
	}
	c.stopf("%s has no RssAnon", path)
	return 0
}
