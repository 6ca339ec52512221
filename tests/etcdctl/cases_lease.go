package main

import "fmt"

var leases = section{name: "lease", steps: []step{
	ctl("lease list"),
	each("lease list"),
	ctl("lease grant 1000"),
	ctl("put l/1 x --lease=LEASE-1"),
	ctl("put l/2 y --lease=LEASE-1 -w json"),
	each(
		"get l/ --prefix",
		"lease timetolive LEASE-1",
		"lease timetolive LEASE-1 --keys",
		"lease timetolive LEASE-1 --keys --hex",
		"lease keep-alive LEASE-1 --once",
		"lease timetolive 1234",
		"lease timetolive 1234 --keys",
		"lease keep-alive 1234 --once",
		"lease revoke 1234",
		"lease keep-alive 1234",
	),
	ctl("put l/1 again --ignore-lease"),
	ctl("put l/2 without"),
	ctl("lease timetolive LEASE-1 --keys"),
	ctl("put l/2 --ignore-value --lease=LEASE-1"),
	ctl("lease timetolive LEASE-1 --keys"),
	ctlWith("\nput l/3 z --lease=LEASE-1\n\n\n", "txn"),
	ctl("lease timetolive LEASE-1 --keys -w json"),
	ctl("del l/3"),
	ctl("lease timetolive LEASE-1 --keys -w fields"),
	// In the order of the lists: what expires first is told first.
	ctl("lease grant 3000"),
	ctl("lease grant 2000"),
	each("lease list"),
	begin("kept", "lease keep-alive LEASE-1"),
	begin("kept, json", "lease keep-alive LEASE-2 -w json"),
	told("kept", 1),
	told("kept, json", 1),
	ctl("lease revoke LEASE-2"),
	interrupted("kept"),
	interrupted("kept, json"),
	ctl("lease revoke LEASE-1"),
	ctl("lease revoke LEASE-1"),
	// It notices at the next renewal, after a third of the time.
	ctl("lease grant 15"),
	begin("revoked", "lease keep-alive LEASE-4"),
	told("revoked", 1),
	ctl("lease revoke LEASE-4"),
	ended("revoked"),
	ctl("get l/ --prefix -w json"),
	ctl("lease timetolive LEASE-1"),
	ctl("lease revoke LEASE-3 -w json"),
	ctl("lease list"),
	each("lease grant 500"),
	ctl("lease list -w json"),
	ctl("lease grant 0"),
	ctl("lease grant -- -5"),
	ctl("lease grant 9000000000"),
	ctl("lease grant 9000000001"),
	ctl("lease grant nonsense"),
	ctl("lease grant 99999999999999999999"),
	ctl("lease grant"),
	ctl("lease grant 5 6"),
	ctl("lease revoke"),
	ctl("lease revoke nonsense"),
	ctl("lease revoke 0"),
	ctl("lease timetolive"),
	ctl("lease timetolive nonsense"),
	ctl("lease timetolive 0"),
	ctl("lease keep-alive"),
	ctl("lease keep-alive nonsense"),
	ctl("lease keep-alive 0 --once"),
	ctl("lease list extra"),
	ctl("lease"),
	ctl("lease nonsense"),
	ctl("lease grant 5 --nonsense"),
}}

// What expires is gone with its keys, and the watches hear of it.
var expiry = section{name: "lease, expired", steps: []step{
	// Long enough for both keys on a slow machine.
	ctl("lease grant 5"),
	ctl("put e/1 x --lease=LEASE-1"),
	ctl("put e/2 x --lease=LEASE-1"),
	begin("watch", "watch e/ --prefix --rev=4 --prev-kv"),
	told("watch", 2*5),
	interrupted("watch"),
	ctl("get e/ --prefix -w json"),
	ctl("lease timetolive LEASE-1 --keys"),
	ctl("lease keep-alive --once LEASE-1"),
	ctl("lease list"),
}}

var locks = section{name: "lock", steps: []step{
	begin("first", "lock l"),
	told("first", 2),
	begin("second", "lock l"),
	awaits(4, "get l/ --prefix --keys-only"),
	begin("third", "lock l --ttl=30 -w json"),
	awaits(6, "get l/ --prefix --keys-only"),
	interrupted("first"),
	told("second", 2),
	interrupted("second"),
	told("third", 1),
	interrupted("third"),
	ctl("get l/ --prefix -w json"),
	lockIn("simple", 2), lockIn("json", 1), lockIn("fields", 12), lockIn("table", 0),
	ctl("lock m -- sh -c 'echo $ETCD_LOCK_KEY $ETCD_LOCK_REV'"),
	ctl("lock m sh -c 'echo words; echo more >&2; exit 7'"),
	ctl("lock m -- sh -c 'echo words; echo more >&2; exit 7'"),
	ctl("lock m --ttl=5 true"),
	ctl("lock m ./not-there"),
	ctl("lock m --ttl=0 true"),
	ctl("lock m --ttl=nonsense true"),
	ctl("lock"),
	ctl("lock '' true"),
	ctl("lock m --nonsense"),
	ctl("get m/ --prefix"),

	// Whoever holds a lock without its lease has lost it.
	begin("robbed", "lock n"),
	told("robbed", 2),
	ctl("get n/ --prefix -w json"),
	newestRevoked,
	ended("robbed"),
}}

// lockIn takes and leaves a lock whose key is printed in a format.
func lockIn(format string, lines int) step {
	return func(p *player) {
		begin("lock", "lock f/"+format+" -w "+format)(p)
		if lines == 0 {
			ended("lock")(p)
			return
		}
		told("lock", lines)(p)
		interrupted("lock")(p)
	}
}

// newestRevoked ends the lease that was seen last.
func newestRevoked(p *player) {
	ctl(fmt.Sprintf("lease revoke LEASE-%d", len(p.mask.leases)))(p)
}

var elections = section{name: "elect", steps: []step{
	begin("first", "elect e one"),
	told("first", 2),
	begin("listens", "elect e --listen"),
	told("listens", 2),
	begin("listens, json", "elect -l e -w json"),
	told("listens, json", 1),
	begin("second", "elect e two"),
	awaits(4, "get e/ --prefix --keys-only"),
	ctl("get e/ --prefix"),
	// What a leader does when it proclaims something else.
	ctl("put e/LEASE-1 uno --ignore-lease"),
	told("listens", 4),
	told("listens, json", 2),
	interrupted("first"),
	told("second", 2),
	told("listens", 6),
	told("listens, json", 3),
	interrupted("second"),
	interrupted("listens"),
	interrupted("listens, json"),
	ctl("get e/ --prefix -w json"),
	electIn("json", 1), electIn("fields", 12),
	ctl("elect e one -w table"),
	ctl("elect"),
	ctl("elect e"),
	ctl("elect e one two"),
	ctl("elect e one --listen"),
	ctl("elect e one --nonsense"),
}}

func electIn(format string, lines int) step {
	return func(p *player) {
		begin("elect", "elect f/"+format+" value -w "+format)(p)
		told("elect", lines)(p)
		interrupted("elect")(p)
	}
}
