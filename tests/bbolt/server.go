package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// etcd with a client. It must be stopped.
type server struct {
	*clientv3.Client
	process *exec.Cmd
	log     string
}

func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// etcd in a directory.
func start(directory string, more ...string) (*server, error) {
	return startWith(*etcd, directory, append(more, "--unsafe-no-fsync")...)
}

func startWith(program, directory string, more ...string) (*server, error) {
	client, err := freePort()
	if err != nil {
		return nil, err
	}
	peer, err := freePort()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(directory + ".log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	url := fmt.Sprintf("http://127.0.0.1:%d", client)
	process := exec.Command(program, append([]string{"--data-dir", directory,
		"--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", fmt.Sprintf("http://127.0.0.1:%d", peer)}, more...)...)
	process.Stdout, process.Stderr = log, log
	if err := process.Start(); err != nil {
		return nil, err
	}
	config := clientv3.Config{
		Endpoints:          []string{url},
		MaxCallRecvMsgSize: 256 << 20,
		// Refusals are expected, and are no news.
		Logger: zap.NewNop(),
	}
	connection, err := clientv3.New(config)
	server := &server{connection, process, log.Name()}
	if err != nil {
		return nil, errors.Join(err, server.stop())
	}
	if _, err := server.Get(deadline(), "ready"); err != nil {
		lines, _ := os.ReadFile(server.log)
		return nil, errors.Join(fmt.Errorf("etcd: %w\n%s", err, lines), server.stop())
	}
	return server, nil
}

// Long enough for a slow machine: it only bounds how long a failure takes.
func deadline() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	context.AfterFunc(ctx, cancel)
	return ctx
}

func (s *server) stop() error {
	var err error
	if s.Client != nil {
		err = s.Close()
	}
	err = errors.Join(err, s.process.Process.Signal(syscall.SIGTERM))
	// A server that is told to stop ends by the signal.
	var exit *exec.ExitError
	if ended := s.process.Wait(); ended != nil && !errors.As(ended, &exit) {
		err = errors.Join(err, ended)
	}
	return err
}

// Our backup, restored by etcdutl: etcd must answer what the store was invented to hold.
func etcdServesOurs(directory string, seed, keys int) error {
	path := filepath.Join(directory, "backup")
	expected, err := output(*tool, "write", path, strconv.Itoa(seed), strconv.Itoa(keys))
	if err != nil {
		return err
	}
	if err := statusFits(path, expected); err != nil {
		return err
	}
	data := filepath.Join(directory, "data")
	if _, err := output(*etcdutl, "snapshot", "restore", path, "--data-dir", data); err != nil {
		return err
	}
	server, err := start(data)
	if err != nil {
		return err
	}
	return errors.Join(answersFit(server, expected), server.stop())
}

func statusFits(path, expected string) error {
	printed, err := output(*etcdutl, "snapshot", "status", path, "-w", "json")
	if err != nil {
		return err
	}
	var status struct {
		Revision  int64
		TotalKey  int
		TotalSize int64
		Version   string
	}
	if err := json.Unmarshal([]byte(printed), &status); err != nil {
		return err
	}
	revision := numberAfter(expected, "revision ")
	newest := expected[strings.LastIndex(expected, "range "):]
	live := strings.Count(newest, "\nkv ")
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if status.Revision != revision || status.TotalKey != live || status.Version != "3.7.0" ||
		status.TotalSize != info.Size()-sha256.Size {
		return fmt.Errorf("the status is %+v, with revision %d and %d keys", status, revision, live)
	}
	return nil
}

func numberAfter(text, word string) int64 {
	_, rest, _ := strings.Cut(text, word)
	digits, _, _ := strings.Cut(rest, "\n")
	number, _ := strconv.ParseInt(digits, 10, 64)
	return number
}

func answersFit(server *server, expected string) error {
	revision, compacted := numberAfter(expected, "revision "), numberAfter(expected, "compacted ")
	var found strings.Builder
	fmt.Fprintf(&found, "revision %d\ncompacted %d\n", revision, compacted)
	for line := range strings.Lines(expected) {
		if at, isRange := strings.CutPrefix(line, "range "); isRange {
			found.WriteString(line)
			at, err := strconv.ParseInt(strings.TrimSpace(at), 10, 64)
			if err != nil {
				return err
			}
			if err := printRange(server, &found, at); err != nil {
				return err
			}
		}
	}
	if err := printRest(server, &found, expected); err != nil {
		return err
	}
	if err := sameLines("what etcd answers", expected, found.String()); err != nil {
		return err
	}
	return goesOn(server, revision, compacted)
}

func printRange(server *server, found *strings.Builder, revision int64) error {
	answer, err := server.Get(deadline(), "", clientv3.WithPrefix(), clientv3.WithRev(revision))
	if err != nil {
		return err
	}
	for _, kv := range answer.Kvs {
		fmt.Fprintf(found, "kv %x %d %d %d %d %x\n", kv.Key, kv.CreateRevision, kv.ModRevision,
			kv.Version, kv.Lease, sha256.Sum256(kv.Value))
	}
	return nil
}

// Leases, alarms, users and roles.
func printRest(server *server, found *strings.Builder, expected string) error {
	for line := range strings.Lines(expected) {
		var id, ttl int64
		if _, err := fmt.Sscanf(line, "lease %d %d", &id, &ttl); err != nil {
			continue
		}
		lease, err := server.TimeToLive(deadline(), clientv3.LeaseID(id), clientv3.WithAttachedKeys())
		if err != nil {
			return err
		}
		fmt.Fprintf(found, "lease %d %d\n", lease.ID, lease.GrantedTTL)
		if attached := attachedTo(id, expected); attached != len(lease.Keys) {
			return fmt.Errorf("lease %d has %d keys, not %d", id, len(lease.Keys), attached)
		}
	}
	alarms, err := server.AlarmList(deadline())
	if err != nil {
		return err
	}
	// It was raised by no member of the restored cluster; etcd keeps it all the same.
	for _, alarm := range alarms.Alarms {
		fmt.Fprintf(found, "alarm %d %s\n", alarm.MemberID, alarm.Alarm)
	}
	user, err := server.UserGet(deadline(), "u")
	if err != nil {
		return err
	}
	fmt.Fprintf(found, "user u %s\n", strings.Join(user.Roles, " "))
	role, err := server.RoleGet(deadline(), user.Roles[0])
	if err != nil {
		return err
	}
	names := map[string]string{"READ": "Read", "WRITE": "Write", "READWRITE": "ReadWrite"}
	for _, one := range role.Perm {
		name := names[one.PermType.String()]
		fmt.Fprintf(found, "permission %s %x %x\n", name, one.Key, one.RangeEnd)
	}
	return nil
}

// How many keys the newest range attaches to a lease.
func attachedTo(lease int64, expected string) int {
	count := 0
	for line := range strings.Lines(expected[strings.LastIndex(expected, "range "):]) {
		words := strings.Fields(line)
		if words[0] == "kv" && words[5] == fmt.Sprint(lease) {
			count++
		}
	}
	return count
}

// History ends where it was compacted, and goes on where it ended.
func goesOn(server *server, revision, compacted int64) error {
	if compacted > 1 {
		before := clientv3.WithRev(compacted - 1)
		if _, err := server.Get(deadline(), "a", before); err == nil {
			return fmt.Errorf("revision %d is there although %d is compacted", compacted-1, compacted)
		}
	}
	if _, err := server.Put(deadline(), "a", "b"); err == nil {
		return errors.New("a put goes through although there is an alarm")
	}
	if _, err := server.AlarmDisarm(deadline(), &clientv3.AlarmMember{}); err != nil {
		return err
	}
	put, err := server.Put(deadline(), "a", "b")
	if err == nil && put.Header.Revision != revision+1 {
		err = fmt.Errorf("the next revision is %d, not %d", put.Header.Revision, revision+1)
	}
	return err
}

// A data directory of etcd that has lived, and a backup it made: both are read as bbolt reads them,
// and every pair comes out again as it went in.
func readsEtcds(directory string) error {
	data := filepath.Join(directory, "data")
	server, err := start(data)
	if err != nil {
		return err
	}
	backup := filepath.Join(directory, "backup")
	err = errors.Join(fill(server), saveBackup(server, backup))
	if err := errors.Join(err, server.stop()); err != nil {
		return err
	}
	for _, path := range []string{backup, filepath.Join(data, "member", "snap", "db")} {
		if err := readsTheSame(path); err != nil {
			return err
		}
		counts, err := output(*tool, "schema", path)
		if err != nil {
			return err
		}
		for _, line := range []string{"lease 30\n", "alarm 1\n", "authUsers 2\n", "authRoles 2\n"} {
			if !strings.Contains(counts, line) {
				return fmt.Errorf("%q is missing in %s", line, counts)
			}
		}
		if keys := numberAfter(counts, "\nkey "); keys < 10_000 {
			return fmt.Errorf("only %d keys", keys)
		}
	}
	return nil
}

func fill(server *server) error {
	kv := clientv3.NewKV(server.Client)
	for round := range 4 {
		for batch := range 60 {
			var puts []clientv3.Op
			for i := range 100 {
				key := fmt.Sprintf("/round/%d/%d", round%3, batch*100+i)
				puts = append(puts, clientv3.OpPut(key, strings.Repeat(key, 1+i%9)))
			}
			if _, err := kv.Txn(deadline()).Then(puts...).Commit(); err != nil {
				return err
			}
		}
		large := strings.Repeat("large", 1000<<round)
		put, err := server.Put(deadline(), fmt.Sprintf("/large/%d", round), large)
		if err != nil {
			return err
		}
		if _, err := server.Delete(deadline(), "/round/1/5", clientv3.WithPrefix()); err != nil {
			return err
		}
		if round == 1 {
			// Compaction gives pages back, and what follows uses some of them again.
			_, err := server.Compact(deadline(), put.Header.Revision, clientv3.WithCompactPhysical())
			if err != nil {
				return err
			}
		}
	}
	return fillRest(server)
}

func fillRest(server *server) error {
	for i := range 30 {
		lease, err := server.Grant(deadline(), int64(1000+i))
		if err != nil {
			return err
		}
		key := fmt.Sprintf("/leased/%d", i)
		if _, err := server.Put(deadline(), key, "", clientv3.WithLease(lease.ID)); err != nil {
			return err
		}
	}
	raise := &etcdserverpb.AlarmRequest{
		Action:   etcdserverpb.AlarmRequest_ACTIVATE,
		MemberID: 5,
		Alarm:    etcdserverpb.AlarmType_CORRUPT,
	}
	maintenance := etcdserverpb.NewMaintenanceClient(server.ActiveConnection())
	_, err := server.RoleAdd(deadline(), "empty")
	if err != nil {
		return err
	}
	if _, err := server.RoleAdd(deadline(), "full"); err != nil {
		return err
	}
	for _, kind := range []int32{0, 2} {
		key := fmt.Sprintf("from %d", kind)
		permission := clientv3.PermissionType(kind)
		_, err := server.RoleGrantPermission(deadline(), "full", key, "\x00", permission)
		if err != nil {
			return err
		}
	}
	if _, err := server.UserAdd(deadline(), "with", "password"); err != nil {
		return err
	}
	options := &clientv3.UserAddOptions{NoPassword: true}
	if _, err := server.UserAddWithOptions(deadline(), "without", "", options); err != nil {
		return err
	}
	if _, err := server.UserGrantRole(deadline(), "without", "full"); err != nil {
		return err
	}
	_, err = maintenance.Alarm(deadline(), raise)
	return err
}

func saveBackup(server *server, path string) error {
	stream, err := server.Snapshot(deadline())
	if err != nil {
		return err
	}
	defer stream.Close()
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = file.ReadFrom(stream)
	return errors.Join(err, file.Close())
}
