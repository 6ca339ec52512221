// Command etcdctl runs the stock command line against etcd and against ringd: every step of every
// section, on a fresh member of each kind, must print the same on both streams and end the same.
//
// Both members have the same name, token and advertised peer address, so that even the ids are
// equal. What may differ inside an answer stands in mask.go, each with its reason; there is no
// other tolerance. A wait that is not met counts as a difference, even where neither server meets
// it.
//
// Given etcd in the place of ringd it shows whether the steps are deterministic.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
)

var (
	etcd    = flag.String("etcd", "", "the reference's server")
	ringd   = flag.String("ringd", "", "our server")
	etcdctl = flag.String("etcdctl", "", "the reference's command line")
	etcdutl = flag.String("etcdutl", "", "the reference's offline tool")
	only    = flag.String("section", "", "only sections whose name contains this")
	notes   = flag.String("transcripts", "", "a directory to leave both transcripts in")
)

// Sections run side by side because the longest only wait. More of them would make servers wait
// for the processor, and nothing else.
const sectionsAtOnce = 3

// section is a table of steps for a member that has not seen any other.
type section struct {
	name string
	// flags are given to the servers.
	flags []string
	// members is how many servers of a kind there are, each a cluster of its own; 0 means one.
	members int
	steps   []step
}

func main() {
	flag.Parse()
	for _, path := range []*string{etcd, ringd, etcdctl, etcdutl} {
		if *path == "" {
			fmt.Fprintln(os.Stderr, "--etcd, --ringd, --etcdctl and --etcdutl are needed")
			os.Exit(2)
		}
		// The commands run in directories of their own.
		absolute, err := filepath.Abs(*path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		*path = absolute
	}
	heedInterrupts()
	commands, differences := runAll()
	fmt.Printf("%d commands, %d differences\n", commands, differences)
	if commands == 0 || differences > 0 {
		os.Exit(1)
	}
}

// heedInterrupts has the commands start with interrupts at their default, whatever this process was
// started with: a shell in the background ignores them, and so would all it starts.
func heedInterrupts() {
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	go func() {
		<-interrupts
		os.Exit(130)
	}()
}

// runAll returns how many commands were compared and how many of them differ.
func runAll() (commands, differences int) {
	var all sync.WaitGroup
	var printing sync.Mutex
	places := make(chan struct{}, sectionsAtOnce)
	for _, one := range sections() {
		if !strings.Contains(one.name, *only) {
			continue
		}
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			count, report := one.compare()
			printing.Lock()
			defer printing.Unlock()
			commands += count
			differences += len(report)
			fmt.Printf("%s: %d commands, %d differ\n", one.name, count, len(report))
			for _, lines := range report {
				fmt.Println(lines)
			}
		})
	}
	all.Wait()
	return commands, differences
}

// compare plays a section on both and reports what differs, a text for each.
func (s section) compare() (count int, report []string) {
	binaries := [2]string{*etcd, *ringd}
	var players [2]*player
	var both sync.WaitGroup
	for place, binary := range binaries {
		both.Go(func() { players[place] = s.play(binary) })
	}
	both.Wait()
	for place, name := range []string{"etcd", "ringd"} {
		for _, fault := range players[place].faults {
			report = append(report, fmt.Sprintf("--- %s: %s: %s", s.name, name, fault))
		}
		if err := players[place].leave(*notes, s.name, name); err != nil {
			report = append(report, err.Error())
		}
	}
	theirs, ours := players[0].records, players[1].records
	if len(theirs) != len(ours) {
		report = append(report, fmt.Sprintf("--- %s: %d commands and %d", s.name, len(theirs), len(ours)))
	}
	for place := range min(len(theirs), len(ours)) {
		if left, right := theirs[place], ours[place]; left != right {
			report = append(report, fmt.Sprintf("--- %s: %s\n%s",
				s.name, left.words, sideBySide(left, right)))
		}
	}
	return len(theirs), report
}

// sideBySide shows the lines between what is equal at the start and at the end.
func sideBySide(theirs, ours record) string {
	left, right := theirs.lines(), ours.lines()
	same := 0
	for same < min(len(left), len(right)) && left[same] == right[same] {
		same++
	}
	tail := 0
	for tail < min(len(left), len(right))-same &&
		left[len(left)-1-tail] == right[len(right)-1-tail] {
		tail++
	}
	var shown []string
	show := func(mark string, lines []string) {
		for _, line := range lines {
			shown = append(shown, mark+line)
		}
	}
	show("        ", left[max(0, same-2):same])
	show("etcd  | ", left[same:len(left)-tail])
	show("ringd | ", right[same:len(right)-tail])
	return strings.Join(shown, "\n")
}
