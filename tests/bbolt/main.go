// Command bbolt holds ringd's reading and writing of etcd's database files against etcd's own:
// the bbolt library, etcdutl, and etcd serving what was restored.
//
// It needs the `bbolt` example of the engine crate, and the binaries of etcd and etcdutl. Every
// case works in a directory of its own; the seed of what it invented is in its name.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

var (
	tool    = flag.String("tool", "", "the engine's `bbolt` example")
	etcd    = flag.String("etcd", "", "etcd's server")
	etcdutl = flag.String("etcdutl", "", "etcd's offline tool")
	ringd   = flag.String("ringd", "", "ringd; without it nothing is asked of real servers of ours")
	ringutl = flag.String("ringutl", "", "ringd's offline tool")
	only    = flag.String("case", "", "run only cases whose name contains this")
)

type testCase struct {
	name string
	run  func(directory string) error
}

func main() {
	flag.Parse()
	if *tool == "" || *etcd == "" || *etcdutl == "" {
		fmt.Fprintln(os.Stderr, "--tool, --etcd and --etcdutl are needed")
		os.Exit(2)
	}
	passed, failed := 0, 0
	for _, one := range cases() {
		if !strings.Contains(one.name, *only) {
			continue
		}
		if err := inDirectory(one.run); err != nil {
			fmt.Printf("FAIL %s: %v\n", one.name, err)
			failed++
			continue
		}
		fmt.Printf("ok   %s\n", one.name)
		passed++
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 || passed == 0 {
		os.Exit(1)
	}
}

func cases() []testCase {
	var all []testCase
	for seed := int64(1); seed <= 6; seed++ {
		all = append(all, testCase{
			fmt.Sprintf("bbolt's file of seed %d is read as bbolt reads it", seed),
			func(directory string) error { return readsWhatBboltWrote(directory, seed) },
		})
	}
	for seed, keys := range []int{0, 1, 50, 3000, 30000} {
		all = append(all, testCase{
			fmt.Sprintf("our file of seed %d with %d keys satisfies bbolt", seed, keys),
			func(directory string) error { return bboltTakesOurs(directory, seed, keys) },
		})
	}
	all = append(all, testCase{
		"our files bear merges where a branch has just begun",
		bboltMergesOurs,
	})
	for seed, keys := range []int{20, 4000} {
		all = append(all, testCase{
			fmt.Sprintf("etcd serves our backup of seed %d with %d keys", seed, keys),
			func(directory string) error { return etcdServesOurs(directory, seed, keys) },
		})
	}
	all = append(all, testCase{"etcd's data directory and backup are read", readsEtcds})
	if *ringd != "" && *ringutl != "" {
		all = append(all, interchangeCases()...)
	}
	return all
}

func inDirectory(run func(string) error) error {
	directory, err := os.MkdirTemp("", "bbolt")
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	return run(directory)
}

// Runs a program and returns what it printed; its complaint is in the error.
func output(program string, arguments ...string) (string, error) {
	command := exec.Command(program, arguments...)
	var complaint strings.Builder
	command.Stderr = &complaint
	printed, err := command.Output()
	if err != nil {
		name := filepath.Base(program)
		return "", fmt.Errorf("%s %s: %w: %s", name, arguments, err, complaint.String())
	}
	return string(printed), nil
}

// The first line in which two texts differ, as an error.
func sameLines(what, ours, theirs string) error {
	if ours == theirs {
		return nil
	}
	left, right := strings.Split(ours, "\n"), strings.Split(theirs, "\n")
	for i := range min(len(left), len(right)) {
		if left[i] != right[i] {
			return fmt.Errorf("%s differs in line %d: ours %q, theirs %q", what, i+1, left[i], right[i])
		}
	}
	return fmt.Errorf("%s: ours has %d lines, theirs %d", what, len(left), len(right))
}
