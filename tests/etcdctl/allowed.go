package main

import (
	"regexp"
	"strings"
)

// allowance is a kind of command whose whole answer may differ. It holds only while ours says so,
// and one that no longer differs is reported, so that none outlives its reason.
type allowance struct {
	why  string
	what *regexp.Regexp
	// ours must stand in what ringd answers.
	ours string
}

var allowances = []allowance{{
	why:  "membership changes come with clusters of several members; until then all are refused",
	what: regexp.MustCompile(`member (promote|remove|update|add .*--peer-urls=http)`),
	ours: "Unimplemented desc = ringd: /etcdserverpb.Cluster/Member",
}}

// allowed tells whether a difference is one of these.
func allowed(theirs, ours record) bool {
	for _, allowance := range allowances {
		if allowance.what.MatchString(theirs.words) && strings.Contains(ours.err, allowance.ours) {
			return true
		}
	}
	return false
}

// stale are the reasons that nothing needed, of those whose commands were compared.
func stale(pairs [][2]record) []string {
	var reasons []string
	for _, allowance := range allowances {
		asked, needed := false, false
		for _, pair := range pairs {
			if allowance.what.MatchString(pair[0].words) {
				asked = true
				needed = needed || pair[0] != pair[1]
			}
		}
		if asked && !needed {
			reasons = append(reasons, "is allowed to differ, and does not: "+allowance.why)
		}
	}
	return reasons
}
