// Asks etcd and ringd the same over HTTP/1 and compares what comes back: status line, fields and
// body, byte for byte where the reference's own bytes mean something.
//
// Bodies in JSON are compared without the space that Go's protobuf puts in or leaves out by the
// build; their fields' order counts. What names a server or a moment is masked, and nothing else.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// patience bounds every wait for a server; nothing is judged by how long it took.
const patience = 10 * time.Second

// lastWordsBytes are shown of what a process wrote when something failed.
const lastWordsBytes = 1024

// names are those of the pair's servers.
var names = [2]string{"etcd", "ringd"}

// exchange is one conversation on one connection.
type exchange struct {
	name string
	// metrics asks the listener of --listen-metrics-urls.
	metrics bool
	// strict asks a server with --cors and --host-whitelist.
	strict bool
	// send is written at once; what is in then follows when the answer's first bytes have come.
	send string
	then string
	// gone closes the client's half of the connection: at once, or when the first bytes of an
	// answer that goes on have come.
	gone gone
	// frames are what a client says once it speaks WebSocket, each when what the one before is to
	// bring has come. With lines the conversation stays open; without, the server has to end it.
	frames []frame
	// answers is how many answers are read; 0 reads until the server closes.
	answers int
	// lines is how many lines of the last answer's body are read, for answers that do not end.
	lines int
	// masks are replaced in bodies.
	masks []mask
}

type gone int

const (
	stays gone = iota
	goneAtOnce
	goneWithAnswer
)

type mask struct {
	pattern *regexp.Regexp
	with    string
}

func main() {
	etcd := flag.String("etcd", "", "the reference's binary")
	ringd := flag.String("ringd", "", "our binary")
	only := flag.String("case", "", "only cases whose name contains this")
	verbose := flag.Bool("verbose", false, "show what was answered")
	flag.Parse()
	if err := run(*etcd, *ringd, *only, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(etcd, ringd, only string, verbose bool) error {
	directory, err := os.MkdirTemp("", "gateway")
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	pair := [2]*server{}
	for place, binary := range []string{etcd, ringd} {
		name := names[place]
		pair[place], err = start(binary, filepath.Join(directory, name))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		defer pair[place].stop()
	}
	var failed []string
	unserved, count := 0, 0
	for _, exchange := range cases() {
		if !strings.Contains(exchange.name, only) {
			continue
		}
		count++
		var found [2]string
		for place, server := range pair {
			found[place] = exchange.hold(server)
		}
		if verbose {
			fmt.Printf("--- %s\n%s\n", exchange.name, found[0])
		}
		if strings.Contains(found[1], "is not served yet") {
			unserved++
			fmt.Printf("--- %s: not served yet\n", exchange.name)
			continue
		}
		if found[0] != found[1] {
			failed = append(failed, exchange.name)
			fmt.Printf("--- %s\netcd:\n%s\nringd:\n%s\n", exchange.name, found[0], found[1])
		}
	}
	fmt.Printf("gateway: %d cases, %d not served yet, %d differ\n", count, unserved,
		len(failed))
	if len(failed) > 0 {
		for place, server := range pair {
			server.stop()
			fmt.Printf("--- last words of %s:\n%s\n", names[place], server.lastWords())
		}
		return fmt.Errorf("the servers do not answer alike: %s", strings.Join(failed, ", "))
	}
	return nil
}

// hold speaks and tells what was answered.
func (e exchange) hold(server *server) string {
	address := server.client
	if e.metrics {
		address = server.metrics
	}
	if e.strict {
		address = server.strict
	}
	connection, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return "dial: " + err.Error()
	}
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(connection, e.send); err != nil {
		return "write: " + err.Error()
	}
	reader := bufio.NewReader(connection)
	if e.gone == goneWithAnswer {
		if _, err := reader.Peek(1); err != nil {
			return "wait: " + err.Error()
		}
	}
	if e.gone != stays {
		if err := connection.(*net.TCPConn).CloseWrite(); err != nil {
			return "close: " + err.Error()
		}
	}
	if e.then != "" {
		if _, err := reader.Peek(1); err != nil {
			return "wait: " + err.Error()
		}
		if _, err := io.WriteString(connection, e.then); err != nil {
			return "write: " + err.Error()
		}
	}
	if e.frames != nil {
		return e.holdFrames(connection, reader)
	}
	if e.answers == 0 {
		all, err := io.ReadAll(reader)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Sprintf("%s\nstays open", e.masked(all))
		}
		// Whether the end is a reset depends on what was left unread.
		return string(e.masked(all))
	}
	var out strings.Builder
	methods := methodsOf(e.send + e.then)
	for number := range e.answers {
		lines := 0
		if number == e.answers-1 {
			lines = e.lines
		}
		method := "GET"
		if number < len(methods) {
			method = methods[number]
		}
		fmt.Fprintln(&out, e.readAnswer(reader, method, lines))
	}
	return out.String()
}

// methodsOf finds the request lines, for HEAD has an answer without a body.
func methodsOf(sent string) []string {
	var methods []string
	for _, line := range strings.Split(sent, "\r\n") {
		if strings.HasSuffix(line, " HTTP/1.1") || strings.HasSuffix(line, " HTTP/1.0") {
			method, _, _ := strings.Cut(line, " ")
			methods = append(methods, method)
		}
	}
	return methods
}

func (e exchange) readAnswer(reader *bufio.Reader, method string, lines int) string {
	answer, err := http.ReadResponse(reader, &http.Request{Method: method})
	if err != nil {
		return "answer: " + err.Error()
	}
	defer answer.Body.Close()
	var out strings.Builder
	fmt.Fprintf(&out, "%s %s\n", answer.Proto, answer.Status)
	fmt.Fprintf(&out, "length %d, encoding %v, close %v\n", lengthOf(answer),
		answer.TransferEncoding, answer.Close)
	for _, name := range sortedNames(answer.Header) {
		if name == "Date" || name == "Content-Length" {
			continue
		}
		fmt.Fprintf(&out, "%s: %q\n", name, answer.Header[name])
	}
	if answer.Header.Get("Date") == "" {
		out.WriteString("no Date\n")
	}
	var body []byte
	if lines == 0 {
		body, err = io.ReadAll(answer.Body)
	} else {
		buffered := bufio.NewReader(answer.Body)
		for range lines {
			var line []byte
			line, err = buffered.ReadBytes('\n')
			body = append(body, line...)
			if err != nil {
				break
			}
		}
	}
	if err != nil {
		fmt.Fprintf(&out, "body: %v\n", err)
	}
	if strings.HasPrefix(answer.Header.Get("Content-Type"), "application/json") {
		body = compacted(body)
	}
	out.Write(e.masked(body))
	return out.String()
}

// lengthOf is whether a length was told; the length itself depends on the space in JSON.
func lengthOf(answer *http.Response) int64 {
	if answer.ContentLength > 0 {
		return 1
	}
	return answer.ContentLength
}

func sortedNames(header http.Header) []string {
	names := make([]string, 0, len(header))
	for name := range header {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// compacted takes space out of lines of JSON; what is none stays as it is.
func compacted(body []byte) []byte {
	var out bytes.Buffer
	for _, line := range bytes.SplitAfter(body, []byte("\n")) {
		var compact bytes.Buffer
		if json.Compact(&compact, line) == nil {
			out.Write(compact.Bytes())
			if bytes.HasSuffix(line, []byte("\n")) {
				out.WriteByte('\n')
			}
		} else {
			out.Write(line)
		}
	}
	return out.Bytes()
}

// usual is what differs between any two servers.
var usual = []mask{
	{regexp.MustCompile(`"(cluster_id|member_id|raft_term)":"\d+"`), `"$1":"N"`},
	{regexp.MustCompile(`Date: [^\r\n]*`), "Date: D"},
	// In answers that are compared as they are: JSON's space, and the length with it.
	{regexp.MustCompile(`Content-Length: \d+`), "Content-Length: N"},
	{regexp.MustCompile(`("code":\d+), `), "$1,"},
	// Which of the two spaces stands there is the reference's build's choice.
	{regexp.MustCompile("proto:[ \u00a0]"), "proto: "},
}

func (e exchange) masked(body []byte) []byte {
	for _, mask := range slices.Concat(usual, e.masks) {
		body = mask.pattern.ReplaceAll(body, []byte(mask.with))
	}
	return body
}

// server is one member of the pair, with a second process for the flags of access.
type server struct {
	client, metrics, strict string
	processes               []*exec.Cmd
	// said is what each process wrote, to be read once it has ended.
	said []*bytes.Buffer
}

func start(binary, directory string) (*server, error) {
	server := &server{}
	for _, kind := range []string{"open", "strict"} {
		ports, err := freePorts(3)
		if err != nil {
			return nil, err
		}
		client, peer, metrics := ports[0], ports[1], ports[2]
		arguments := []string{
			"--name", "member", "--data-dir", filepath.Join(directory, kind),
			"--listen-client-urls", "http://" + client, "--advertise-client-urls", "http://" + client,
			"--listen-peer-urls", "http://" + peer, "--initial-advertise-peer-urls", "http://" + peer,
			"--initial-cluster", "member=http://" + peer,
			"--listen-metrics-urls", "http://" + metrics, "--log-level", "error",
		}
		if kind == "strict" {
			arguments = append(arguments, "--cors", "http://a.example:80,http://b.example:80",
				"--host-whitelist", "localhost,known.example")
			server.strict = client
		} else {
			server.client, server.metrics = client, metrics
		}
		process := exec.Command(binary, arguments...)
		said := &bytes.Buffer{}
		process.Stderr = said
		if err := process.Start(); err != nil {
			server.stop()
			return nil, err
		}
		server.processes = append(server.processes, process)
		server.said = append(server.said, said)
		if err := awaitReady(client, metrics); err != nil {
			server.stop()
			return nil, fmt.Errorf("%w\n%s", err, server.lastWords())
		}
	}
	return server, nil
}

// awaitReady asks until both listeners answer.
func awaitReady(addresses ...string) error {
	until := time.Now().Add(3 * patience)
	for _, address := range addresses {
		for {
			request, _ := http.NewRequest(http.MethodGet, "http://"+address+"/readyz", nil)
			request.Host = "localhost"
			answer, err := http.DefaultClient.Do(request)
			if err == nil {
				answer.Body.Close()
				if answer.StatusCode == http.StatusOK {
					break
				}
				err = errors.New(answer.Status)
			}
			if time.Now().After(until) {
				return fmt.Errorf("%s is not ready: %w", address, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}

func (s *server) stop() {
	for _, process := range s.processes {
		process.Process.Signal(syscall.SIGTERM)
		process.Wait()
	}
	s.processes = nil
}

// lastWords is the end of what the processes wrote, once they have been waited for: most of it is
// what etcd says of every connection that a client has left.
func (s *server) lastWords() []byte {
	var out []byte
	for _, said := range s.said {
		all := said.Bytes()
		out = append(out, all[max(0, len(all)-lastWordsBytes):]...)
	}
	return out
}

// freePorts are addresses that nobody listened on a moment ago.
func freePorts(count int) ([]string, error) {
	var addresses []string
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
