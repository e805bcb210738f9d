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
)

// http1 sends one request after the other on a connection.
type http1 struct {
	conn  net.Conn
	r     *bufio.Reader
	want  int64
	next  int // route
	count int // of routes

	// What is before and after the route's number in a request.
	before, after []byte
}

func newHTTP1(conn net.Conn, j Job, first int) *http1 {
	const mark = "\x00"
	var text strings.Builder
	fmt.Fprintf(&text, "%s /r/%s/%s HTTP/1.1\r\nHost: %s\r\n", j.Method, mark, j.Answer, ServerName)
	for _, f := range fields {
		fmt.Fprintf(&text, "%s: %s\r\n", f[0], f[1])
	}
	if j.Body > 0 {
		fmt.Fprintf(&text, "Content-Type: application/json\r\nContent-Length: %d\r\n", j.Body)
	}
	text.WriteString("\r\n")
	if j.Body > 0 {
		text.Write(jsonOf(j.Body))
	}
	before, after, _ := strings.Cut(text.String(), mark)
	return &http1{
		conn: conn, r: bufio.NewReaderSize(conn, 64<<10), want: int64(answers[j.Answer]),
		next: first, count: max(j.Routes, 1), before: []byte(before), after: []byte(after),
	}
}

func (c *http1) run(over *atomic.Bool) ([]time.Duration, error) {
	var took []time.Duration
	var request []byte
	for first := true; first || !over.Load(); first = false {
		request = c.appendRequest(request[:0])
		began := time.Now()
		if _, err := c.conn.Write(request); err != nil {
			return nil, fmt.Errorf("sending a request: %w", err)
		}
		if err := c.read(); err != nil {
			return nil, fmt.Errorf("reading an answer: %w", err)
		}
		took = append(took, time.Since(began))
	}
	return took, nil
}

// appendRequest appends the next request.
func (c *http1) appendRequest(dst []byte) []byte {
	dst = append(dst, c.before...)
	dst = strconv.AppendInt(dst, int64(c.next), 10)
	dst = append(dst, c.after...)
	if c.next++; c.next >= c.count {
		c.next = 0
	}
	return dst
}

var statusOK = []byte("HTTP/1.1 200")

// read reads an answer and checks status and size.
func (c *http1) read() error {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(line, statusOK) {
		return fmt.Errorf("the answer is %q", line)
	}
	length, err := readHead(c.r)
	if err != nil {
		return err
	}
	size, err := readBody(c.r, length)
	if err != nil {
		return err
	}
	if size != c.want {
		return fmt.Errorf("the answer has %d bytes instead of %d", size, c.want)
	}
	return nil
}

// parseHead returns how many bytes an answer's status and fields have, 0 if they are not
// all there, and the length of its body.
func parseHead(text []byte) (head int, length int64, err error) {
	end := bytes.Index(text, []byte("\r\n\r\n"))
	if end < 0 {
		return 0, 0, nil
	}
	line, fields, _ := bytes.Cut(text[:end+2], []byte("\r\n"))
	if !bytes.HasPrefix(line, statusOK) {
		return 0, 0, fmt.Errorf("the answer is %q", line)
	}
	for len(fields) > 0 {
		line, fields, _ = bytes.Cut(fields, []byte("\r\n"))
		if err := readField(line, &length); err != nil {
			return 0, 0, err
		}
	}
	if length == chunked {
		return 0, 0, errors.New("the answer has no length")
	}
	return end + 4, length, nil
}
