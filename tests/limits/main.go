// Limits says where a server stops taking what a client sends, and what many watchers and clients
// that do not read cost.
//
//	go run . --etcd ETCD --ringd RINGD [--case NAME] [--revisions 500000] [--puts 200]
//
// It speaks HTTP/2 frames itself, because the stock client keeps to the rules and hides what a
// server answers to those who do not.
//
// Invariants:
//   - A case of a limit is held with both servers under the same flags, and what was seen must be
//     equal: the last that passes, the first that fails, its code, its text, and what becomes of
//     the connection.
//   - A case of load is held with ringd, and with etcd when that is asked for: it shows that the
//     case is fair, but takes etcd minutes. Memory is bounded for ringd alone.
//   - No case judges by time. Waits are bounded so that a server that says nothing fails.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// scale is how large the cases of load are made.
type scale struct {
	watchers, connections, puts, revisions int
}

// limitCase is a case that both servers must answer alike.
type limitCase struct {
	name  string
	flags []string
	hold  func(c *held)
}

// loadCase is a case that a server passes or fails by itself.
type loadCase struct {
	name string
	hold func(c *held, scale scale)
}

func main() {
	etcd := flag.String("etcd", "", "the reference's binary; without it, ringd alone is loaded")
	ringd := flag.String("ringd", "", "our binary")
	only := flag.String("case", "", "only cases whose name contains this")
	loadEtcd := flag.Bool("load-etcd", false, "load etcd, too")
	verbose := flag.Bool("verbose", false, "show what was seen")
	size := scale{connections: 10}
	flag.IntVar(&size.watchers, "watchers", 10_000, "watchers of one prefix")
	flag.IntVar(&size.puts, "puts", 200, "puts that each of them is told")
	flag.IntVar(&size.revisions, "revisions", 500_000, "revisions that a late watcher catches up with")
	flag.Parse()
	if err := run(*etcd, *ringd, *only, *verbose, *loadEtcd, size); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(etcd, ringd, only string, verbose, loadEtcd bool, size scale) error {
	directory, err := os.MkdirTemp("", "limits")
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	sides := []side{{"etcd", etcd}, {"ringd", ringd}}
	if etcd == "" {
		sides = sides[1:]
	}
	count, failed := 0, 0
	for number, each := range limitCases() {
		if !strings.Contains(each.name, only) || len(sides) < 2 {
			continue
		}
		count++
		var seen []string
		for _, side := range sides {
			place := filepath.Join(directory, fmt.Sprintf("%s-%d", side.name, number))
			seen = append(seen, side.hold(place, each.flags, each.hold))
		}
		switch {
		case seen[0] != seen[1]:
			failed++
			fmt.Printf("FAIL  %s\netcd:\n%sringd:\n%s", each.name, seen[0], seen[1])
		case verbose:
			fmt.Printf("ok    %s\n%s", each.name, seen[0])
		default:
			fmt.Printf("ok    %s\n", each.name)
		}
	}
	if !loadEtcd {
		sides = sides[len(sides)-1:]
	}
	for number, each := range loadCases() {
		for _, side := range sides {
			name := each.name + " (" + side.name + ")"
			if !strings.Contains(name, only) {
				continue
			}
			count++
			place := filepath.Join(directory, fmt.Sprintf("%s-load-%d", side.name, number))
			seen := side.hold(place, nil, func(c *held) { each.hold(c, size) })
			if strings.Contains(seen, wrong) {
				failed++
				fmt.Printf("FAIL  %s\n%s", name, seen)
			} else {
				fmt.Printf("ok    %s\n%s", name, seen)
			}
		}
	}
	fmt.Printf("limits: %d cases, %d failed\n", count, failed)
	if failed > 0 || count == 0 {
		return errors.New("the limits do not hold")
	}
	return nil
}
