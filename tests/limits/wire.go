package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// windowMax is as far as a window of ours may be opened.
const windowMax = 1<<31 - 1

// windowDefault is every window's beginning (RFC 9113, 6.9.2).
const windowDefault = 65_535

// conn is one HTTP/2 connection, as a client that does what it is told and nothing by itself: it
// acknowledges settings, and pings unless it plays dead.
type conn struct {
	socket  net.Conn
	framer  *http2.Framer
	writer  *bufio.Writer
	encoded bytes.Buffer
	encoder *hpack.Encoder

	// What the server has told.
	settings map[http2.SettingID]uint32
	streams  map[uint32]*stream
	goAway   string
	ended    error
	pings    int
	acks     int

	playsDead  bool
	sendWindow int64
	nextID     uint32
}

// stream is what came on one.
type stream struct {
	fields   []string
	trailers []string
	hasHead  bool
	body     []byte
	received int
	credited int
	over     bool
	reset    string
	window   int64
	// What comes is only counted.
	discard bool
}

// connect opens a connection whose streams' windows for answers are of this size.
func (c *held) connect(window uint32) *conn {
	socket, err := net.DialTimeout("tcp", c.server.address, patience)
	c.must(err, "dial")
	k := &conn{
		socket: socket, writer: bufio.NewWriterSize(socket, 64<<10),
		settings: map[http2.SettingID]uint32{}, streams: map[uint32]*stream{},
		sendWindow: windowDefault, nextID: 1,
	}
	k.encoder = hpack.NewEncoder(&k.encoded)
	k.framer = http2.NewFramer(k.writer, bufio.NewReaderSize(socket, 256<<10))
	k.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	k.framer.SetReuseFrames()
	k.writer.WriteString(http2.ClientPreface)
	k.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
	if window > windowDefault {
		k.framer.WriteWindowUpdate(0, window-windowDefault)
	}
	c.must(k.writer.Flush(), "greet")
	c.must(k.until(func() bool { return len(k.settings) > 0 }), "the server's settings")
	return k
}

func (k *conn) close() { k.socket.Close() }

// until takes frames in until something holds. The end of the connection is no error of its own.
func (k *conn) until(holds func() bool) error {
	for frames := 0; !holds(); frames++ {
		// Patience is with a server that says nothing, however long it has much to say.
		if frames%64 == 0 {
			k.socket.SetReadDeadline(time.Now().Add(patience))
		}
		if k.ended != nil {
			return fmt.Errorf("the connection ended: %w; %s", k.ended, k.goAway)
		}
		if err := k.writer.Flush(); err != nil && k.ended == nil {
			// What the server said before it closed is still to be read.
			k.writer = bufio.NewWriter(io.Discard)
		}
		frame, err := k.framer.ReadFrame()
		var fault http2.StreamError
		switch {
		case errors.As(err, &fault):
			return fmt.Errorf("a malformed frame: %w", err)
		case err != nil:
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				return errors.New("the server says nothing")
			}
			k.ended = err
		default:
			k.handle(frame)
		}
	}
	return k.writer.Flush()
}

func (k *conn) handle(frame http2.Frame) {
	switch frame := frame.(type) {
	case *http2.SettingsFrame:
		if frame.IsAck() {
			return
		}
		before := k.initialWindow()
		// Some setting always stands for the frame.
		k.settings[0] = 1
		frame.ForeachSetting(func(setting http2.Setting) error {
			k.settings[setting.ID] = setting.Val
			return nil
		})
		for _, stream := range k.streams {
			stream.window += k.initialWindow() - before
		}
		k.framer.WriteSettingsAck()
	case *http2.PingFrame:
		if frame.IsAck() {
			k.acks++
			return
		}
		k.pings++
		if !k.playsDead {
			k.framer.WritePing(true, frame.Data)
		}
	case *http2.WindowUpdateFrame:
		if frame.StreamID == 0 {
			k.sendWindow += int64(frame.Increment)
		} else if stream := k.streams[frame.StreamID]; stream != nil {
			stream.window += int64(frame.Increment)
		}
	case *http2.GoAwayFrame:
		k.goAway = fmt.Sprintf("goaway %v %q", frame.ErrCode, frame.DebugData())
	case *http2.RSTStreamFrame:
		if stream := k.streams[frame.StreamID]; stream != nil && !stream.over {
			stream.over, stream.reset = true, frame.ErrCode.String()
		}
	case *http2.MetaHeadersFrame:
		k.handleHeaders(frame)
	case *http2.DataFrame:
		stream := k.streams[frame.StreamID]
		if stream == nil {
			return
		}
		stream.received += len(frame.Data())
		if !stream.discard {
			stream.body = append(stream.body, frame.Data()...)
		}
		stream.over = stream.over || frame.StreamEnded()
	}
}

func (k *conn) handleHeaders(frame *http2.MetaHeadersFrame) {
	stream := k.streams[frame.StreamID]
	if stream == nil {
		return
	}
	var fields []string
	for _, field := range frame.Fields {
		// What an answer is made of is always the same, and a message of a good one is empty.
		if field.Name != "content-type" && field.Value != "" {
			fields = append(fields, field.Name+"="+field.Value)
		}
	}
	if stream.hasHead {
		stream.trailers = fields
	} else {
		stream.hasHead, stream.fields = true, fields
	}
	stream.over = stream.over || frame.StreamEnded()
}

func (k *conn) initialWindow() int64 {
	if window, told := k.settings[http2.SettingInitialWindowSize]; told {
		return int64(window)
	}
	return windowDefault
}

// open begins a call: its headers, and nothing else. Further fields come in pairs.
func (k *conn) open(path string, fields ...string) uint32 {
	id := k.nextID
	k.nextID += 2
	k.streams[id] = &stream{window: k.initialWindow()}
	k.encoded.Reset()
	for _, field := range []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"},
		{Name: ":path", Value: path}, {Name: ":authority", Value: "localhost"},
		{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	} {
		k.encoder.WriteField(field)
	}
	for at := 0; at < len(fields); at += 2 {
		k.encoder.WriteField(hpack.HeaderField{Name: fields[at], Value: fields[at+1]})
	}
	block, first := k.encoded.Bytes(), true
	const frameMax = 16_384
	for first || len(block) > 0 {
		piece := block[:min(len(block), frameMax)]
		block = block[len(piece):]
		if first {
			k.framer.WriteHeaders(http2.HeadersFrameParam{
				StreamID: id, BlockFragment: piece, EndHeaders: len(block) == 0,
			})
		} else {
			k.framer.WriteContinuation(id, len(block) == 0, piece)
		}
		first = false
	}
	return id
}

// send sends a message on a stream, as the server's windows let it. A stream that ends meanwhile
// takes no more.
func (k *conn) send(id uint32, payload []byte, last bool) error {
	body := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(payload)))
	body = append(body, payload...)
	stream := k.streams[id]
	for len(body) > 0 {
		room := min(k.sendWindow, stream.window, 16_384, int64(len(body)))
		if room <= 0 {
			moved := func() bool {
				return min(k.sendWindow, stream.window) > 0 || stream.over
			}
			if err := k.until(moved); err != nil {
				return err
			}
			if stream.over {
				return nil
			}
			continue
		}
		piece := body[:room]
		body = body[room:]
		k.sendWindow -= room
		stream.window -= room
		if err := k.framer.WriteData(id, last && len(body) == 0, piece); err != nil {
			return err
		}
	}
	return k.writer.Flush()
}

// begin makes a call with one message, whole.
func (k *conn) begin(path string, payload []byte, fields ...string) (uint32, error) {
	id := k.open(path, fields...)
	return id, k.send(id, payload, true)
}

// finish waits for the end of a call and says how it came.
func (k *conn) finish(id uint32) string {
	stream := k.streams[id]
	err := k.until(func() bool { return stream.over })
	if err != nil && !stream.over {
		return err.Error()
	}
	return stream.outcome()
}

// outcome says how a call has ended, without how many bytes came.
func (s *stream) outcome() string {
	if s.reset != "" && s.reset != "NO_ERROR" {
		// Whether headers came before depends on when each server sends those of a stream.
		return "reset " + s.reset
	}
	return strings.Join(append(append([]string{}, s.fields...), s.trailers...), " ")
}

// call makes a call and says how it ended.
func (k *conn) call(path string, payload []byte, fields ...string) string {
	id, err := k.begin(path, payload, fields...)
	if err != nil && !k.streams[id].over {
		return "send: " + err.Error() + " " + k.goAway
	}
	outcome := k.finish(id)
	delete(k.streams, id)
	return outcome
}

// ask makes a call that has to succeed and reads its answer.
func (c *held) ask(k *conn, path string, request, answer proto.Message) {
	id, err := k.begin(path, encoded(request))
	c.must(err, "%s", path)
	outcome := k.finish(id)
	if !strings.HasSuffix(outcome, "grpc-status=0") {
		c.stopf("%s: %s", path, outcome)
	}
	messages, _ := split(k.streams[id].body)
	if len(messages) != 1 {
		c.stopf("%s: %d messages", path, len(messages))
	}
	delete(k.streams, id)
	c.must(proto.Unmarshal(messages[0], answer), "%s: the answer", path)
}

// split takes a body apart into messages, and what is no whole one.
func split(body []byte) (messages [][]byte, rest []byte) {
	for len(body) >= 5 {
		size := int(binary.BigEndian.Uint32(body[1:5]))
		if len(body) < 5+size {
			break
		}
		messages = append(messages, body[5:5+size])
		body = body[5+size:]
	}
	return messages, body
}

// creditBytes are given back together, before the smallest window that a case has is used up.
const creditBytes = 16 << 10

// credit gives back what has been received, on the streams and on the connection.
func (k *conn) credit() {
	for id, stream := range k.streams {
		if more := stream.received - stream.credited; more >= creditBytes {
			stream.credited = stream.received
			k.framer.WriteWindowUpdate(0, uint32(more))
			k.framer.WriteWindowUpdate(id, uint32(more))
		}
	}
}

func encoded(request proto.Message) []byte {
	bytes, err := proto.Marshal(request)
	if err != nil {
		panic(err)
	}
	return bytes
}

// filled is a message with an unknown field that brings it to a size.
func filled(payload []byte, size int) []byte {
	for filler := size - len(payload); filler >= 0; filler-- {
		whole := protowire.AppendTag(append([]byte{}, payload...), 99, protowire.BytesType)
		whole = protowire.AppendVarint(whole, uint64(filler))
		if len(whole)+filler == size {
			return append(whole, make([]byte, filler)...)
		}
	}
	panic("too small to be filled")
}

const (
	rangePath    = "/etcdserverpb.KV/Range"
	putPath      = "/etcdserverpb.KV/Put"
	deletePath   = "/etcdserverpb.KV/DeleteRange"
	txnPath      = "/etcdserverpb.KV/Txn"
	compactPath  = "/etcdserverpb.KV/Compact"
	watchPath    = "/etcdserverpb.Watch/Watch"
	grantPath    = "/etcdserverpb.Lease/LeaseGrant"
	alivePath    = "/etcdserverpb.Lease/LeaseKeepAlive"
	streamPath   = "/etcdserverpb.KV/RangeStream"
	snapshotPath = "/etcdserverpb.Maintenance/Snapshot"
	lockPath     = "/v3lockpb.Lock/Lock"
	campaignPath = "/v3electionpb.Election/Campaign"
	observePath  = "/v3electionpb.Election/Observe"
)

func put(key string, value []byte) *pb.PutRequest {
	return &pb.PutRequest{Key: []byte(key), Value: value}
}
