// Package redis keeps the counters of rate limits in Redis or Valkey, where all
// replicas of a gateway share them. It is the Caddy module
// isekai.rate_limit.backends.redis, and no part of the gateway's own module: its
// client weighs 10 MB.
package redis

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/internal/worker"
	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/ratelimit/internal/slide"
)

const (
	// DefaultPrefix is what the names of counters begin with unless told otherwise.
	DefaultPrefix = "isekai:limit:"

	dialTimeout = 2 * time.Second
	// silence is how long a server may be silent before its connections are made anew.
	silence       = 2 * time.Second
	refundTimeout = 2 * time.Second
	firstPause    = 50 * time.Millisecond
	longestPause  = 5 * time.Second
	bufferSize    = 64 << 10
)

// Options sets up a Backend. Addresses and Log are required.
type Options struct {
	// Servers as host:port: one, some of a cluster, or the sentinels.
	Addresses []string

	// The name of the master that sentinels watch. Default: no sentinels.
	SentinelMaster string

	// Who to be for the sentinels.
	SentinelUsername, SentinelPassword string

	// Who to be.
	Username, Password string

	// The number of the database. A cluster has only 0.
	DB int

	// Nil: no TLS.
	TLS *tls.Config

	// What the names of counters begin with. Default: DefaultPrefix.
	Prefix string

	// Returns the logger to use now.
	Log func() *zap.Logger
}

// errNotConnected says that there has been no connection yet. The log has why.
var errNotConnected = errors.New("no connection to Redis yet")

// Backend keeps counters as hashes that expire. It is safe for concurrent use. Make
// one with Open and end it with Close.
//
// Counters of one scope and key have a hash tag in common, and so are in one slot of
// a cluster. A call with several scopes or keys is one step on a single server. On a
// cluster it is one step per scope and key; if a later one refuses, the earlier are
// taken back. In between, other calls may be refused that would have been admitted,
// and if the gateway or a server fails at that moment the charge stays. More than
// the limit is never admitted.
type Backend struct {
	opts      Options
	client    atomic.Pointer[rueidis.Client]
	attempted chan struct{} // closed after the first attempt to connect
	workers   *worker.Group
}

// Open returns a backend that connects in the background, again and again until it
// succeeds. From then on, the client keeps its connections itself.
func Open(opts Options) *Backend {
	if opts.Prefix == "" {
		opts.Prefix = DefaultPrefix
	}
	b := &Backend{opts: opts, attempted: make(chan struct{}), workers: worker.New(opts.Log)}
	b.workers.Go("redis connector", b.connect)
	return b
}

// Close ends all connections, and calls with them.
func (b *Backend) Close() error {
	b.workers.Stop()
	if client := b.client.Load(); client != nil {
		(*client).Close()
	}
	return nil
}

func (b *Backend) connect(ctx context.Context) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = firstPause, longestPause
	for attempt := 1; ; attempt++ {
		client, err := rueidis.NewClient(b.clientOptions(ctx))
		if err == nil {
			b.client.Store(&client)
		}
		if attempt == 1 {
			close(b.attempted)
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		if attempt == 1 {
			b.opts.Log().Warn("connecting to the rate limits' Redis; trying on", zap.Error(err))
		}
		select {
		case <-time.After(pause.NextBackOff()):
		case <-ctx.Done():
			return
		}
	}
}

func (b *Backend) clientOptions(life context.Context) rueidis.ClientOption {
	return rueidis.ClientOption{
		InitAddress: b.opts.Addresses,
		ShuffleInit: true,
		Username:    b.opts.Username,
		Password:    b.opts.Password,
		SelectDB:    b.opts.DB,
		TLSConfig:   b.opts.TLS,
		ClientName:  "isekai",
		Sentinel: rueidis.SentinelOption{
			MasterSet: b.opts.SentinelMaster,
			Username:  b.opts.SentinelUsername, Password: b.opts.SentinelPassword,
			TLSConfig: b.opts.TLS,
		},
		Dialer:           net.Dialer{Timeout: dialTimeout},
		ConnWriteTimeout: silence,
		DialCtxFn: func(ctx context.Context, address string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
			// Close ends attempts too.
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			defer context.AfterFunc(life, cancel)()
			if config != nil {
				return (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, "tcp", address)
			}
			return dialer.DialContext(ctx, "tcp", address)
		},
		DisableCache:        true,
		DisableRetry:        true, // a charge must not be made twice
		ReadBufferEachConn:  bufferSize,
		WriteBufferEachConn: bufferSize,
	}
}

// connected returns the client. It waits for the first attempt to connect only.
func (b *Backend) connected(ctx context.Context) (rueidis.Client, error) {
	select {
	case <-b.attempted:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if client := b.client.Load(); client != nil {
		return *client, nil
	}
	return nil, errNotConnected
}

// Take implements ratelimit.Backend by a script.
func (b *Backend) Take(ctx context.Context, dst []ratelimit.Decision, charges []ratelimit.Charge) ([]ratelimit.Decision, bool, error) {
	dst, counters := slide.Plan(dst, charges, true)
	if len(counters) == 0 {
		return dst, true, nil
	}
	client, err := b.connected(ctx)
	if err != nil {
		return dst, false, fmt.Errorf("charging rate limits: %w", err)
	}
	parts := split(client, counters)
	allowed := true
	for i := range parts {
		p := &parts[i]
		// Once one has refused, the others are only asked.
		if p.readings, err = b.run(ctx, client, p.counters, allowed); err != nil {
			b.refund(ctx, client, parts[:i])
			return dst, false, fmt.Errorf("charging rate limits: %w", err)
		}
		p.charged = allowed
		for _, r := range p.readings {
			allowed = allowed && r.Fits
		}
		p.charged = p.charged && allowed
	}
	if !allowed {
		b.refund(ctx, client, parts)
	}
	for _, p := range parts {
		for i, c := range p.counters {
			dst[c.Index] = c.Decide(p.readings[i], allowed)
		}
	}
	return dst, allowed, nil
}

// Peek implements ratelimit.Backend.
func (b *Backend) Peek(ctx context.Context, dst []ratelimit.Decision, charges []ratelimit.Charge) ([]ratelimit.Decision, error) {
	dst, counters := slide.Plan(dst, charges, false)
	if len(counters) == 0 {
		return dst, nil
	}
	client, err := b.connected(ctx)
	if err != nil {
		return dst, fmt.Errorf("reading rate limits: %w", err)
	}
	for _, p := range split(client, counters) {
		readings, err := b.run(ctx, client, p.counters, false)
		if err != nil {
			return dst, fmt.Errorf("reading rate limits: %w", err)
		}
		for i, c := range p.counters {
			dst[c.Index] = c.Decide(readings[i], true)
		}
	}
	return dst, nil
}

// Reset implements ratelimit.Backend.
func (b *Backend) Reset(ctx context.Context, charges []ratelimit.Charge) error {
	_, counters := slide.Plan(nil, charges, false)
	client, err := b.connected(ctx)
	if err != nil {
		return fmt.Errorf("resetting rate limits: %w", err)
	}
	deletions := make(rueidis.Commands, 0, len(counters))
	for _, c := range counters {
		deletions = append(deletions, client.B().Del().Key(b.name(c)).Build())
	}
	for _, result := range client.DoMulti(ctx, deletions...) {
		if err := result.Error(); err != nil {
			return fmt.Errorf("resetting rate limits: %w", err)
		}
	}
	return nil
}

// part is counters that one script can reach.
type part struct {
	counters []slide.Counter
	readings []slide.Reading
	charged  bool
}

// split returns the counters as parts: all of them, but on a cluster those of each
// tag.
func split(client rueidis.Client, counters []slide.Counter) []part {
	if client.Mode() != rueidis.ClientModeCluster {
		return []part{{counters: counters}}
	}
	var parts []part
	at := make(map[string]int)
	for _, c := range counters {
		i, ok := at[string(c.Tag)]
		if !ok {
			i = len(parts)
			at[string(c.Tag)] = i
			parts = append(parts, part{})
		}
		parts[i].counters = append(parts[i].counters, c)
	}
	return parts
}

// name is that of a counter's hash. The braces are the cluster's hash tag.
func (b *Backend) name(c slide.Counter) string {
	return b.opts.Prefix + "{" + hex.EncodeToString(c.Tag) + "}" + hex.EncodeToString(c.ID)
}

func (b *Backend) run(ctx context.Context, client rueidis.Client, counters []slide.Counter, charge bool) ([]slide.Reading, error) {
	names := make([]string, 0, len(counters))
	args := make([]string, 1, 1+3*len(counters))
	args[0] = "0"
	if charge {
		args[0] = "1"
	}
	for _, c := range counters {
		names = append(names, b.name(c))
		args = append(args, number(c.Window), number(c.Limit), number(c.Cost))
	}
	rows, err := takeLua.Exec(ctx, client, names, args).ToArray()
	if err != nil {
		return nil, err
	}
	if len(rows) != len(counters) {
		return nil, fmt.Errorf("%d counters have %d answers", len(counters), len(rows))
	}
	readings := make([]slide.Reading, len(rows))
	for i := range rows {
		values, err := rows[i].AsIntSlice()
		if err != nil || len(values) != 4 {
			return nil, fmt.Errorf("an answer is not of four numbers: %w", err)
		}
		readings[i] = slide.Reading{Now: values[0], Previous: values[1], Current: values[2], Fits: values[3] == 1}
	}
	return readings, nil
}

// refund takes back what parts have charged. If that fails, it stays charged.
func (b *Backend) refund(ctx context.Context, client rueidis.Client, parts []part) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refundTimeout)
	defer cancel()
	for _, p := range parts {
		if !p.charged {
			continue
		}
		var names, args []string
		for i, c := range p.counters {
			if c.Cost > 0 {
				names = append(names, b.name(c))
				args = append(args, number(c.Window), number(p.readings[i].Now), number(c.Cost))
			}
		}
		if len(names) == 0 {
			continue
		}
		if err := refundLua.Exec(ctx, client, names, args).Error(); err != nil {
			b.opts.Log().Debug("taking back a charge of a rate limit", zap.Error(err))
		}
	}
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

// Interface guards
var (
	_ ratelimit.Backend = (*Backend)(nil)
)
