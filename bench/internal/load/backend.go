package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// The backend answers by the last part of the path. It is no more of an HTTP server
// than proxies need: what it takes is taken from the load's processor.
var answers = map[string]int{"128": 128, "10k": 10 << 10, "1m": 1 << 20}

// ServeBackend answers on all connections that come, until the listener is closed.
func ServeBackend(l net.Listener) error {
	texts := make(map[string][]byte)
	for name, size := range answers {
		head := "HTTP/1.1 200 OK\r\nServer: backend\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nContent-Type: application/json\r\n" +
			"Cache-Control: no-store\r\nContent-Length: " + strconv.Itoa(size) + "\r\n\r\n"
		texts[name] = append([]byte(head), jsonOf(size)...)
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return fmt.Errorf("accepting connections: %w", err)
		}
		go func() {
			defer conn.Close()
			// A proxy that goes away is no fault, and one that sends nonsense learns
			// so by the end of its connection: the load then has no answer.
			_ = answer(conn, texts)
		}()
	}
}

// jsonOf returns a JSON document of so many bytes, at least 8.
func jsonOf(size int) []byte {
	return fmt.Appendf(nil, `{"a":"%s"}`, strings.Repeat("x", size-8))
}

func answer(conn net.Conn, texts map[string][]byte) error {
	r := bufio.NewReaderSize(conn, 16<<10)
	for {
		name, err := readRequest(r)
		if err != nil {
			return err
		}
		text, ok := texts[name]
		if !ok {
			text = []byte("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
		}
		if _, err := conn.Write(text); err != nil {
			return err
		}
	}
}

// readRequest reads one request to its end and returns the last part of its path.
func readRequest(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	_, rest, _ := bytes.Cut(line, []byte(" "))
	path, _, ok := bytes.Cut(rest, []byte(" "))
	if !ok {
		return "", errors.New("no request line")
	}
	name := string(path[bytes.LastIndexByte(path, '/')+1:])
	length, err := readHead(r)
	if err != nil {
		return "", err
	}
	if _, err := readBody(r, length); err != nil {
		return "", err
	}
	return name, nil
}

// chunked is the length of a body that does not tell it. A message without either
// field has the length 0.
const chunked = -1

// readHead reads header fields to the empty line and returns how long the body is.
func readHead(r *bufio.Reader) (length int64, err error) {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			return length, nil
		}
		if err := readField(line, &length); err != nil {
			return 0, err
		}
	}
}

// readField sets length by a field that tells it.
func readField(line []byte, length *int64) (err error) {
	name, value, _ := bytes.Cut(line, []byte(":"))
	switch {
	case len(name) == len("Content-Length") && bytes.EqualFold(name, []byte("Content-Length")):
		if *length, err = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64); err != nil || *length < 0 {
			return fmt.Errorf("a body of the length %q", value)
		}
	case len(name) == len("Transfer-Encoding") && bytes.EqualFold(name, []byte("Transfer-Encoding")):
		*length = chunked
	}
	return nil
}

// readBody reads a body and returns how many bytes it has.
func readBody(r *bufio.Reader, length int64) (int64, error) {
	if length != chunked {
		n, err := r.Discard(int(length))
		return int64(n), err
	}
	sum := int64(0)
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return sum, err
		}
		size, err := strconv.ParseInt(string(bytes.TrimRight(line, "\r\n")), 16, 64)
		if err != nil || size < 0 {
			return sum, fmt.Errorf("a chunk of the size %q", line)
		}
		if size == 0 {
			_, err := readHead(r) // trailers
			return sum, err
		}
		sum += size
		if _, err := r.Discard(int(size)); err != nil {
			return sum, err
		}
		if end, err := r.ReadSlice('\n'); err != nil {
			return sum, err
		} else if string(end) != "\r\n" {
			return sum, fmt.Errorf("a chunk ends with %q: %w", end, io.ErrUnexpectedEOF)
		}
	}
}

// ServerName is the host that clients ask for.
const ServerName = "localhost"
