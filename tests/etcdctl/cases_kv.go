package main

import "fmt"

var putAndGet = section{name: "put and get", steps: []step{
	ctl("put foo bar"),
	ctl("put foo bar2 --prev-kv"),
	ctl("put fresh x --prev-kv"),
	ctlWith("from standard input", "put piped"),
	ctl("put foo bar3 --ignore-lease"),
	ctl("put foo --ignore-value"),
	ctl("put foo x --ignore-value"),
	ctl("put foo --ignore-value --ignore-lease"),
	ctl("put missing --ignore-value"),
	ctl("put missing x --ignore-lease"),
	ctl("put foo x --lease=1234"),
	ctl("put foo x --lease=1234 --ignore-lease"),
	ctl("put foo x --lease=nonsense"),
	ctl("put '' x"),
	ctl("put"),
	ctl("put one"),
	ctl("put one two three"),
	ctl("put one two --nonsense"),
	each(
		"put foo 'as {format}'",
		"put foo 'as {format}' --prev-kv",
		"get foo",
		"get foo piped --limit=1",
		"get foo --print-value-only",
		"get foo --count-only",
		"get foo --keys-only",
		"get nothing",
		"get foo --hex",
	),
	ctl("put foo x -w nonsense"),
	ctl("get foo -w nonsense"),
	ctl("get '' --prefix --count-only -w fields"),
	ctl("get '' --prefix --limit=2 -w fields"),
	ctl("get '' --prefix --count-only --keys-only"),
	ctl("get --prefix f"),
	ctl("get '' --from-key"),
	ctl("get fresh --from-key"),
	ctl("get a z"),
	ctl("get z a"),
	ctl("get a z --limit=1 -w json"),
	ctl("get a z --limit=-1"),
	ctl("get a z b"),
	ctl("get a z --prefix"),
	ctl("get a z --from-key"),
	ctl("get foo --rev=2"),
	ctl("get foo --rev=3 -w json"),
	ctl("get foo --rev=1"),
	ctl("get foo --rev=1000000"),
	ctl("get foo --rev=-1"),
	ctl("get foo --consistency=s"),
	ctl("get foo --consistency=l -w json"),
	ctl("get foo --consistency=s -w json"),
	ctl("get foo --consistency=x"),
	ctl("get foo --prefix --from-key"),
	ctl("get ''"),
	ctl("get"),
	ctl("get foo --nonsense"),
	ctl("get foo --limit=nonsense"),
	ctl("put 'quoted \"key\"' 'line\nend\ttab'"),
	ctl("get quoted --prefix -w fields"),
	ctl("get quoted --prefix -w json"),
	ctl("put 'bytes\xff' '\xfe\x01'"),
	ctl("get bytes --prefix"),
	ctl("get bytes --prefix -w json"),
	ctl("get bytes --prefix -w fields"),
	ctl("get bytes --prefix --hex"),
	ctl("put bytes/dash -- -value"),
	ctl("get bytes/dash"),
}}

var sorts = section{name: "sorts", steps: sortSteps()}

func sortSteps() []step {
	var steps []step
	for _, key := range []string{"d", "b", "a", "c", "c", "a", "c", "d", "d", "a", "d", "d"} {
		steps = append(steps, ctl("put s/"+key+" ''"))
	}
	for _, pair := range []string{"b w", "a z", "c x", "d y", "a z"} {
		steps = append(steps, ctl("put s/"+pair))
	}
	for _, target := range []string{"CREATE", "KEY", "MODIFY", "VALUE", "VERSION"} {
		by := "get s/ --prefix --sort-by=" + target
		for _, order := range []string{" --order=ASCEND", " --order=DESCEND"} {
			steps = append(steps, ctl(by+order), ctl(by+order+" --limit=2 -w json"),
				ctl(by+order+" --rev=12 --keys-only"))
		}
		steps = append(steps, ctl(by+" --keys-only"))
	}
	for _, edge := range []string{"2", "4", "13", "15", "18", "100"} {
		steps = append(steps,
			ctl("get s/ --prefix --min-mod-rev="+edge),
			ctl("get s/ --prefix --max-mod-rev="+edge),
			ctl("get s/ --prefix --min-create-rev="+edge),
			ctl("get s/ --prefix --max-create-rev="+edge+" --limit=1 -w json"),
			ctl("get s/ --prefix --max-mod-rev="+edge+" --count-only -w fields"),
		)
	}
	return append(steps,
		ctl("get s/ --prefix --order=ASCEND"),
		ctl("get s/ --prefix --order=descend"),
		ctl("get s/ --prefix --sort-by=key"),
		ctl("get s/ --prefix --sort-by=NONSENSE"),
		ctl("get s/ --prefix --order=NONSENSE"),
	)
}

var streamed = section{name: "streamed range", steps: []step{
	ctl("put r/1 a"),
	ctl("put r/2 b"),
	ctl("put r/3 c"),
	ctl("del r/2"),
	ctl("put r/4 d"),
	each("get r/ --prefix --stream", "get nothing --stream"),
	ctl("get r/ --prefix --stream --rev=4 -w json"),
	ctl("get r/ --prefix --stream --limit=2 -w json"),
	ctl("get r/ --prefix --stream --keys-only"),
	ctl("get r/ --prefix --stream --count-only -w fields"),
	ctl("get r/ --prefix --stream --consistency=s -w json"),
	ctl("get '' --from-key --stream"),
	ctl("get r/ --prefix --stream --order=DESCEND"),
	ctl("get r/ --prefix --stream --sort-by=VALUE"),
	ctl("get r/ --prefix --stream --sort-by=KEY --order=ASCEND"),
	ctl("get r/ --prefix --stream --min-mod-rev=3"),
	ctl("get r/ --prefix --stream --max-create-rev=3"),
	ctl("get r/ --prefix --stream --rev=1000"),
	ctl("compaction 5"),
	ctl("get r/ --prefix --stream --rev=3"),
	ctl("get '' --stream"),
}}

var deletes = section{name: "del", steps: []step{
	ctl("put d/k1 one"), ctl("put d/k2 two"), ctl("put d/k3 three"),
	ctl("put d/l1 four"), ctl("put d/l2 five"),
	ctl("put d/m1 six"), ctl("put d/m2 seven"), ctl("put d/m3 eight"),
	ctl("del d/nothing"),
	ctl("del d/k1"),
	ctl("del d/k2 --prev-kv"),
	ctl("del d/k1 d/k9 --range"),
	// Without --range it waits two seconds for a change of mind.
	ctl("del d/k1 d/k9"),
	ctl("del d/l --prefix --prev-kv -w json"),
	each(
		"put d/again 'as {format}'",
		"del d/again --prev-kv",
		"del d/again",
		"put d/range/1 x",
		"put d/range/2 y",
		"del d/range/ --prefix --prev-kv --hex",
	),
	ctl("put zz/1 x"),
	ctl("put zz/2 x"),
	ctl("del zz/ --from-key"),
	ctl("del d/ --prefix --from-key"),
	ctl("del d/ e/ --prefix"),
	ctl("del d/ e/ --from-key"),
	ctl("del a b c"),
	ctl("del ''"),
	ctl("del"),
	ctl("del d/ --nonsense"),
	ctl("get d/ --prefix -w json"),
	ctl("del '' --prefix"),
	ctl("del '' --from-key"),
	ctl("get '' --prefix -w json"),
}}

var txns = section{name: "txn", steps: []step{
	ctl("put t/1 one"),
	eachWith("value(\"t/1\") = \"one\"\n\nput t/2 two\nget t/1\ndel t/none\n\nput t/3 three\n\n",
		"txn", "txn -i", "txn --interactive --hex"),
	eachWith("value(\"t/1\") = \"other\"\n\nput t/2 two\n\nget t/ --prefix\ndel t/4\n\n",
		"txn"),
	ctlWith("version(\"t/2\") > \"0\"\ncreate(\"t/1\") < \"1000\"\nmod(\"t/1\") != \"0\"\n"+
		"lease(\"t/1\") = \"0\"\n\nget t/2\n\n\n", "txn"),
	ctlWith("ver(\"t/none\") = \"0\"\nc(\"t/none\") = \"0\"\nm(\"t/none\") = \"0\"\n\n"+
		"put t/none now\n\n\n", "txn"),
	compares("version", "0", "3", "1000"),
	compares("create", "0", "2", "1000"),
	compares("mod", "0", "2", "1000"),
	compares("value", "o", "one", "p"),
	// The tool itself gives up: it does not read the number.
	ctlWith("lease(\"t/1\") = \"0\"\n\n\n\n", "txn"),
	ctlWith("val(\"t/1\") > \"o\"\nm(\"t/1\") ~ \"0\"\n\n\n\n", "txn"),
	ctlWith("\n\n\n", "txn"),
	ctlWith("\n\n\n", "txn -i"),
	ctlWith("\nput t/1 a\nput t/1 b\n\n\n", "txn"),
	ctlWith("\nput t/1 a\ndel t/ --prefix\n\n\n", "txn"),
	ctlWith("\nget t/1 --rev=1000000\n\n\n", "txn"),
	ctlWith("\nput t/missing x --ignore-lease\n\n\n", "txn"),
	ctlWith("\nput t/x 'two words' --prev-kv\nget t/ --prefix --order=DESCEND --limit=2\n"+
		"del t/2 --prev-kv\n\n\n", "txn -w json"),
	ctlWith("\nput t/leased x --lease=77\n\n\n", "txn"),
	ctlWith("nonsense\n\n\n\n", "txn"),
	ctlWith("size(\"t/1\") = \"1\"\n\n\n\n", "txn"),
	ctlWith("mod(\"t/1\") = \"word\"\n\n\n\n", "txn"),
	ctlWith("mod(\"t/1\") = 1\n\n\n\n", "txn"),
	ctlWith("\nnonsense t/1\n\n\n", "txn"),
	ctlWith("\nget\n\n\n", "txn"),
	ctlWith("\nget t/1 --nonsense\n\n\n", "txn"),
	ctlWith("\n", "txn"),
	ctl("txn"),
	ctl("txn argument"),
	ctlWith("\nget t/ --prefix --keys-only\nget t/ --prefix --limit=1\n\n\n", "txn -w json"),
	ctl("get t/ --prefix -w json"),
}}

// compares asks a key's property in every way, with values below, at and above what it is.
func compares(property string, values ...string) step {
	return func(p *player) {
		for _, operator := range []string{"=", "!=", "<", ">"} {
			for _, key := range []string{"t/1", "t/never"} {
				for _, value := range values {
					condition := fmt.Sprintf("%s(%q) %s %q", property, key, operator, value)
					ctlWith(condition+"\n\n\n\n", "txn")(p)
				}
			}
		}
	}
}
