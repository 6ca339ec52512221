package main

import (
	"fmt"
	"strings"
)

var compactions = section{name: "compaction", steps: []step{
	ctl("put c/1 a"),
	ctl("put c/1 b"),
	ctl("put c/1 c"),
	ctl("compaction 5"),
	ctl("compaction 3"),
	ctl("compaction 3"),
	ctl("compaction 1"),
	ctl("compaction 0"),
	ctl("compaction -- -1"),
	ctl("get c/1 --rev=2"),
	ctl("get c/1 --rev=3"),
	ctl("compaction 4 --physical"),
	ctl("get c/1 --rev=3 -w json"),
	ctl("compaction"),
	ctl("compaction nonsense"),
	ctl("compaction 1 2"),
	ctl("compaction 4 --nonsense"),
	ctl("get c/1 -w json"),
	each("put c/2 {format}", "compaction 4", "compaction 99"),
	ctl("compaction 6 --physical -w json"),
	ctl("endpoint hashkv"),
}}

var endpoints = section{name: "endpoint", steps: []step{
	settled,
	each(
		"member list",
		"endpoint health",
		"endpoint status",
		"endpoint hashkv",
		"alarm list",
		"endpoint health --cluster",
		"endpoint status --cluster",
		"endpoint hashkv --cluster",
	),
	ctl("member list --hex -w json"),
	ctl("member list --hex"),
	ctl("member list --consistency=s"),
	ctl("member list --consistency=l -w json"),
	ctl("member list --consistency=nonsense"),
	ctl("endpoint status --hex -w json"),
	ctl("endpoint hashkv --hex -w json"),
	ctl("put h/1 x"),
	ctl("endpoint hashkv"),
	ctl("del h/1"),
	ctl("endpoint hashkv -w json"),
	ctl("endpoint hashkv --rev=3 -w json"),
	ctl("endpoint hashkv --rev=2 -w json"),
	ctl("endpoint hashkv --rev=1"),
	ctl("endpoint hashkv --rev=1000000"),
	ctl("endpoint hashkv --rev=-1"),
	ctl("compaction 3 --physical"),
	ctl("endpoint hashkv -w json"),
	ctl("endpoint hashkv --rev=2"),
	ctl("endpoint status -w json"),
	// Of two the one that nobody listens on is told apart.
	each(
		"endpoint health --endpoints {endpoint},127.0.0.1:1 --command-timeout=2s",
		"endpoint status --endpoints {endpoint},127.0.0.1:1 --command-timeout=2s",
		"endpoint hashkv --endpoints {endpoint},127.0.0.1:1 --command-timeout=2s",
	),
	ctl("endpoint health --endpoints http://{endpoint}"),
	ctl("endpoint nonsense"),
	ctl("endpoint"),
	ctl("endpoint status --nonsense"),
	ctl("endpoint hashkv --rev=nonsense"),
	ctl("member list extra"),
	ctl("member list --nonsense"),
	each("get '' --prefix --keys-only"),
}}

// settled waits until the member has written its storage version: etcd does so some seconds after
// its first start, ringd at once.
func settled(p *player) {
	settledAt("3.7.0")(p)
}

func settledAt(version string) step {
	return func(p *player) {
		told := `"storageVersion":"` + version + `"`
		if !wait(func() bool { return strings.Contains(p.answer("endpoint status -w json"), told) }) {
			p.fault("the storage version does not become %s", version)
		}
	}
}

var defragmentation = section{name: "defrag", steps: append(filled(40),
	ctl("del fill/ --prefix"),
	ctl("compaction 40 --physical"),
	each("defrag"),
	ctl("defrag --cluster"),
	ctl("defrag --endpoints {endpoint},127.0.0.1:1 --command-timeout=2s"),
	ctl("defrag extra"),
	ctl("defrag --nonsense"),
	ctl("put after defrag"),
	ctl("get after -w json"),
	ctl("endpoint hashkv"),
)}

func filled(count int) []step {
	var steps []step
	for number := range count {
		steps = append(steps, ctl(fmt.Sprintf("put fill/%d value", number)))
	}
	return steps
}

// One value is larger than the quota, so it matters to nobody how much of it was used.
var alarms = section{
	name:  "alarm",
	flags: []string{"--quota-backend-bytes", "600000"},
	steps: []step{
		settled,
		ctl("alarm list"),
		ctl("alarm disarm"),
		ctl("put small x"),
		ctlWith(strings.Repeat("v", 700_000), "put large"),
		each("alarm list", "endpoint health", "endpoint status"),
		ctl("put small y"),
		ctlWith("\nput small z\n\n\n", "txn"),
		ctlWith("\nget small\n\n\n", "txn"),
		ctlWith("\ndel small\n\n\n", "txn"),
		ctl("put small y --ignore-value"),
		ctl("lease grant 100"),
		ctl("get small"),
		ctl("del small"),
		ctl("compaction 2"),
		ctl("defrag"),
		ctl("lock name true"),
		ctl("move-leader {member}"),
		ctl("snapshot save file"),
		ctl("alarm disarm"),
		ctl("alarm list"),
		ctl("endpoint health"),
		ctl("put small x"),
		ctlWith(strings.Repeat("v", 700_000), "put large"),
		ctl("alarm list -w json"),
		each("alarm disarm"),
		ctlWith(strings.Repeat("v", 700_000), "put large"),
		ctl("alarm disarm --hex -w json"),
		ctl("alarm list extra"),
		ctl("alarm disarm extra"),
		ctl("alarm"),
		ctl("alarm nonsense"),
		ctl("alarm list --nonsense"),
		ctl("get '' --prefix -w json"),
	},
}

var leaders = section{name: "move-leader", steps: []step{
	each("move-leader {member}"),
	ctl("move-leader 1234"),
	ctl("move-leader 0"),
	ctl("move-leader"),
	ctl("move-leader nonsense"),
	ctl("move-leader {member} 2"),
	ctl("move-leader {member} --nonsense"),
	ctl("move-leader {member} --endpoints 127.0.0.1:1 --command-timeout=1s"),
	ctl("put after x -w json"),
}}

var downgrades = section{name: "downgrade", steps: []step{
	settled,
	each("downgrade validate 3.6"),
	ctl("downgrade validate 3.6.0"),
	ctl("downgrade validate 3.7"),
	ctl("downgrade validate 3.7.0"),
	ctl("downgrade validate 3.5"),
	ctl("downgrade validate 3.8"),
	ctl("downgrade validate 2"),
	ctl("downgrade validate nonsense"),
	ctl("downgrade validate ''"),
	ctl("downgrade validate"),
	ctl("downgrade validate 3.6 3.5"),
	each("downgrade cancel"),
	ctl("downgrade enable 3.5"),
	ctl("downgrade enable 3.7"),
	ctl("downgrade enable nonsense"),
	ctl("downgrade enable"),
	ctl("downgrade enable 3.6 3.5"),
	ctl("downgrade enable ''"),
	ctl("downgrade"),
	ctl("downgrade nonsense"),
	ctl("downgrade enable 3.6 --nonsense"),
	ctl("downgrade enable 3.6"),
	// The version follows some seconds later. Until then the answers are others, so that nothing is
	// asked before.
	settledAt("3.6.0"),
	each("endpoint status", "member list"),
	ctl("downgrade validate 3.6"),
	ctl("downgrade enable 3.5"),
	ctl("downgrade cancel"),
	ctl("endpoint health"),
	each("downgrade cancel"),
	settled,
	each("endpoint status"),
	ctl("put after x -w json"),
}}

var members = section{name: "member", steps: []step{
	each("member list", "member promote {member}", "member promote 1234", "member remove 1234"),
	ctl("member update 1234 --peer-urls=http://localhost:9"),
	ctl("member update {member} --peer-urls=nonsense"),
	ctl("member update {member}"),
	ctl("member update nonsense --peer-urls=http://localhost:9"),
	ctl("member update"),
	ctl("member add"),
	ctl("member add name"),
	ctl("member add name http://localhost:9"),
	ctl("member add name --peer-urls=nonsense"),
	ctl("member add name --peer-urls=http://localhost:2380"),
	ctl("member add name --peer-urls=http://localhost:2380 --learner"),
	ctl("member add name --nonsense"),
	ctl("member remove"),
	ctl("member remove nonsense"),
	ctl("member promote"),
	ctl("member promote nonsense"),
	ctl("member"),
	ctl("member nonsense"),
}}

var snapshots = section{name: "snapshot", steps: []step{
	settled,
	ctl("put s/1 one"),
	ctl("put s/1 two"),
	ctl("put s/2 three"),
	ctl("del s/2"),
	ctl("lease grant 1000"),
	ctl("put s/3 three"),
	ctl("snapshot save file"),
	ctl("snapshot save file -w json"),
	ctl("snapshot save other --command-timeout=1ns"),
	ctl("snapshot save not/there"),
	ctl("snapshot save"),
	ctl("snapshot save one two"),
	ctl("snapshot save one --nonsense"),
	ctl("snapshot"),
	ctl("snapshot nonsense"),
	utl("snapshot status file"),
	utl("snapshot status file -w json"),
	utl("snapshot status file -w fields"),
	utl("snapshot status file -w table"),
	utl("snapshot status absent"),
	// The number over the keys' history does not know pages. It changes the file, so it is last.
	utl("hashkv file"),
	utl("hashkv file -w json"),
	utl("hashkv file --rev=3 -w fields"),
	utl("hashkv file --rev=4 -w table"),
	ctl("endpoint hashkv"),
	ctl("endpoint hashkv --rev=4"),
	ctl("compaction 4 --physical"),
	ctl("snapshot save compacted"),
	utl("snapshot status compacted -w fields"),
	utl("hashkv compacted -w json"),
	ctl("endpoint hashkv -w json"),
}}
