package main

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// masks take out of a text what cannot be the same on two servers, or in two runs on one. Each
// says why; what has no reason here is compared.
type masks struct {
	members []*member
	// leases are the ids seen so far. Their order is compared, as LEASE-1 and so on.
	leases []uint64
	// prefix begins every lease's id: it is taken from the member's.
	prefix uint64
}

func newMasks(members []*member) *masks {
	id, _ := strconv.ParseUint(members[0].id, 16, 64)
	return &masks{members: members, prefix: id & 0x7fff}
}

// pattern is replaced by a text wherever it matches.
type pattern struct {
	why  string
	what *regexp.Regexp
	with string
}

var patterns = []pattern{
	{
		"how long a request took; nobody can promise that",
		regexp.MustCompile(`(took = |took |"took":"|"Took" : "?)[0-9.]+(µs|ms|s)`), "${1}TIME",
	},
	{
		"the client's own log has the time, rounded to words",
		regexp.MustCompile(`"took":"[^"]*"`), `"took":"TIME"`,
	},
	{
		"whether a call is under way when the user interrupts is chance, and the client tells of it",
		regexp.MustCompile(`(?m)^\{.*"retrying of unary invoker failed".*code = Canceled desc = ` +
			`context canceled"\}\n?`), "",
	},
	{"the client's own log has times", regexp.MustCompile(`"ts":"[^"]*"`), `"ts":"TIME"`},
	{"and addresses in its memory", regexp.MustCompile(`0x[0-9a-f]{6,}`), "POINTER"},
	{"and ports of its side", regexp.MustCompile(`LocalAddr: '[^']*'`), "LocalAddr: 'ADDRESS'"},
	{
		"size of the store and how much of it is used: another engine, other pages",
		regexp.MustCompile(`("(?:dbSize|dbSizeInUse|totalSize)":|"(?:DBSize|DBSizeInUse)" : )\d+`),
		"${1}SIZE",
	},
	{
		"a backup's file has the size of its pages",
		regexp.MustCompile(`("size":)"[^"]*"`), `$1"SIZE"`,
	},
	{
		"place in the log: ringd writes many requests as one entry",
		regexp.MustCompile(`("raft(?:Applied)?Index":|"Raft(?:Applied)?Index" : )\d+`), "${1}INDEX",
	},
	{
		"what is left of a lease of 1000 s that was granted a moment ago",
		regexp.MustCompile(`(remaining\(|"ttl":|"TTL" : )99\d(s?\b)`), "${1}LEFT$2",
	},
}

// on returns the text with its masks on.
func (m *masks) on(text string) string {
	for place, member := range m.members {
		// Where the members listen.
		name := []string{"ENDPOINT", "ANOTHER"}[place]
		text = strings.ReplaceAll(text, member.endpoint, name)
	}
	for _, pattern := range patterns {
		text = pattern.what.ReplaceAllString(text, pattern.with)
	}
	text = maskStatus(text)
	text = attached.ReplaceAllStringFunc(text, sorted)
	return m.maskLeases(text)
}

// attached are the keys of a lease. etcd has them in a map, and tells them in no order.
var attached = regexp.MustCompile(`attached keys\(\[.*\]\)|"keys":\[.*?\]|(?:"Key" : .*\n){2,}`)

// sorted orders what stands between brackets, or the lines.
func sorted(list string) string {
	separator, inside := " ", list
	from, to := strings.Index(list, "["), strings.LastIndex(list, "]")
	if from >= 0 {
		inside = list[from+1 : to]
	}
	switch {
	case from < 0:
		separator = "\n"
		inside = strings.TrimSuffix(list, separator)
	case strings.HasPrefix(list, `"`):
		separator = ","
	}
	keys := strings.Split(inside, separator)
	slices.Sort(keys)
	return strings.Replace(list, inside, strings.Join(keys, separator), 1)
}

// --- leases --------------------------------------------------------------------------------------

var (
	hexadecimal = regexp.MustCompile(`\b[0-9a-f]{14,16}\b`)
	decimal     = regexp.MustCompile(`\b\d{15,19}\b`)
	encoded     = regexp.MustCompile(`"[A-Za-z0-9+/]{16,}={0,2}"`)
)

// maskLeases names ids by the order in which they were seen: a server makes them of the time.
func (m *masks) maskLeases(text string) string {
	text = hexadecimal.ReplaceAllStringFunc(text, func(found string) string {
		id, err := strconv.ParseUint(found, 16, 64)
		return m.named(id, err, found)
	})
	text = decimal.ReplaceAllStringFunc(text, func(found string) string {
		id, err := strconv.ParseUint(found, 10, 64)
		return m.named(id, err, found)
	})
	// A lock's key ends with its lease, and in JSON it is in base64.
	text = encoded.ReplaceAllStringFunc(text, func(found string) string {
		plain, err := base64.StdEncoding.DecodeString(strings.Trim(found, `"`))
		if err != nil || !hexadecimal.Match(plain) {
			return found
		}
		return strconv.Quote(m.maskLeases(string(plain)))
	})
	return m.maskVarints(text)
}

func (m *masks) named(id uint64, err error, found string) string {
	if err != nil || id>>48 != m.prefix {
		return found
	}
	place := slices.Index(m.leases, id)
	if place < 0 {
		place = len(m.leases)
		m.leases = append(m.leases, id)
	}
	return fmt.Sprintf("LEASE-%d", place+1)
}

// maskVarints finds known ids in protobuf's own bytes.
func (m *masks) maskVarints(text string) string {
	for place, id := range m.leases {
		bytes := binary.AppendUvarint(nil, id)
		text = strings.ReplaceAll(text, string(bytes), fmt.Sprintf("LEASE-%d", place+1))
	}
	return text
}

// --- the status of an endpoint and of a file -----------------------------------------------------

// unequal are columns that hold what `patterns` takes out of other formats.
var unequal = []string{
	"DB SIZE", "IN USE", "PERCENTAGE NOT IN USE", "RAFT INDEX", "RAFT APPLIED INDEX", "TOOK",
	"TOTAL SIZE",
	// Over the whole file with the place in the log in it. What it holds is compared by hashkv.
	"HASH*",
}

// statusColumns of the line are the table's, without names.
var statusColumns = strings.Split("ENDPOINT,ID,VERSION,STORAGE VERSION,DB SIZE,IN USE,"+
	"PERCENTAGE NOT IN USE,QUOTA,IS LEADER,IS LEARNER,RAFT TERM,RAFT INDEX,RAFT APPLIED INDEX,"+
	"ERRORS,DOWNGRADE TARGET VERSION,DOWNGRADE ENABLED", ",")

// fileColumns of `snapshot status`.
var fileColumns = strings.Split("HASH*,REVISION,TOTAL KEYS,TOTAL SIZE,VERSION", ",")

var (
	statusLine = regexp.MustCompile(`(?m)^(?:http://)?ENDPOINT, .*, 3\.7\.1, .*$`)
	fileLine   = regexp.MustCompile(`(?m)^[0-9a-f]{1,8}, \d+, \d+, [0-9.]+ [kMG]?B, .*$`)
	fileHash   = regexp.MustCompile(`("hash":|"Hash" : )\d+(,.*"totalKey"|\n.*\n"Keys")`)
	fileSize   = regexp.MustCompile(`(?m)^("Size" : )\d+$`)
	table      = regexp.MustCompile(`(?m)^┌(?:.*\n)+?└.*$`)
	blanks     = regexp.MustCompile(` +`)
	rule       = regexp.MustCompile(`─+`)
)

func maskStatus(text string) string {
	text = statusLine.ReplaceAllStringFunc(text, func(line string) string {
		return strings.Join(maskCells(strings.Split(line, ", "), statusColumns), ", ")
	})
	text = fileLine.ReplaceAllStringFunc(text, func(line string) string {
		return strings.Join(maskCells(strings.Split(line, ", "), fileColumns), ", ")
	})
	text = fileHash.ReplaceAllString(text, "${1}HASH$2")
	text = fileSize.ReplaceAllString(text, "${1}SIZE")
	return table.ReplaceAllStringFunc(text, maskTable)
}

// maskTable takes cells out of a table with such columns. Its width follows what it held.
func maskTable(text string) string {
	lines := strings.Split(text, "\n")
	names := cells(lines[1])
	if names[0] == "HASH" && slices.Contains(names, "TOTAL KEYS") {
		names[0] = "HASH*"
	}
	if !slices.ContainsFunc(names, func(name string) bool {
		return slices.Contains(unequal, name)
	}) {
		return text
	}
	for place, line := range lines {
		if place == 1 || !strings.HasPrefix(line, "│") {
			lines[place] = blanks.ReplaceAllString(rule.ReplaceAllString(line, "─"), " ")
			continue
		}
		lines[place] = "│ " + strings.Join(maskCells(cells(line), names), " │ ") + " │"
	}
	return strings.Join(lines, "\n")
}

func cells(line string) []string {
	cells := strings.Split(strings.Trim(line, "│"), "│")
	for place := range cells {
		cells[place] = strings.TrimSpace(cells[place])
	}
	return cells
}

func maskCells(cells, names []string) []string {
	for place := range min(len(cells), len(names)) {
		if slices.Contains(unequal, names[place]) {
			cells[place] = "MASKED"
		}
	}
	return cells
}
