package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Data that travels between real servers, with everything that clients can see of it.
func interchangeCases() []testCase {
	return []testCase{
		{"ringd's backup is etcd's: status, restore, and all answers", ringdToEtcd},
		{"etcd's backup is ringd's, also with revisions stepped over", etcdToRingd},
		{"etcd killed with entries in its log alone is imported", killedEtcdToRingd},
		{"ringd killed is exported, and etcd goes on with it", killedRingdToEtcd},
		{"damaged and unfit input is refused by name, and leaves nothing", refusals},
	}
}

// A history on few keys, so that versions, deletions and new lives stand close together.
func live(server *server, seed int64, commands int) error {
	random := rand.New(rand.NewSource(seed))
	key := func() string { return fmt.Sprintf("/key/%02d", random.Intn(30)) }
	var leases []clientv3.LeaseID
	for i := range 5 {
		lease, err := server.Grant(deadline(), int64(3000+i))
		if err != nil {
			return err
		}
		leases = append(leases, lease.ID)
	}
	for i := range commands {
		value := strings.Repeat("v", []int{0, 1, 50, 900, 1100, 9000}[random.Intn(6)])
		var options []clientv3.OpOption
		if random.Intn(3) == 0 {
			options = append(options, clientv3.WithLease(leases[random.Intn(len(leases))]))
		}
		var err error
		switch random.Intn(8) {
		case 0:
			_, err = server.Delete(deadline(), key())
		case 1:
			first, second := key(), key()
			operations := []clientv3.Op{clientv3.OpPut(first, value, options...)}
			if first != second {
				operations = append(operations, clientv3.OpDelete(second))
			}
			_, err = server.Txn(deadline()).Then(operations...).Commit()
		default:
			_, err = server.Put(deadline(), key(), value, options...)
		}
		if err == nil && i == commands/3 {
			err = compact(server)
		}
		if err != nil {
			return err
		}
	}
	_, err := server.Revoke(deadline(), leases[0])
	return err
}

func compact(server *server) error {
	answer, err := server.Get(deadline(), "x")
	if err != nil {
		return err
	}
	revision := answer.Header.Revision - 5
	_, err = server.Compact(deadline(), revision, clientv3.WithCompactPhysical())
	return err
}

// All that clients see: leases and their keys, and at each revision that is left the hash and all
// records. A server remembers the hashes of its own compactions, so that revision is left out.
func seen(server *server) (string, error) {
	var text strings.Builder
	leases, err := server.Leases(deadline())
	if err != nil {
		return "", err
	}
	attached := map[string]bool{}
	for _, lease := range leases.Leases {
		one, err := server.TimeToLive(deadline(), lease.ID, clientv3.WithAttachedKeys())
		if err != nil {
			return "", err
		}
		attached[fmt.Sprintf("lease %x %d %d keys", one.ID, one.GrantedTTL, len(one.Keys))] = true
	}
	fmt.Fprintf(&text, "%d leases\n", len(attached))
	newest, err := server.Get(deadline(), "", clientv3.WithPrefix())
	if err != nil {
		return "", err
	}
	endpoint := server.Endpoints()[0]
	hash, err := server.HashKV(deadline(), endpoint, newest.Header.Revision)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&text, "revision %d, compacted %d\n", hash.HashRevision, hash.CompactRevision)
	first := max(hash.CompactRevision+1, newest.Header.Revision-150)
	for revision := first; revision <= newest.Header.Revision; revision++ {
		hash, err := server.HashKV(deadline(), endpoint, revision)
		if err != nil {
			return "", err
		}
		answer, err := server.Get(deadline(), "", clientv3.WithPrefix(), clientv3.WithRev(revision))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&text, "at %d: hash %d, %d keys\n", revision, hash.Hash, len(answer.Kvs))
		if revision%20 == 0 {
			for _, kv := range answer.Kvs {
				fmt.Fprintf(&text, "%s\n", kv)
			}
		}
	}
	lines := slices.Sorted(maps.Keys(attached))
	return text.String() + strings.Join(lines, "\n"), nil
}

func startRingd(directory string) (*server, error) {
	return startWith(*ringd, directory)
}

// Stops a server and says what clients saw before.
func stopSeen(server *server, err error) (string, error) {
	if err != nil {
		return "", err
	}
	text, err := seen(server)
	return text, errors.Join(err, server.stop())
}

func ringdToEtcd(directory string) error {
	path := filepath.Join(directory, "backup")
	server, err := startRingd(filepath.Join(directory, "ringd"))
	if err != nil {
		return err
	}
	err = errors.Join(live(server, 1, 600), saveBackup(server, path))
	ours, stopped := stopSeen(server, nil)
	if err := errors.Join(err, stopped); err != nil {
		return err
	}
	for _, format := range []string{"simple", "table", "json", "fields"} {
		theirs, err := output(*etcdutl, "snapshot", "status", path, "-w", format)
		if err != nil {
			return err
		}
		ours, err := output(*ringutl, "snapshot", "status", path, "-w", format)
		if err != nil {
			return err
		}
		if err := sameLines("status as "+format, ours, theirs); err != nil {
			return err
		}
	}
	data := filepath.Join(directory, "etcd")
	if _, err := output(*etcdutl, "snapshot", "restore", path, "--data-dir", data); err != nil {
		return err
	}
	server, err = start(data)
	theirs, err := stopSeen(server, err)
	if err != nil {
		return err
	}
	return sameLines("what etcd serves of ringd's backup", ours, theirs)
}

func etcdToRingd(directory string) error {
	path := filepath.Join(directory, "backup")
	server, err := start(filepath.Join(directory, "etcd"))
	if err != nil {
		return err
	}
	err = errors.Join(live(server, 2, 600), saveBackup(server, path))
	if err := errors.Join(err, server.stop()); err != nil {
		return err
	}
	for name, flags := range map[string][]string{
		"plain":  nil,
		"bumped": {"--bump-revision", "1000000", "--mark-compacted"},
	} {
		theirDir := filepath.Join(directory, name+"-etcd")
		ourDir := filepath.Join(directory, name+"-ringd")
		restore := func(tool, data string) error {
			arguments := []string{"snapshot", "restore", path, "--data-dir", data}
			_, err := output(tool, append(arguments, flags...)...)
			return err
		}
		if err := errors.Join(restore(*etcdutl, theirDir), restore(*ringutl, ourDir)); err != nil {
			return err
		}
		server, err := start(theirDir)
		theirs, err := stopSeen(server, errors.Join(err, goOn(server)))
		if err != nil {
			return err
		}
		server, err = startRingd(ourDir)
		ours, err := stopSeen(server, errors.Join(err, goOn(server)))
		if err != nil {
			return err
		}
		if err := sameLines("what is served of the backup, "+name, ours, theirs); err != nil {
			return err
		}
	}
	return nil
}

// A few writes, so that what follows a restore is compared, too.
func goOn(server *server) error {
	if server == nil {
		return nil
	}
	for i := range 5 {
		if _, err := server.Put(deadline(), fmt.Sprintf("/key/%02d", i), "later"); err != nil {
			return err
		}
		if _, err := server.Delete(deadline(), fmt.Sprintf("/key/%02d", i+10)); err != nil {
			return err
		}
	}
	return nil
}

func kill(server *server) error {
	err := errors.Join(server.Close(), server.process.Process.Signal(syscall.SIGKILL))
	_ = server.process.Wait()
	return err
}

func killedEtcdToRingd(directory string) error {
	data := filepath.Join(directory, "etcd")
	// Its database takes nothing in after the start: all that is written is in its log alone.
	server, err := start(data, "--backend-batch-interval", "1h", "--backend-batch-limit", "1000000")
	if err != nil {
		return err
	}
	err = live(server, 3, 500)
	if err := errors.Join(err, kill(server)); err != nil {
		return err
	}
	imported := filepath.Join(directory, "ringd")
	if _, err := output(*ringutl, "import", "--from", data, "--data-dir", imported); err != nil {
		return err
	}
	server, err = start(data)
	theirs, err := stopSeen(server, err)
	if err != nil {
		return err
	}
	server, err = startRingd(imported)
	ours, err := stopSeen(server, err)
	if err != nil {
		return err
	}
	if err := sameLines("what ringd serves of the killed etcd", ours, theirs); err != nil {
		return err
	}
	// Stopped in order, it has all in its database, and the log has nothing to add.
	again := filepath.Join(directory, "again")
	if _, err := output(*ringutl, "import", "--from", data, "--data-dir", again); err != nil {
		return err
	}
	server, err = startRingd(again)
	ours, err = stopSeen(server, err)
	if err != nil {
		return err
	}
	return sameLines("what ringd serves of the stopped etcd", ours, theirs)
}

func killedRingdToEtcd(directory string) error {
	data := filepath.Join(directory, "ringd")
	server, err := startRingd(data)
	if err != nil {
		return err
	}
	err = live(server, 4, 500)
	ours, failed := seen(server)
	if err := errors.Join(err, failed, kill(server)); err != nil {
		return err
	}
	path := filepath.Join(directory, "backup")
	if _, err := output(*ringutl, "export", "--data-dir", data, path); err != nil {
		return err
	}
	printed, err := output(*ringutl, "hashkv", "--data-dir", data, "-w", "json")
	if err != nil {
		return err
	}
	var hash struct{ Hash, HashRevision int64 }
	if err := json.Unmarshal([]byte(printed), &hash); err != nil {
		return err
	}
	line := fmt.Sprintf("at %d: hash %d,", hash.HashRevision, hash.Hash)
	if !strings.Contains(ours, line) {
		return fmt.Errorf("ringutl hashkv says %q", line)
	}
	restored := filepath.Join(directory, "etcd")
	if _, err := output(*etcdutl, "snapshot", "restore", path, "--data-dir", restored); err != nil {
		return err
	}
	server, err = start(restored)
	theirs, err := stopSeen(server, err)
	if err != nil {
		return err
	}
	return sameLines("what etcd serves of ringd's export", ours, theirs)
}

// Each case spoils a copy of a sound backup or data directory, and names what the refusal says.
func refusals(directory string) error {
	data, backup := filepath.Join(directory, "etcd"), filepath.Join(directory, "backup")
	server, err := start(data, "--backend-batch-interval", "1h")
	if err != nil {
		return err
	}
	err = errors.Join(live(server, 5, 200), saveBackup(server, backup))
	running := refused(directory, "in use by another process", "import", "--from", data)
	if err := errors.Join(err, running, kill(server)); err != nil {
		return err
	}
	file := func(name string, spoil func([]byte) []byte) string {
		bytes, err := os.ReadFile(backup)
		path := filepath.Join(directory, name)
		if err := errors.Join(err, os.WriteFile(path, spoil(bytes), 0o600)); err != nil {
			panic(err)
		}
		return path
	}
	flip := func(at int) func([]byte) []byte {
		return func(bytes []byte) []byte { bytes[at] ^= 0xff; return bytes }
	}
	without := file("without", func(bytes []byte) []byte { return bytes[:len(bytes)-32] })
	flipped := file("flipped", flip(9000))
	// A page's kind is told by two bytes at its offset 8. Which pages are in use depends on how often
	// etcd committed: all but the two meta pages are spoiled.
	page := file("page", func(bytes []byte) []byte {
		for at := 2 * 4096; at+4096 <= len(bytes); at += 4096 {
			bytes[at+8] ^= 0xff
		}
		return bytes
	})
	short := file("short", func(bytes []byte) []byte { return bytes[:4096*2] })
	restore := func(path string, more ...string) []string {
		return append([]string{"snapshot", "restore", path}, more...)
	}
	err = errors.Join(
		refused(directory, "carries no SHA-256", restore(without)...),
		refused(directory, "SHA-256 digest is", restore(flipped)...),
		refused(directory, "page ", restore(page, "--skip-hash-check")...),
		refused(directory, "short", restore(short, "--skip-hash-check")...),
		refused(directory, "--mark-compacted", restore(backup, "--bump-revision", "5")...),
		refused(directory, "No such file", restore(backup+"x")...),
		refused(directory, "is no data directory of ringd", "export", backup+"y"),
	)
	return errors.Join(err, refusedLogs(directory, data))
}

// Spoils the log of a data directory.
func refusedLogs(directory, data string) error {
	var all error
	for name, one := range map[string]struct {
		spoil func([]byte) []byte
		says  string
	}{
		"checksum": {func(b []byte) []byte { b[5000] ^= 1; return b }, "offset"},
		"head":     {func(b []byte) []byte { b[7] ^= 0x40; return b }, "offset 0: the head of the frame"},
		"gone":     {func([]byte) []byte { return nil }, "does not say whose it is"},
	} {
		spoiled := filepath.Join(directory, "spoiled-"+name)
		if err := exec.Command("cp", "-r", data, spoiled).Run(); err != nil {
			return err
		}
		segments, err := filepath.Glob(filepath.Join(spoiled, "member/wal/*.wal"))
		if err != nil || len(segments) != 1 {
			return fmt.Errorf("%d segments, %w", len(segments), err)
		}
		bytes, err := os.ReadFile(segments[0])
		if err := errors.Join(err, os.WriteFile(segments[0], one.spoil(bytes), 0o600)); err != nil {
			return err
		}
		err = refused(directory, one.says, "import", "--from", spoiled)
		if err != nil {
			all = errors.Join(all, fmt.Errorf("%s: %w", name, err))
		}
	}
	return all
}

// ringutl must fail, say this, and leave no directory of the name that was asked for.
func refused(directory, says string, arguments ...string) error {
	target := filepath.Join(directory, "target")
	_, err := output(*ringutl, append(arguments, "--data-dir", target)...)
	if err == nil || !strings.Contains(err.Error(), says) {
		return fmt.Errorf("%s: %q expected, got: %w", arguments, says, err)
	}
	if _, err := os.Stat(target); err == nil {
		return fmt.Errorf("%s left something behind", arguments)
	}
	return os.RemoveAll(target + ".partial")
}
