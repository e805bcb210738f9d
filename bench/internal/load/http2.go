package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// connWindow is as much as a server may send before it is told to go on.
const connWindow = 1 << 30

// http2Client keeps some streams of a connection busy from one goroutine. It is far
// lighter than net/http's client, whose cost would be that of a proxy.
type http2Client struct {
	r      *bufio.Reader
	w      *bufio.Writer
	framer *http2.Framer
	job    Job
	want   int
	next   int // route

	text     bytes.Buffer // of encoder
	encoder  *hpack.Encoder
	decoder  *hpack.Decoder
	status   string // of the answer that is decoded
	streams  map[uint32]*stream
	id       uint32
	received int // since the window of the connection was filled up
}

// stream is a request that is not answered yet.
type stream struct {
	began time.Time
	got   int
	ok    bool // the status was 200
}

func newHTTP2(conn net.Conn, j Job, first int) (*http2Client, error) {
	c := &http2Client{
		r: bufio.NewReaderSize(conn, 64<<10), w: bufio.NewWriterSize(conn, 16<<10),
		job: j, want: answers[j.Answer], next: first, streams: make(map[uint32]*stream), id: 1,
	}
	c.framer = http2.NewFramer(c.w, c.r)
	c.framer.SetReuseFrames()
	c.encoder = hpack.NewEncoder(&c.text)
	c.decoder = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == ":status" {
			c.status = f.Value
		}
	})
	if _, err := c.w.WriteString(http2.ClientPreface); err != nil {
		return nil, fmt.Errorf("beginning HTTP/2: %w", err)
	}
	err := errors.Join(
		c.framer.WriteSettings(
			http2.Setting{ID: http2.SettingEnablePush, Val: 0},
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: connWindow},
		),
		c.framer.WriteWindowUpdate(0, connWindow),
	)
	if err != nil {
		return nil, fmt.Errorf("beginning HTTP/2: %w", err)
	}
	return c, nil
}

func (c *http2Client) run(over *atomic.Bool) ([]time.Duration, error) {
	var took []time.Duration
	for range c.job.Streams {
		if err := c.send(); err != nil {
			return nil, fmt.Errorf("sending a request: %w", err)
		}
	}
	for len(c.streams) > 0 {
		// What is to be sent goes out together, when nothing more can be read without
		// waiting.
		if c.r.Buffered() == 0 {
			if err := c.w.Flush(); err != nil {
				return nil, fmt.Errorf("sending a request: %w", err)
			}
		}
		id, err := c.read()
		if err != nil {
			return nil, fmt.Errorf("reading an answer: %w", err)
		}
		if id == 0 {
			continue
		}
		s := c.streams[id]
		delete(c.streams, id)
		if !s.ok || s.got != c.want {
			return nil, fmt.Errorf("an answer has status %s and %d bytes instead of %d", c.status, s.got, c.want)
		}
		took = append(took, time.Since(s.began))
		if over.Load() {
			continue
		}
		if err := c.send(); err != nil {
			return nil, fmt.Errorf("sending a request: %w", err)
		}
	}
	return took, nil
}

// send starts a stream. Nothing is flushed.
func (c *http2Client) send() error {
	c.text.Reset()
	c.field(":method", c.job.Method)
	c.field(":scheme", "https")
	c.field(":authority", ServerName)
	c.field(":path", RoutePath(c.next, c.job.Answer))
	if c.next++; c.next >= max(c.job.Routes, 1) {
		c.next = 0
	}
	for _, f := range fields {
		c.field(strings.ToLower(f[0]), f[1])
	}
	if c.job.Body > 0 {
		c.field("content-type", "application/json")
		c.field("content-length", strconv.Itoa(c.job.Body))
	}
	err := c.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: c.id, BlockFragment: c.text.Bytes(), EndHeaders: true, EndStream: c.job.Body == 0,
	})
	if err == nil && c.job.Body > 0 {
		err = c.framer.WriteData(c.id, true, jsonOf(c.job.Body))
	}
	c.streams[c.id] = &stream{began: time.Now()}
	c.id += 2
	return err
}

func (c *http2Client) field(name, value string) {
	// Writing to a bytes.Buffer does not fail.
	_ = c.encoder.WriteField(hpack.HeaderField{Name: name, Value: value})
}

// read handles one frame and returns the stream that it ends, or 0.
func (c *http2Client) read() (ended uint32, err error) {
	frame, err := c.framer.ReadFrame()
	if err != nil {
		return 0, err
	}
	switch f := frame.(type) {
	case *http2.HeadersFrame:
		return c.headers(f)
	case *http2.DataFrame:
		return c.data(f)
	case *http2.SettingsFrame:
		if f.IsAck() {
			return 0, nil
		}
		if size, ok := f.Value(http2.SettingHeaderTableSize); ok {
			c.encoder.SetMaxDynamicTableSizeLimit(size)
		}
		return 0, c.framer.WriteSettingsAck()
	case *http2.PingFrame:
		if f.IsAck() {
			return 0, nil
		}
		return 0, c.framer.WritePing(true, f.Data)
	case *http2.GoAwayFrame:
		return 0, fmt.Errorf("the server goes away: %v", f.ErrCode)
	case *http2.RSTStreamFrame:
		if c.streams[f.StreamID] == nil {
			return 0, nil // answered before its body was read
		}
		return 0, fmt.Errorf("the server resets a stream: %v", f.ErrCode)
	default: // a window of ours is never full, nor are priorities of use
		return 0, nil
	}
}

func (c *http2Client) headers(f *http2.HeadersFrame) (ended uint32, err error) {
	s := c.streams[f.StreamID]
	if s == nil || !f.HeadersEnded() {
		return 0, fmt.Errorf("header fields of stream %d that are not expected, or go on", f.StreamID)
	}
	if _, err := c.decoder.Write(f.HeaderBlockFragment()); err != nil {
		return 0, fmt.Errorf("decoding fields: %w", err)
	}
	s.ok = s.ok || c.status == "200" // trailers have no status of their own
	if f.StreamEnded() {
		return f.StreamID, nil
	}
	return 0, nil
}

func (c *http2Client) data(f *http2.DataFrame) (ended uint32, err error) {
	s := c.streams[f.StreamID]
	if s == nil {
		return 0, fmt.Errorf("data of stream %d, which is not open", f.StreamID)
	}
	s.got += len(f.Data())
	if c.received += int(f.Length); c.received > connWindow/2 {
		if err := c.framer.WriteWindowUpdate(0, uint32(c.received)); err != nil {
			return 0, err
		}
		c.received = 0
	}
	if f.StreamEnded() {
		return f.StreamID, nil
	}
	return 0, nil
}
