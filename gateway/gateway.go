// Package gateway is what outlives a reload of Caddy's configuration: the
// store, the route table that all handlers match against, and the workers that
// keep them current. It knows nothing of Caddy.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	"github.com/isekai-gateway/isekai/cache"
	"github.com/isekai-gateway/isekai/internal/inflight"
	"github.com/isekai-gateway/isekai/internal/worker"
	"github.com/isekai-gateway/isekai/mirror"
	"github.com/isekai-gateway/isekai/ratelimit"
	"github.com/isekai-gateway/isekai/requestlog"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/stats"
	"github.com/isekai-gateway/isekai/store"
)

// Defaults of Config.
const (
	DefaultPollInterval          = time.Second     // while nothing is announced
	DefaultListeningPollInterval = 5 * time.Second // while changes are announced
	DefaultListenHeartbeat       = 3 * time.Second
	DefaultReplicaInterval       = 2 * time.Second
	DefaultSnapshotDelay         = time.Second
	DefaultHealthInterval        = 30 * time.Second
	DefaultStatsInterval         = time.Minute

	// DefaultTrafficInterval is how long the parts of Traffic's shortest window are.
	DefaultTrafficInterval = 10 * time.Second
)

// Config sets up a Gateway. DSN and Log are required.
type Config struct {
	// Where the routes are kept; see store.Open.
	DSN string

	// Limits of the connections to the store.
	Store store.Options

	// How often the store is asked for its revision. Default: 1s, and 5s while it
	// announces its revisions.
	PollInterval time.Duration

	// How long the connection on which revisions are announced may be silent before it
	// is asked for a sign of life, and how long that may take. Default: 3s.
	ListenHeartbeat time.Duration

	// How often this gateway says that it lives, in the store's table replicas.
	// Default: 2s.
	ReplicaInterval time.Duration

	// What the other replicas see of this one: the machine's name and the program's
	// version. Default: what the system says, and nothing.
	Address string
	Version string

	// The file in which the last known routes are kept, for a start while the store is
	// down. Default: none.
	Snapshot string

	// What that file is sealed with, snapshot.KeySize bytes. Default: nothing, it is in
	// the clear.
	SnapshotKey []byte

	// How long changes are collected before that file is written. Default: 1s.
	SnapshotDelay time.Duration

	// How often the health of the store and of the caches is checked. Default: 30s.
	HealthInterval time.Duration

	// How often a line with the counters is logged. Default: 1m.
	StatsInterval time.Duration

	// The most routes whose requests are counted apart. Default: 1,000.
	MaxSeries int

	// How often Traffic's windows move on and statistics are exchanged with the store;
	// those of others are known up to one interval later. Default: 10s.
	TrafficInterval time.Duration

	// How long revisions are kept in the history. Default: 0, for ever.
	HistoryRetention time.Duration

	// Routes to insert into a store that has never had any.
	Seed []*store.Route

	// How requests are logged in the store.
	RequestLog requestlog.Config

	// Returns the logger to use now. It is called for every line, since a
	// reload replaces Caddy's loggers.
	Log func() *zap.Logger
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		value     *time.Duration
		otherwise time.Duration
	}{
		{&c.ListenHeartbeat, DefaultListenHeartbeat},
		{&c.ReplicaInterval, DefaultReplicaInterval},
		{&c.SnapshotDelay, DefaultSnapshotDelay},
		{&c.HealthInterval, DefaultHealthInterval},
		{&c.StatsInterval, DefaultStatsInterval},
		{&c.TrafficInterval, DefaultTrafficInterval},
	} {
		if *d.value == 0 {
			*d.value = d.otherwise
		}
	}
	if c.Address == "" {
		if name, err := os.Hostname(); err == nil {
			c.Address = name
		}
	}
	return c
}

// Gateway holds one store's routes ready for matching. All methods are safe for
// concurrent use. Make one with Open and end it with Close.
type Gateway struct {
	// Guesses counts the wrong credentials of clients, so that guessing is slow.
	Guesses *ratelimit.Limiter

	// Credentials knows consumers, keys and tokens.
	Credentials *Credentials

	// Decisions counts what the routes' rate limits decided.
	Decisions ratelimit.Tally

	// Mirror holds the copies of requests that wait for the routes' mirrors.
	Mirror *mirror.Queue

	// RequestLog takes a record of every request.
	RequestLog *requestlog.Log

	// InFlight counts the requests of routes with a bound on them.
	InFlight inflight.Counts

	// Requests counts what the handlers did.
	Requests RequestCounters

	// Propagation is how long changes take from their commit until they are served
	// here, in seconds. What a full load brings is not in it.
	Propagation prometheus.Histogram

	// Traffic counts the same by route, over time.
	Traffic *stats.Recorder

	// StoreCalls counts the calls of the store.
	StoreCalls *StoreCalls

	cfg     Config
	store   store.Store
	workers *worker.Group
	started time.Time

	table     atomic.Pointer[routing.Table]
	attempted chan struct{} // closed after the first attempt to load
	begin     sync.Once
	begun     chan struct{} // closed by Start
	prepared  chan struct{} // closed after the first attempt to prepare the store
	ready     chan struct{} // closed after the first one that went well
	syncing   chan struct{} // a lock that honours contexts: holds one token while a sync runs
	stale     atomic.Bool   // the table may differ from the store's at the same revision

	news     news
	reporter reporter
	looks    singleflight.Group // at the live replicas

	saved       chan struct{} // holds one token while there may be another table to save
	badSnapshot error         // set before attempted is closed

	credentialsChanged atomic.Bool // since a snapshot was last written

	health  healthState
	traffic trafficHistory
	uses    counted // what writeUses has written

	subscribers struct {
		sync.Mutex
		set  map[*Subscriber]struct{}
		gone cacheCounts // of subscribers that have left
	}
}

// Open opens the store and starts the workers that load the routes and keep
// them current. It does not wait for a database server: only a DSN that can't
// work, or a folder that can't be written, is an error. Until Start, the
// database is only read, so that a configuration can be tried out.
func Open(cfg Config) (*Gateway, error) {
	cfg = cfg.withDefaults()
	calls := new(StoreCalls)
	cfg.Store.Observe = calls.observe
	st, err := store.Open(context.Background(), cfg.DSN, cfg.Store)
	if err != nil {
		return nil, fmt.Errorf("opening store: %w", err)
	}
	g := &Gateway{
		StoreCalls: calls,
		Mirror:     mirror.NewQueue(mirror.DefaultLimits(), cfg.Log),
		cfg:        cfg,
		store:      st,
		workers:    worker.New(cfg.Log),
		started:    time.Now(),
		attempted:  make(chan struct{}),
		begun:      make(chan struct{}),
		prepared:   make(chan struct{}),
		ready:      make(chan struct{}),
		syncing:    make(chan struct{}, 1),
		saved:      make(chan struct{}, 1),
		Propagation: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "isekai_propagation_seconds",
			Help:    "How long changes take from their commit until this replica serves them, by the database's clock.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
	}
	g.news.wake = make(chan struct{}, 1)
	g.reporter.changed = make(chan struct{}, 1)
	g.reporter.row = store.Replica{
		ID: uuid.NewString(), Address: cfg.Address, PID: os.Getpid(), Version: cfg.Version, StartedAt: g.started,
	}
	g.Traffic = stats.NewRecorder(stats.Config{MaxSeries: cfg.MaxSeries})
	g.traffic = trafficHistory{replica: g.ID(), seen: make(map[int64]bool)}
	g.Guesses = ratelimit.New(ratelimit.Config{MaxKeys: maxGuessers})
	g.RequestLog = requestlog.New(cfg.RequestLog, st, cfg.Log)
	if g.Credentials, err = newCredentials(st, g.StoreUp); err != nil {
		return nil, errors.Join(err, st.Close())
	}
	g.subscribers.set = make(map[*Subscriber]struct{})
	g.Guesses.Start()
	g.workers.Go("store watcher", g.watch)
	g.workers.Go("store listener", g.listen)
	g.workers.Go("replica reporter", g.reportReplica)
	if cfg.Snapshot != "" {
		g.workers.Go("snapshot", g.keepSnapshot)
	}
	g.workers.Every("store health checker", cfg.HealthInterval, g.checkStore)
	g.workers.Every("cache health checker", cfg.HealthInterval, g.checkCache)
	g.workers.Every("uses of credentials", usesInterval, g.writeUses)
	g.workers.Go("traffic counter", g.countTraffic)
	if cfg.HistoryRetention > 0 {
		g.workers.Go("history retention", g.keepHistory)
	}
	g.workers.Every("stats collector", cfg.StatsInterval, g.logStats)
	return g, nil
}

// Close stops and joins all workers and closes the store.
func (g *Gateway) Close() error {
	g.workers.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	g.leaveReplicas(ctx)
	g.writeUses(ctx)
	g.saveLastTraffic(ctx)
	g.RequestLog.Close()
	g.Credentials.close()
	g.Mirror.Close()
	g.Guesses.Close()
	if err := g.store.Close(); err != nil {
		return fmt.Errorf("closing store: %w", err)
	}
	return nil
}

// maxGuessers bounds how many clients are counted that send wrong credentials.
const maxGuessers = 100_000

// closeTimeout bounds what Close still writes.
const closeTimeout = 2 * time.Second

// writeUses notes in the store which credentials were used, while mayWrite.
func (g *Gateway) writeUses(ctx context.Context) {
	if !g.mayWrite() {
		return
	}
	if tried, err := g.Credentials.writeUses(ctx); tried && ctx.Err() == nil {
		g.uses.note(g.cfg.Log, "when credentials were used last", err)
	}
}

// WaitLoaded waits until the first attempt to load the routes has ended, well
// or not, or ctx is done.
func (g *Gateway) WaitLoaded(ctx context.Context) { wait(ctx, g.attempted) }

// Start lets the gateway bring the store's schema up to date and seed it, and
// waits until the first attempt at that has ended, well or not, or ctx is done.
// It may be called more than once.
func (g *Gateway) Start(ctx context.Context) {
	g.begin.Do(func() { close(g.begun) })
	wait(ctx, g.prepared)
}

func wait(ctx context.Context, done <-chan struct{}) {
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// Table returns the routes served now, or nil before they were first loaded.
func (g *Gateway) Table() *routing.Table { return g.table.Load() }

// Store returns the store, for reads that the table can't answer.
func (g *Gateway) Store() store.Store { return g.store }

// Started is when the gateway was opened.
func (g *Gateway) Started() time.Time { return g.started }

// ErrNotReady says that the routes were never loaded.
var ErrNotReady = errors.New("the routes are not loaded yet")

// Subscriber is told of changes to the table and asked for statistics.
type Subscriber struct {
	// Changed is called, after the new table is visible, with the compiled routes
	// that are new in it and with those that are no longer in it. It must not block.
	Changed func(added, dropped []*routing.Route)

	// CacheStats returns the counters of the subscriber's pipeline cache.
	CacheStats func() cache.Stats
}

// Subscribe registers s until the returned function is called.
func (g *Gateway) Subscribe(s *Subscriber) (cancel func()) {
	g.subscribers.Lock()
	defer g.subscribers.Unlock()
	g.subscribers.set[s] = struct{}{}
	return func() {
		g.subscribers.Lock()
		defer g.subscribers.Unlock()
		delete(g.subscribers.set, s)
		g.subscribers.gone.add(s.CacheStats())
	}
}

func (g *Gateway) eachSubscriber(fn func(*Subscriber)) {
	g.subscribers.Lock()
	defer g.subscribers.Unlock()
	for s := range g.subscribers.set {
		fn(s)
	}
}
