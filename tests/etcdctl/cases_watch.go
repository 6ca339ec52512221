package main

import "syscall"

// steps that the watches below look back at: revisions 2 to 6.
var history = []step{
	ctl("put w/a 1"),
	ctl("put w/a 2"),
	ctl("put w/b 3"),
	ctl("del w/a"),
	ctl("put w/a 4"),
}

// watched runs one watch until it has printed its lines. A line too many would come before the
// last that is waited for, as everything is told in order.
func watched(lines int, line string) step {
	return func(p *player) {
		begin("watch", line)(p)
		told("watch", lines)(p)
		signalled("watch", syscall.SIGTERM)(p)
	}
}

// Each watch has a start revision, so that what it tells does not depend on how early it begins.
var watches = section{name: "watch", steps: append(history,
	watched(12, "watch w/a --rev=2"),
	watched(15, "watch w/ --prefix --rev=2"),
	watched(15, "watch w/a w/z --rev=2"),
	watched(16, "watch w/a --rev=2 --prev-kv"),
	watched(3, "watch w/b --rev=2 --hex"),
	watched(1, "watch w/ --prefix --rev=2 -w json"),
	watched(1, "watch w/ --prefix --rev=2 --prev-kv -w json"),
	watched(1, "watch w/ --prefix --rev=2 --prev-kv -w json --hex"),
	watched(39, "watch w/ --prefix --rev=2 -w fields"),
	watched(51, "watch w/ --prefix --rev=2 --prev-kv -w fields"),
	watched(3, "watch w/b --rev=2 --progress-notify"),
	watched(4, "watch w/b --rev=2 -- sh -c 'echo $ETCD_WATCH_KEY $ETCD_WATCH_VALUE'"),
	watched(29, "watch w/ --prefix --rev=2 --prev-kv -- "+
		"sh -c 'echo $ETCD_WATCH_REVISION $ETCD_WATCH_EVENT_TYPE; echo $ETCD_WATCH_VALUE'"),
	ctl("watch w/b --rev=2 -- false"),
	ctl("watch w/b --rev=2 -- ./not-there"),
	ctl("watch w/b --rev=2 -w table"),
	ctl("watch w/b --rev=2 -w nonsense"),
	ctl("watch"),
	ctl("watch w/a --"),
	ctl("watch w/z w/a"),
	ctl("watch w/z w/a --prefix"),
	ctl("watch w/a --rev=nonsense"),
	ctl("watch w/a --nonsense"),
	bare("ETCDCTL_WATCH_RANGE_END=w/z", "watch"),
	bare("ETCDCTL_ENDPOINTS={endpoint} ETCDCTL_WATCH_KEY=w/a", "watch w/b"),
	bare("ETCDCTL_ENDPOINTS={endpoint} ETCDCTL_WATCH_KEY=w/b",
		"watch --rev=2 -- sh -c 'echo $ETCD_WATCH_KEY; exit 3'"),
	ctl("compaction 4"),
	each("watch w/a --rev=2", "watch w/ --prefix --rev=3 --prev-kv"),
	watched(6, "watch w/a --rev=4"),
	// Of the event that follows the compacted revision the value before is gone.
	watched(7, "watch w/a --rev=5 --prev-kv"),
)}

// A watch that begins now has begun when the progress it asks for is told, and then every change
// comes by itself.
var watchesLive = section{name: "watch, live", steps: []step{
	ctl("put l/a 1"),
	begin("watch", "watch -i -w json"),
	says("watch", "watch l/ --prefix --rev=2\n"),
	told("watch", 1),
	ctl("put l/a 2"),
	told("watch", 2),
	ctl("put l/b 3"),
	told("watch", 3),
	ctl("del l/ --prefix"),
	told("watch", 4),
	ctlWith("\nput l/c x\nput l/d y\nput m/ z\n\n\n", "txn"),
	told("watch", 5),
	interrupted("watch"),
}}

var watchesInteractive = section{name: "watch, interactive", steps: append(history,
	begin("watch", "watch -i"),
	says("watch", "watch w/a --rev=2\n"),
	told("watch", 12),
	says("watch", "watch w/b --rev=2 --prev-kv\n"),
	told("watch", 15),
	// Between watches there is no order, so none of them sees what another does.
	ctl("put x/1 y"),
	ctl("del x/1"),
	says("watch", "watch x/ --prefix --rev=2 -- echo event\n"),
	told("watch", 23),
	says("watch", "progress\n"),
	// The notification is for the whole connection, so each of its watches tells it.
	told("watch", 26),
	ctl("put w/b again"),
	told("watch", 31),
	ctl("put x/2 z"),
	told("watch", 35),
	says("watch", "nonsense\n"),
	told("watch", 36),
	says("watch", "\n"),
	told("watch", 37),
	says("watch", "watch\n"),
	told("watch", 38),
	says("watch", "watch a b --prefix\n"),
	told("watch", 39),
	says("watch", "progress\n"),
	told("watch", 42),
	interrupted("watch"),

	ctlWith("watch w/a --nonsense\n", "watch -i"),
	ctlWith("watch w/a --\n", "watch -i"),
	ctlWith("", "watch -i"),
	ctlWith("progress\n", "watch -i"),
	ctlWith("watch --rev=2 w/a", "watch -i"),

	begin("fields", "watch -i -w fields"),
	says("fields", "watch w/a --rev=2\n"),
	told("fields", 32),
	interrupted("fields"),

	ctl("compaction 4"),
	begin("compacted", "watch -i"),
	says("compacted", "watch w/a --rev=2\n"),
	told("compacted", 1),
	says("compacted", "watch w/a --rev=4\n"),
	told("compacted", 7),
	interrupted("compacted"),
)}

// The server tells progress by itself.
var watchesProgress = section{
	name:  "watch, progress",
	flags: []string{"--watch-progress-notify-interval", "200ms"},
	steps: []step{
		ctl("put p x"),
		begin("text", "watch nothing --progress-notify"),
		begin("json", "watch nothing --progress-notify -w json"),
		begin("silent", "watch p --rev=2"),
		told("text", 2),
		told("json", 2),
		told("silent", 3),
		firstLines("text", 2),
		firstLines("json", 2),
		interrupted("silent"),
	},
}

// firstLines ends a session whose further lines depend on how long it lives.
func firstLines(name string, count int) step {
	return func(p *player) {
		interrupted(name)(p)
		last := &p.records[len(p.records)-1]
		last.out = firstOf(last.out, count)
	}
}
