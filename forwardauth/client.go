package forwardauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/isekai-gateway/isekai/internal/fields"
	"github.com/isekai-gateway/isekai/internal/tracing"
	"github.com/isekai-gateway/isekai/proxy"
)

// Bounds of the exchange with the service.
const (
	maxBody         = 1 << 20
	maxHeader       = 64 << 10
	maxDrain        = 64 << 10 // read of a positive answer's body, to keep its connection
	maxIdleConns    = 64
	idleConnTimeout = 90 * time.Second
)

// ErrUnavailable says that the service gave no usable answer.
var ErrUnavailable = errors.New("the authorization service gave no answer")

// Client asks one service. It is safe for concurrent use. Make one with New and
// end it with Close.
type Client struct {
	endpoint  *endpoint
	copied    []copied
	timeout   time.Duration
	transport *http.Transport
}

// New returns a client for valid settings. It connects only where the policy
// allows it; nil allows everything.
func New(c *Config, policy *proxy.Policy) (*Client, error) {
	for _, p := range c.Check(policy) {
		return nil, fmt.Errorf("%s: %w", p.Field, p.Err)
	}
	e, err := parseURL(c.URL)
	if err != nil {
		return nil, err
	}
	client := &Client{endpoint: e, timeout: time.Duration(c.Timeout)}
	if client.timeout == 0 {
		client.timeout = defaultTimeout
	}
	for _, text := range c.CopyHeaders {
		field, err := parseCopied(text)
		if err != nil {
			return nil, err
		}
		client.copied = append(client.copied, field)
	}
	client.transport = &http.Transport{
		// No proxy of the environment: it would connect out of the policy's sight.
		DialContext:            policy.Dialer(client.timeout).DialContext,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    maxIdleConns,
		IdleConnTimeout:        idleConnTimeout,
		MaxResponseHeaderBytes: maxHeader,
	}
	return client, nil
}

// Close closes the idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Answer is what the service said.
type Answer struct {
	Status int
	Header http.Header // without what ends with the connection
	Body   []byte      // empty if Allowed
}

// Allowed says whether the request may pass.
func (a *Answer) Allowed() bool { return a.Status >= 200 && a.Status <= 299 }

// refusal is an error after which a request must not pass, whatever is said
// about services that can't be reached.
type refusal struct{ error }

// Unwrap returns what is wrong.
func (r refusal) Unwrap() error { return r.error }

// Ask asks about r, whose sender is trusted to say who the client is or not.
// Errors match ErrUnavailable, and context.DeadlineExceeded if the service took
// too long.
func (c *Client) Ask(r *http.Request, trusted bool) (*Answer, error) {
	ctx, cancel := context.WithTimeout(r.Context(), c.timeout)
	defer cancel()
	u := c.endpoint.url
	resp, err := c.send((&http.Request{
		Method: http.MethodGet,
		URL:    &u,
		Host:   c.endpoint.target.Host,
		Header: question(r, trusted),
	}).WithContext(ctx))
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 {
		return nil, unavailable(ctx, fmt.Errorf("status %d was not asked for", resp.StatusCode))
	}
	fields.DropHopByHop(resp.Header)
	a := &Answer{Status: resp.StatusCode, Header: resp.Header}
	if a.Allowed() {
		// The answer is there; only the connection's fate depends on the rest.
		_, _ = io.CopyN(io.Discard, resp.Body, maxDrain)
		return a, nil
	}
	a.Body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err == nil && len(a.Body) > maxBody {
		err = fmt.Errorf("its body is longer than %d bytes", maxBody)
	}
	if err != nil {
		return nil, refusal{unavailable(ctx, fmt.Errorf("reading a refusal with status %d: %w", a.Status, err))}
	}
	return a, nil
}

// send does an exchange with the service, as a span of its own if the request is traced.
func (c *Client) send(r *http.Request) (*http.Response, error) {
	if tracing.Recorded(r.Context()) == nil {
		return c.transport.RoundTrip(r)
	}
	r, span, _ := tracing.Send(r, "forward_auth", 0, false)
	defer span.End()
	resp, err := c.transport.RoundTrip(r)
	if err != nil {
		tracing.Failed(span, tracing.Kind(err), err)
		return nil, err
	}
	tracing.Answered(span, resp.StatusCode)
	return resp, nil
}

// unavailable wraps an error of the exchange.
func unavailable(ctx context.Context, err error) error {
	failed, ok := errors.AsType[net.Error](err)
	if late := ok && failed.Timeout() || ctx.Err() != nil; late && !errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// copyTo puts the answer's fields on a request, in place of the client's own, which may
// also come behind the body. A nil answer has none.
func (c *Client) copyTo(r *http.Request, a *Answer) {
	forget(r.Header, c.copied)
	if r.Trailer != nil {
		names := make([]string, len(c.copied))
		for i, f := range c.copied {
			names[i] = f.to
		}
		fields.DropTrailers(r, names)
	}
	if a == nil {
		return
	}
	for _, f := range c.copied {
		if values := a.Header[f.from]; len(values) > 0 {
			r.Header[f.to] = append(r.Header[f.to], values...)
		}
	}
}
