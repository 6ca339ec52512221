package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// member is a running server.
type member struct {
	// endpoint has a port of five digits like every other, so that tables are equally wide.
	endpoint string
	// id is hexadecimal, as etcdctl prints and takes it.
	id      string
	process *exec.Cmd
}

// started finds the id of a member that has published itself.
var started = regexp.MustCompile(`(?m)^([0-9a-f]+), started, member, `)

// startMember returns when the member has told its cluster version and its own name: what these
// bring about a moment after the start would make the first answers differ.
func startMember(binary, directory string, flags []string) (*member, error) {
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(directory, 0o700); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(directory, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	one := &member{endpoint: ports[0]}
	url := "http://" + ports[0]
	one.process = exec.Command(binary, append([]string{
		"--name", "member", "--data-dir", filepath.Join(directory, "data"),
		"--initial-cluster-token", "compared",
		"--listen-client-urls", url, "--advertise-client-urls", url,
		// Only advertised: the ids are made of it, and must be the same on both sides.
		"--listen-peer-urls", "http://" + ports[1],
		"--initial-advertise-peer-urls", "http://localhost:2380",
		"--initial-cluster", "member=http://localhost:2380",
	}, flags...)...)
	one.process.Stdout, one.process.Stderr = log, log
	if err := one.process.Start(); err != nil {
		return nil, err
	}
	if !wait(one.isReady) {
		one.stop()
		lines, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("%s did not start:\n%s", binary, lines)
	}
	return one, nil
}

func (m *member) isReady() bool {
	answer, err := http.Get("http://" + m.endpoint + "/version")
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	version, _ := io.ReadAll(answer.Body)
	if !strings.Contains(string(version), `"etcdcluster":"3.7.0"`) {
		return false
	}
	listed, err := exec.Command(*etcdctl, "--endpoints", m.endpoint, "member", "list").Output()
	found := started.FindSubmatch(listed)
	if err != nil || found == nil {
		return false
	}
	m.id = string(found[1])
	return true
}

func (m *member) stop() {
	m.process.Process.Signal(syscall.SIGKILL)
	m.process.Wait()
}

// freePorts are addresses that nobody listened on a moment ago, with ports of five digits.
func freePorts(count int) ([]string, error) {
	var addresses []string
	for len(addresses) < count {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer listener.Close()
		if address := listener.Addr().String(); len(address) == len("127.0.0.1:12345") {
			addresses = append(addresses, address)
		}
	}
	return addresses, nil
}
