package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// frame is what a client says after an upgrade, and how many frames it waits for in return.
type frame struct {
	bytes   []byte
	answers int
}

const (
	final        = 0x80
	continuation = 0
	text         = 1
	binaryData   = 2
	closing      = 8
	ping         = 9
	pong         = 10
)

// said makes a frame as clients have to: with a mask.
func said(first byte, payload string, answers int) frame {
	out := []byte{first, 0x80}
	switch {
	case len(payload) < 126:
		out[1] |= byte(len(payload))
	case len(payload) < 1<<16:
		out[1] |= 126
		out = binary.BigEndian.AppendUint16(out, uint16(len(payload)))
	default:
		out[1] |= 127
		out = binary.BigEndian.AppendUint64(out, uint64(len(payload)))
	}
	mask := "mask"
	out = append(out, mask...)
	for at := range payload {
		out = append(out, payload[at]^mask[at%4])
	}
	return frame{out, answers}
}

// holdFrames says frame after frame and tells what comes back; at last, whether the server closes.
func (e exchange) holdFrames(connection net.Conn, reader *bufio.Reader) string {
	var out strings.Builder
	// Not read as an answer of HTTP: the order and the case of its fields count here.
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			fmt.Fprintf(&out, "head: %v\n", err)
			return out.String()
		}
		out.WriteString(line)
		if line == "\r\n" {
			break
		}
	}
	for _, frame := range e.frames {
		if _, err := connection.Write(frame.bytes); err != nil {
			return out.String() + "write: " + err.Error()
		}
		for range frame.answers {
			if err := e.readFrame(reader, &out); err != nil {
				return out.String() + "read: " + errorText(err)
			}
		}
	}
	if e.lines > 0 {
		return out.String()
	}
	for {
		if err := e.readFrame(reader, &out); err != nil {
			return out.String() + "end: " + errorText(err)
		}
	}
}

// errorText tells an end from anything else; whether it is a reset depends on what was left unread.
func errorText(err error) string {
	var failed *net.OpError
	if errors.As(err, &failed) && !failed.Timeout() {
		return io.EOF.Error()
	}
	return err.Error()
}

func (e exchange) readFrame(reader *bufio.Reader, out *strings.Builder) error {
	first, err := reader.ReadByte()
	if err != nil {
		return err
	}
	short, err := reader.ReadByte()
	if err != nil {
		return err
	}
	size := uint64(short)
	switch short {
	case 126:
		var long uint16
		err = binary.Read(reader, binary.BigEndian, &long)
		size = uint64(long)
	case 127:
		err = binary.Read(reader, binary.BigEndian, &size)
	}
	if err != nil {
		return err
	}
	payload := make([]byte, size)
	if _, err := io.ReadFull(reader, payload); err != nil {
		return err
	}
	shown := fmt.Sprintf("%q", payload)
	if first&0x0f == text {
		shown = string(e.masked(compacted(payload)))
	}
	fmt.Fprintf(out, "frame %#x: %s\n", first, shown)
	return nil
}

// sockets are conversations of browsers.
func sockets() []exchange {
	head := func(path string, fields ...string) string {
		return request(http.MethodGet, path, "", append([]string{"Connection: Upgrade",
			"Upgrade: websocket", "Sec-WebSocket-Version: 13",
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, fields...)...)
	}
	// stays is a conversation that goes on when the last answer has come, ends one that does not.
	stays := func(name, head string, frames ...frame) exchange {
		return exchange{name: "websocket/" + name, send: head, frames: frames, lines: 1}
	}
	ends := func(name, head string, frames ...frame) exchange {
		if frames == nil {
			frames = []frame{}
		}
		return exchange{name: "websocket/" + name, send: head, frames: frames}
	}
	watch := `{"create_request":{"key":"` + b64("none") + `"}}`
	plain := head("/v3/watch")
	unmasked := frame{bytes: append([]byte{final | text, byte(len(watch))}, watch...)}
	refused := func(name, change, to string) exchange {
		return one("websocket/"+name, strings.Replace(plain, change, to, 1))
	}
	return []exchange{
		stays("watch", plain, said(final|text, watch, 1)),
		stays("watch of the past", plain, said(final|text,
			`{"create_request":{"key":"YQ==","start_revision":"3"}}`, 2)),
		stays("bytes", plain, said(final|binaryData, watch, 1)),
		stays("fragments", plain, said(text, watch[:10], 0), said(final|ping, "hi", 1),
			said(final|continuation, watch[10:], 1)),
		stays("a value in two messages", plain, said(final|text, watch[:18], 0),
			said(final|text, watch[18:], 1)),
		stays("two values in a message", plain, said(final|text, watch+watch, 2)),
		stays("pong", plain, said(final|pong, "hi", 0), said(final|text, watch, 1)),
		stays("empty message", plain, said(final|text, "", 0), said(final|text, watch, 1)),
		stays("bearer", head("/v3/watch", "Sec-WebSocket-Protocol: Bearer, token"),
			said(final|text, watch, 1)),
		stays("other protocol", head("/v3/watch", "Sec-WebSocket-Protocol: chat"),
			said(final|text, watch, 1)),
		stays("extension", head("/v3/watch", "Sec-WebSocket-Extensions: permessage-deflate"),
			said(final|text, watch, 1)),
		stays("origin", head("/v3/watch", "Origin: http://a.example"), said(final|text, watch, 1)),
		stays("other method by a parameter", head("/v3/watch?method=GET"), said(final|text, watch, 1)),
		stays("fields that do not count", head("/v3/watch", "Grpc-Timeout: soon"),
			said(final|text, watch, 1)),
		stays("old path", head("/v3beta/watch"), said(final|text, watch, 1)),
		stays("keep-alive", head("/v3/lease/keepalive"), said(final|text, `{"ID":"99"}`, 1),
			said(final|text, `{"ID":"98"}`, 1)),
		stays("mistake in a stream", plain, said(final|text, watch, 1), said(final|text, `{x}`, 0)),
		ends("mistake", head("/v3/kv/range"), said(final|text, `{x}`, 0)),
		ends("unknown path", head("/v3/nothing")),
		ends("farewell", plain, said(final|text, watch, 1), said(final|closing, "\x03\xe8bye", 0)),
		ends("farewell without a word", plain, said(final|closing, "", 0)),
		ends("farewell of one byte", plain, said(final|closing, "x", 0)),
		ends("farewell of an application", plain, said(final|closing, "\x0f\xa0", 0)),
		ends("farewell that means nothing", plain, said(final|closing, "\x03\xed", 0)),
		ends("farewell that is no text", plain, said(final|closing, "\x03\xe8\xff", 0)),
		ends("no mask", plain, unmasked),
		ends("reserved bit", plain, said(final|0x40|text, watch, 0)),
		ends("unknown frame", plain, said(final|3, watch, 0)),
		ends("unknown control frame", plain, said(final|11, "", 0)),
		ends("continuation of nothing", plain, said(final|continuation, watch, 0)),
		ends("message in a message", plain, said(text, "{", 0), said(final|text, watch, 0)),
		ends("long ping", plain, said(final|ping, strings.Repeat("x", 126), 0)),
		ends("ping in fragments", plain, said(ping, "", 0)),
		ends("too early", plain+string(said(final|text, watch, 0).bytes)),
		refused("POST", "GET", "POST"),
		refused("other version", "13", "12"),
		refused("no key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
		refused("short key", "dGhlIHNhbXBsZSBub25jZQ==", "YWJj"),
		refused("unpadded key", "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ"),
		refused("other upgrade", "websocket", "h2c"),
		one("websocket/health", strings.Replace(plain, "/v3/watch", "/health", 1)),
	}
}
