package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// loadConns is how many connections the load has, each with one request at a time.
const loadConns = 16

// answerSize is the size of the backend's answers.
const answerSize = 128

// startBackend starts what all routes forward to.
func startBackend(ctx context.Context) (url string, stop func(), err error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	answer := []byte(strings.Repeat("a", answerSize))
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(answer)
	})}
	go func() { _ = srv.Serve(l) }()
	return "http://" + l.Addr().String(), func() { _ = srv.Close() }, nil
}

// loadRound is what a round of load has found.
type loadRound struct {
	cpu      time.Duration // of the gateway, per request
	p50, p99 time.Duration
	rate     float64
}

// load sends requests, of which request makes the text of the i-th, from loadConns
// connections.
func (p *process) load(ctx context.Context, requests int, request func(i int) string) (loadRound, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		wg    sync.WaitGroup
		next  atomic.Int64
		times = make([][]time.Duration, loadConns)
	)
	before, err := p.cpuTime()
	if err != nil {
		return loadRound{}, err
	}
	began := time.Now()
	for c := range loadConns {
		wg.Go(func() {
			var err error
			if times[c], err = p.client(ctx, int64(requests), &next, request); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	if err := context.Cause(ctx); err != nil {
		return loadRound{}, err
	}
	after, err := p.cpuTime()
	if err != nil {
		return loadRound{}, err
	}
	all := slices.Concat(times...)
	slices.Sort(all)
	return loadRound{
		cpu: (after - before) / time.Duration(requests), p50: quantile(all, .5), p99: quantile(all, .99),
		rate: float64(requests) / took.Seconds(),
	}, nil
}

// client is one connection's part. It reads no more of an answer than it must, so that
// the load costs less than what it measures.
func (p *process) client(ctx context.Context, requests int64, next *atomic.Int64, request func(i int) string) ([]time.Duration, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	in := bufio.NewReader(conn)
	var times []time.Duration
	for {
		i := next.Add(1) - 1
		if i >= requests {
			return times, nil
		}
		began := time.Now()
		if _, err := io.WriteString(conn, request(int(i))); err != nil {
			return nil, err
		}
		if err := readAnswer(in); err != nil {
			return nil, err
		}
		times = append(times, time.Since(began))
	}
}

// readAnswer reads an answer with status 200 and a length.
func readAnswer(in *bufio.Reader) error {
	status, err := in.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(status), "HTTP/1.1 200") {
		return fmt.Errorf("an answer is %q", status)
	}
	length := -1
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		name, value, isField := strings.Cut(strings.TrimSpace(string(line)), ":")
		if !isField {
			break
		}
		if strings.EqualFold(name, "Content-Length") {
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return fmt.Errorf("an answer has no length")
	}
	_, err = in.Discard(length)
	return err
}

// text writes a request.
func text(host, path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nX-Env: beta\r\nUser-Agent: bench\r\n\r\n"
}
