package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Every wait and every command is bounded, so that what hangs ends; nothing is judged by how long
// it took. The longest command measures for a minute.
const (
	patience        = time.Minute
	commandPatience = 4 * time.Minute
)

// formats are all that etcdctl knows. A command without one of them says so.
var formats = []string{"simple", "json", "fields", "table", "protobuf"}

// step does something to the player's servers and, most often, records what was answered.
type step func(*player)

// player is one kind of server through one section.
type player struct {
	// directory is where the commands run: files in it have the same names on both sides.
	directory string
	members   []*member
	sessions  map[string]*session
	mask      *masks
	records   []record
	// faults are waits that were not met, and what else keeps the records from meaning something.
	faults []string
}

// record is one command and what it came to, with its masks on.
type record struct {
	words, out, err, end string
}

func (r record) lines() []string {
	var lines []string
	for _, stream := range []struct{ name, text string }{{"out", r.out}, {"err", r.err}} {
		for line := range strings.Lines(stream.text) {
			lines = append(lines, stream.name+": "+strings.TrimSuffix(line, "\n"))
		}
		if stream.text != "" && !strings.HasSuffix(stream.text, "\n") {
			lines = append(lines, stream.name+" ends without a line end")
		}
	}
	return append(lines, "= "+r.end)
}

func (s section) play(binary string) *player {
	p := &player{sessions: map[string]*session{}}
	scratch, err := os.MkdirTemp("", "etcdctl")
	if err != nil {
		p.fault("%v", err)
		return p
	}
	defer os.RemoveAll(scratch)
	p.directory = filepath.Join(scratch, "here")
	if err := os.Mkdir(p.directory, 0o700); err != nil {
		p.fault("%v", err)
		return p
	}
	for number := range max(s.members, 1) {
		started, err := startMember(binary, filepath.Join(scratch, strconv.Itoa(number)), s.flags)
		if err != nil {
			p.fault("%v", err)
			return p
		}
		defer started.stop()
		p.members = append(p.members, started)
	}
	p.mask = newMasks(p.members)
	for _, step := range s.steps {
		step(p)
	}
	for name, session := range p.sessions {
		p.fault("%s is still running", name)
		session.process.Process.Kill()
		session.process.Wait()
	}
	return p
}

func (p *player) fault(format string, values ...any) {
	p.faults = append(p.faults, fmt.Sprintf(format, values...))
}

// leave writes the transcript where somebody wants to read it.
func (p *player) leave(directory, section, name string) error {
	if directory == "" {
		return nil
	}
	var text strings.Builder
	for _, record := range p.records {
		fmt.Fprintf(&text, "$ %s\n%s\n", record.words, strings.Join(record.lines(), "\n"))
	}
	path := filepath.Join(directory, strings.ReplaceAll(section, " ", "-")+"."+name)
	return os.WriteFile(path, []byte(text.String()), 0o600)
}

// --- steps ---------------------------------------------------------------------------------------

// ctl runs etcdctl with these words on the section's member.
func ctl(line string) step {
	return ctlWith("", line)
}

// ctlWith gives it something to read.
func ctlWith(input, line string) step {
	return func(p *player) {
		shown := "etcdctl " + line
		if input != "" {
			shown += fmt.Sprintf(" <<< %.200q", input)
		}
		p.run(*etcdctl, p.addressed(line), shown, input, nil)
	}
}

// each runs all the lines in one format, then in the next; {format} is its name.
func each(lines ...string) step {
	return eachWith("", lines...)
}

func eachWith(input string, lines ...string) step {
	return func(p *player) {
		for _, format := range formats {
			for _, line := range lines {
				ctlWith(input, "-w "+format+" "+strings.ReplaceAll(line, "{format}", format))(p)
			}
		}
	}
}

// bare tells etcdctl nothing but the words, with variables before them as a shell has them.
func bare(variables, line string) step {
	return func(p *player) {
		words := p.filled(split(line))
		shown := strings.TrimSpace(variables + " etcdctl " + line)
		p.run(*etcdctl, words, shown, "", p.filled(split(variables)))
	}
}

// utl runs the offline tool, where files of the section are.
func utl(line string) step {
	return func(p *player) {
		p.run(*etcdutl, p.filled(split(line)), "etcdutl "+line, "", nil)
	}
}

// begin starts a command that goes on beside the next steps, until `ended` or `signalled`.
func begin(name, line string) step {
	return func(p *player) {
		session := &session{words: "etcdctl " + line}
		session.process = exec.Command(*etcdctl, p.addressed(line)...)
		p.settle(session.process, nil)
		session.process.Stdout, session.process.Stderr = &session.out, &session.err
		var err error
		if session.input, err = session.process.StdinPipe(); err == nil {
			err = session.process.Start()
		}
		if err != nil {
			p.fault("%s: %v", session.words, err)
			return
		}
		p.sessions[name] = session
	}
}

// says gives a session lines to read.
func says(name, input string) step {
	return func(p *player) {
		if session := p.sessions[name]; session != nil {
			if _, err := io.WriteString(session.input, p.filled([]string{input})[0]); err != nil {
				p.fault("%s does not read: %v", session.words, err)
			}
		}
	}
}

// told waits until a session has printed this many lines, on either stream.
func told(name string, lines int) step {
	return func(p *player) {
		session := p.sessions[name]
		if session == nil {
			return
		}
		if !wait(func() bool { return session.out.lines()+session.err.lines() >= lines }) {
			p.fault("%s did not print %d lines", session.words, lines)
		}
	}
}

// signalled ends a session with a signal and records it.
func signalled(name string, signal syscall.Signal) step {
	return func(p *player) {
		if session := p.sessions[name]; session != nil {
			session.process.Process.Signal(signal)
			ended(name)(p)
		}
	}
}

func interrupted(name string) step {
	return signalled(name, syscall.SIGINT)
}

// ended waits for a session that ends by itself, and records it.
func ended(name string) step {
	return func(p *player) {
		session := p.sessions[name]
		if session == nil {
			return
		}
		delete(p.sessions, name)
		timer := time.AfterFunc(patience, func() {
			session.process.Process.Kill()
		})
		session.process.Wait()
		if !timer.Stop() {
			p.fault("%s did not end", session.words)
		}
		p.record(session.words, session.out.text(), session.err.text(), session.process)
	}
}

// awaits asks again until a command prints this many lines; how often is not recorded.
func awaits(lines int, line string) step {
	return func(p *player) {
		met := wait(func() bool { return strings.Count(p.answer(line), "\n") == lines })
		if !met {
			p.fault("%s did not come to print %d lines", line, lines)
		}
	}
}

// answer is what a command prints, unmasked and unrecorded; empty if it fails.
func (p *player) answer(line string) string {
	process := exec.Command(*etcdctl, p.addressed(line)...)
	p.settle(process, nil)
	out, err := process.Output()
	if err != nil {
		return ""
	}
	return string(out)
}

// --- what they are made of -----------------------------------------------------------------------

// addressed are a line's words, told of the section's member unless they name an endpoint.
func (p *player) addressed(line string) []string {
	words := p.filled(split(line))
	if strings.Contains(line, "--endpoints") {
		return words
	}
	return slices.Concat([]string{"--endpoints", p.members[0].endpoint}, words)
}

// filled puts in what is known only now.
func (p *player) filled(words []string) []string {
	replaced := []string{"{member}", p.members[0].id}
	for place, member := range p.members {
		replaced = append(replaced, []string{"{endpoint}", "{other}"}[place], member.endpoint)
	}
	for place, lease := range p.mask.leases {
		replaced = append(replaced, fmt.Sprintf("LEASE-%d", place+1), fmt.Sprintf("%016x", lease))
	}
	with := strings.NewReplacer(replaced...)
	filled := make([]string, len(words))
	for place, word := range words {
		filled[place] = with.Replace(word)
	}
	return filled
}

// settle gives a command the section's directory and none of our own variables.
func (p *player) settle(process *exec.Cmd, variables []string) {
	process.Dir = p.directory
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "ETCDCTL_") {
			process.Env = append(process.Env, variable)
		}
	}
	process.Env = append(process.Env, variables...)
}

func (p *player) run(program string, words []string, shown, input string, variables []string) {
	ctx, cancel := context.WithTimeout(context.Background(), commandPatience)
	defer cancel()
	process := exec.CommandContext(ctx, program, words...)
	p.settle(process, variables)
	var out, err bytes.Buffer
	process.Stdin, process.Stdout, process.Stderr = strings.NewReader(input), &out, &err
	if failed := process.Run(); process.ProcessState == nil {
		p.fault("%s: %v", shown, failed)
	}
	if ctx.Err() != nil {
		p.fault("%s did not end", shown)
	}
	p.record(shown, out.String(), err.String(), process)
}

func (p *player) record(words, out, err string, process *exec.Cmd) {
	p.records = append(p.records, record{
		words: words,
		out:   p.mask.on(out),
		err:   p.mask.on(err),
		end:   process.ProcessState.String(),
	})
}

// session is a command that runs beside others.
type session struct {
	words    string
	process  *exec.Cmd
	input    io.WriteCloser
	out, err stream
}

// stream can be read while it grows.
type stream struct {
	guard  sync.Mutex
	buffer bytes.Buffer
}

func (s *stream) Write(part []byte) (int, error) {
	s.guard.Lock()
	defer s.guard.Unlock()
	return s.buffer.Write(part)
}

func (s *stream) text() string {
	s.guard.Lock()
	defer s.guard.Unlock()
	return s.buffer.String()
}

func (s *stream) lines() int {
	return strings.Count(s.text(), "\n")
}

// wait polls until something holds. The bound ends what hangs; it measures nothing.
func wait(holds func() bool) bool {
	for until := time.Now().Add(patience); time.Now().Before(until); {
		if holds() {
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}

// split takes a line apart at blanks, as a shell does; what is between single quotes stays whole.
func split(line string) []string {
	var words []string
	var word strings.Builder
	begun, quoted := false, false
	for place := range len(line) {
		switch letter := line[place]; {
		case letter == '\'':
			begun, quoted = true, !quoted
		case letter == ' ' && !quoted:
			if begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteByte(letter)
			begun = true
		}
	}
	if begun {
		words = append(words, word.String())
	}
	return words
}

// firstOf keeps some lines.
func firstOf(text string, count int) string {
	lines := strings.SplitAfterN(text, "\n", count+1)
	return strings.Join(lines[:min(count, len(lines))], "")
}
