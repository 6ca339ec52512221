package main

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	mebibyte = 1 << 20
	// slack is what allocators and the store's own work may take in any case. It is far below what
	// the cases would take without a bound.
	slack = 64 * mebibyte
	// inFlight is how many puts a writer has out.
	inFlight = 100
	// watchPrefix is what is watched; its end is the first key behind.
	watchPrefix, watchEnd = "w/", "w0"
	// largeBytes are the values of the cases about size, of which there are so many.
	largeBytes = 16 << 10
	largeCount = 2048
)

func loadCases() []loadCase {
	return []loadCase{
		{"watch: ten thousand of one prefix hear everything", watchMany},
		{"watch: who comes late catches up beside them", watchLate},
		{"watch: who stops reading holds up nobody and loses nothing", watchStopped},
		{"range: large answers that nobody reads", rangesUnread},
		{"streams: backups and lists that nobody reads", streamsUnread},
	}
}

// putMany puts with many calls out, each of which has to be answered well.
func (c *held) putMany(count int, value []byte, key func(number int) string) {
	k := c.connect(windowDefault)
	defer k.close()
	for number := 0; number < count; {
		var ids []uint32
		for range min(inFlight, count-number) {
			id, err := k.begin(putPath, encoded(put(key(number), value)))
			if err != nil {
				c.wrongf("put %d: %v", number, err)
				return
			}
			ids = append(ids, id)
			number++
		}
		for _, id := range ids {
			if outcome := k.finish(id); outcome != ":status=200 grpc-status=0" {
				c.wrongf("a put: %s", outcome)
				return
			}
			delete(k.streams, id)
		}
		// Answers are small, but there are many.
		k.framer.WriteWindowUpdate(0, 100*uint32(len(ids)))
	}
}

// revision is the store's newest.
func (c *held) revision() int64 {
	k := c.connect(windowDefault)
	defer k.close()
	var answer pb.RangeResponse
	c.ask(k, rangePath, &pb.RangeRequest{Key: []byte("none")}, &answer)
	return answer.Header.Revision
}

// reader is a connection with one stream of watches, each of which is to be told every revision.
type reader struct {
	c      *held
	k      *conn
	stream uint32
	// The next revision of each, by id.
	next    map[int64]int64
	created int
	// How far they are to be told, and how many are not yet.
	last int64
	left int
}

// watchers opens a stream with so many watches of the prefix, which begin at a revision.
func (c *held) watchers(count int, from int64, window uint32) *reader {
	r := &reader{c: c, k: c.connect(window), next: map[int64]int64{}}
	r.stream = r.k.open(watchPath)
	for range count {
		c.must(r.k.send(r.stream, createRequest(watchPrefix, watchEnd, from), false), "create")
	}
	c.must(r.until(from, func() bool { return r.created == count }), "the watches")
	return r
}

// until takes responses in until something holds. New watches begin at a revision.
func (r *reader) until(from int64, holds func() bool) error {
	stream := r.k.streams[r.stream]
	var fault error
	err := r.k.until(func() bool {
		messages, rest := split(stream.body)
		for _, message := range messages {
			if fault = r.handle(message, from); fault != nil {
				return true
			}
		}
		stream.body = append(stream.body[:0], rest...)
		r.k.credit()
		if stream.over {
			fault = fmt.Errorf("the stream is over: %s", stream.outcome())
		}
		return fault != nil || holds()
	})
	if fault != nil {
		return fault
	}
	return err
}

// handle takes one response in: every revision comes once, in order, and none is missing.
func (r *reader) handle(message []byte, from int64) error {
	var id int64
	var events [][]byte
	created := false
	for len(message) > 0 {
		number, kind, size := protowire.ConsumeTag(message)
		message = message[max(size, 0):]
		switch {
		case size < 0:
			return protowire.ParseError(size)
		case kind == protowire.VarintType:
			value, size := protowire.ConsumeVarint(message)
			if size < 0 {
				return protowire.ParseError(size)
			}
			message = message[size:]
			switch number {
			case 2:
				id = int64(value)
			case 3:
				created = value != 0
			case 4:
				return fmt.Errorf("watch %d was cancelled", id)
			}
		case kind == protowire.BytesType:
			value, size := protowire.ConsumeBytes(message)
			if size < 0 {
				return protowire.ParseError(size)
			}
			message = message[size:]
			if number == 11 {
				events = append(events, value)
			}
		default:
			return fmt.Errorf("a field of kind %d", kind)
		}
	}
	if created {
		r.created++
		r.next[id] = from
	}
	for _, event := range events {
		revision, err := revisionOf(event)
		if err != nil {
			return err
		}
		if revision != r.next[id] {
			return fmt.Errorf("watch %d is told revision %d, not %d", id, revision, r.next[id])
		}
		r.next[id]++
		if revision == r.last {
			r.left--
		}
	}
	return nil
}

// revisionOf finds the mod revision of an event's record.
func revisionOf(event []byte) (int64, error) {
	record, found := field(event, 2)
	if !found {
		return 0, fmt.Errorf("an event without a record")
	}
	for len(record) > 0 {
		number, kind, size := protowire.ConsumeTag(record)
		if size < 0 {
			return 0, protowire.ParseError(size)
		}
		record = record[size:]
		if number == 3 && kind == protowire.VarintType {
			value, size := protowire.ConsumeVarint(record)
			return int64(value), protowire.ParseError(min(size, 0))
		}
		size = protowire.ConsumeFieldValue(number, kind, record)
		if size < 0 {
			return 0, protowire.ParseError(size)
		}
		record = record[size:]
	}
	return 0, fmt.Errorf("a record without a revision")
}

// field finds a field of bytes.
func field(message []byte, wanted protowire.Number) ([]byte, bool) {
	for len(message) > 0 {
		number, kind, size := protowire.ConsumeTag(message)
		if size < 0 {
			return nil, false
		}
		message = message[size:]
		if number == wanted && kind == protowire.BytesType {
			value, size := protowire.ConsumeBytes(message)
			return value, size >= 0
		}
		size = protowire.ConsumeFieldValue(number, kind, message)
		if size < 0 {
			return nil, false
		}
		message = message[size:]
	}
	return nil, false
}

// hear waits until all watches were told everything up to a revision.
func (r *reader) hear(last int64) error {
	r.last, r.left = last, 0
	for _, next := range r.next {
		if next <= last {
			r.left++
		}
	}
	if err := r.until(0, func() bool { return r.left == 0 }); err != nil {
		return fmt.Errorf("%d watches wait for more: %w", r.left, err)
	}
	return nil
}

// audience opens so many watches on so many connections.
func (c *held) audience(scale scale) []*reader {
	from := c.revision() + 1
	var readers []*reader
	for number := range scale.connections {
		count := scale.watchers / scale.connections
		if number < scale.watchers%scale.connections {
			count++
		}
		// From now on: it is not known yet what comes first, but nobody writes meanwhile.
		reader := c.watchers(count, 0, windowMax/2)
		for id := range reader.next {
			reader.next[id] = from
		}
		readers = append(readers, reader)
	}
	return readers
}

// hearAll lets the readers hear up to what was written last, beside whatever writes.
func (c *held) hearAll(readers []*reader, last int64) {
	var group sync.WaitGroup
	for number, reader := range readers {
		group.Go(func() {
			if err := reader.hear(last); err != nil {
				c.wrongf("connection %d: %v", number, err)
			}
		})
	}
	group.Wait()
}

func closeAll(readers []*reader) {
	for _, reader := range readers {
		reader.k.close()
	}
}

func watched(number int) string { return fmt.Sprintf("%s%04d", watchPrefix, number%1000) }

// bound says by how much the memory of ringd may have grown.
func (c *held) bound(before, most int64, what string) {
	grown := c.memory() - before
	c.see("memory %s: %d MiB more, of %d", what, grown/mebibyte, most/mebibyte)
	if c.side == "ringd" && grown > most {
		c.wrongf("memory is not bounded %s", what)
	}
}

func watchMany(c *held, scale scale) {
	readers := c.audience(scale)
	defer closeAll(readers)
	before := c.memory()
	first := c.revision()
	last := first + int64(scale.puts)
	var group sync.WaitGroup
	group.Go(func() { c.putMany(scale.puts, []byte("value"), watched) })
	c.hearAll(readers, last)
	group.Wait()
	// The batches that wait, and what each connection has unsent: its output, its streams, and
	// what of a send is under way.
	c.bound(before, slack+int64(scale.connections)*4*mebibyte, "with all watchers told")
}

func watchLate(c *held, scale scale) {
	first := c.revision() + 1
	c.putMany(scale.revisions, []byte("value"), watched)
	readers := c.audience(scale)
	defer closeAll(readers)
	before := c.memory()
	last := c.revision() + int64(scale.puts)
	var group sync.WaitGroup
	group.Go(func() { c.putMany(scale.puts, []byte("value"), watched) })
	// One from the beginning, and others from places between.
	var late []*reader
	for number := range int64(4) {
		late = append(late, c.watchers(1, first+number*int64(scale.revisions)/4, windowMax/2))
	}
	defer closeAll(late)
	c.hearAll(append(late, readers...), last)
	group.Wait()
	c.bound(before, slack+int64(scale.connections+4)*4*mebibyte, "with who came late")
}

func watchStopped(c *held, scale scale) {
	const puts, valueBytes = 2000, 32 << 10
	first := c.revision() + 1
	readers := c.audience(scale.of(scale.connections))
	defer closeAll(readers)
	var deaf []*reader
	for number := range scale.connections {
		// Half of them let nothing through their windows, the others nothing through the socket.
		window := uint32(windowDefault)
		if number%2 == 0 {
			window = windowMax / 2
		}
		deaf = append(deaf, c.watchers(1, first, window))
	}
	defer closeAll(deaf)
	before := c.memory()
	var group sync.WaitGroup
	last := first - 1 + puts
	group.Go(func() { c.putMany(puts, make([]byte, valueBytes), watched) })
	c.hearAll(readers, last)
	group.Wait()
	volume := int64(puts * valueBytes)
	// What was written, in pages that wait for a checkpoint and in the log's buffers, and two
	// megabytes for each of who does not read; all of it unsent would be ten times the volume.
	most := 2*volume + int64(len(readers)+len(deaf))*4*mebibyte + slack
	c.bound(before, most, "with who stopped reading")
	c.hearAll(deaf, last)
}

// of is the same with fewer watchers.
func (s scale) of(watchers int) scale {
	s.watchers = min(watchers, s.watchers)
	return s
}

// large fills the store with values worth some tens of megabytes.
func (c *held) large() {
	value := bytes.Repeat([]byte("v"), largeBytes)
	c.putMany(largeCount, value, func(number int) string { return fmt.Sprintf("large/%05d", number) })
}

func largeRange() []byte {
	return encoded(&pb.RangeRequest{Key: []byte("large/"), RangeEnd: []byte("large0")})
}

// unread begins calls on several connections, reads nothing, and writes beside them.
func (c *held) unread(path string, request []byte, connections, calls int, most int64) []*conn {
	before := c.memory()
	var deaf []*conn
	for range connections {
		k := c.connect(windowDefault)
		for range calls {
			id, err := k.begin(path, request)
			c.must(err, "%s", path)
			k.streams[id].discard = true
		}
		deaf = append(deaf, k)
	}
	c.putMany(500, []byte("value"), watched)
	c.bound(before, most, "with nobody reading "+path)
	return deaf
}

// readOut reads what was not read, all of it, and says how large the answers were. The connections
// are read side by side: a server may let some streams wait for others.
func (c *held) readOut(deaf []*conn) (sizes []int) {
	var mutex sync.Mutex
	var group sync.WaitGroup
	for _, k := range deaf {
		group.Go(func() {
			defer k.close()
			for id, stream := range k.streams {
				err := k.until(func() bool {
					k.credit()
					return stream.over
				})
				outcome := stream.outcome()
				if err != nil || !strings.HasSuffix(outcome, "grpc-status=0") {
					c.wrongf("stream %d after %d bytes: %s, %v", id, stream.received, outcome, err)
					return
				}
				mutex.Lock()
				sizes = append(sizes, stream.received)
				mutex.Unlock()
			}
		})
	}
	group.Wait()
	return sizes
}

func rangesUnread(c *held, _ scale) {
	const connections, calls = 10, 4
	c.large()
	// A core holds so much for those who do not read, and one answer beyond it.
	most := int64(runtime.NumCPU())*(256+64)*mebibyte + slack
	deaf := c.unread(rangePath, largeRange(), connections, calls, most)
	sizes := c.readOut(deaf)
	for _, size := range sizes {
		if size != sizes[0] || size < largeBytes*largeCount {
			c.wrongf("an answer of %d bytes beside one of %d", size, sizes[0])
		}
	}
}

func streamsUnread(c *held, _ scale) {
	const connections, calls = 5, 4
	c.large()
	// Each connection's output, and a message or two of each stream.
	most := int64(connections)*(1+2*calls)*mebibyte + slack
	for _, each := range []struct {
		path    string
		request []byte
	}{{streamPath, largeRange()}, {snapshotPath, nil}} {
		for _, size := range c.readOut(c.unread(each.path, each.request, connections, calls, most)) {
			if size < largeBytes*largeCount {
				c.wrongf("%s: an answer of %d bytes", each.path, size)
			}
		}
	}
}
