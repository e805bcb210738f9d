package gateway

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/internal/worker"
	"github.com/isekai-gateway/isekai/store"
)

const (
	// debounce is the least time between two syncs that announcements cause: the first
	// of a burst is followed at once, and the rest of it together.
	debounce = 5 * time.Millisecond

	// Of the attempts to listen again after the connection was lost. The waits double.
	firstListenWait = 100 * time.Millisecond
	maxListenWait   = 3 * time.Second

	// poolerWait is the wait behind a pooler, where listening will not work either next
	// time, and seems to for a while each time.
	poolerWait = 5 * time.Minute
)

// news is what the listener tells the watcher.
type news struct {
	wake chan struct{} // holds one token while there is something to look at

	mu        sync.Mutex
	listening bool   // what is committed is announced
	server    string // the run of the database server that was listened to last
	failed    bool   // to listen, at least once
	from      int64  // the revision served once listening had begun
	announced int64  // the last revision that was announced
	highest   int64  // the highest one that was
	polled    int64  // the revision that the last poll has found
	asked     bool   // the watcher is to look whatever was announced

	marked int64  // the revision of the last poll
	mark   string // what tells it apart from another one of that number
}

// replaced notes what a poll has found, and reports whether the number of the one before
// stands for another change now.
func (n *news) replaced(revision int64, mark string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	was, old := n.marked, n.mark
	n.marked, n.mark = revision, mark
	return was == revision && old != mark
}

// tell wakes the watcher, which asks the store. Of several calls before it comes, it
// hears one.
func (n *news) tell() {
	n.mu.Lock()
	n.asked = true
	n.mu.Unlock()
	n.ring()
}

// announce notes a revision and wakes the watcher. The store announces them in order, and
// who serves one serves those before. One out of order is nobody's or a restored store's,
// and says nothing of the one before it, which the watcher may not have looked at yet.
func (n *news) announce(revision int64) {
	n.mu.Lock()
	if revision < n.announced {
		n.asked = true
	}
	n.announced, n.highest = revision, max(n.highest, revision)
	n.mu.Unlock()
	n.ring()
}

// nothing reports whether all that the watcher was woken for is a revision that is
// served, as those are that this gateway has written itself.
func (n *news) nothing(served int64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	asked := n.asked
	n.asked = false
	return !asked && n.announced == served
}

func (n *news) ring() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// listen keeps a connection on which the store announces revisions.
func (g *Gateway) listen(ctx context.Context) {
	select {
	case <-g.prepared:
	case <-ctx.Done():
		return
	}
	wait := firstListenWait
	told := false
	for {
		err := g.store.Listen(ctx, g.cfg.ListenHeartbeat, store.Listener{
			Ready: func(server string) {
				wait = firstListenWait
				if told {
					told = false
					g.cfg.Log().Info("listening for changes of routes again")
				}
				g.listenerReady(server)
			},
			Revision: g.news.announce,
		})
		if errors.Is(err, errors.ErrUnsupported) || ctx.Err() != nil {
			return
		}
		if !told {
			told = true
			g.cfg.Log().Warn("not listening for changes of routes; the store is asked for them instead", zap.Error(err))
		}
		g.news.mu.Lock()
		g.news.listening, g.news.failed = false, true
		g.news.mu.Unlock()
		g.news.tell() // to poll more often from now on
		// Anything from nothing to the whole, since a restarted server sees all
		// replicas come back.
		pause := rand.N(wait) + time.Millisecond
		if errors.Is(err, store.ErrNotListening) {
			pause = poolerWait
		}
		if !worker.Sleep(ctx, pause) {
			return
		}
		wait = min(2*wait, maxListenWait)
	}
}

// listenerReady catches up with what was committed while nobody listened.
func (g *Gateway) listenerReady(server string) {
	g.news.mu.Lock()
	if g.news.server != server && (g.news.server != "" || g.news.failed) {
		// A standby that took over, or a dump that was restored, may have other changes
		// under the same numbers. Which server the routes were loaded from is not known
		// if an attempt to listen has failed before the first one that did not.
		g.stale.Store(true)
	}
	g.news.server = server
	g.news.listening = true
	g.news.from, g.news.announced, g.news.highest, g.news.polled = 0, 0, 0, 0
	g.news.mu.Unlock()
	g.news.tell()
}

// heard notes what a poll has found. If that was not announced by the next one, the
// connection only seems to listen, as behind some poolers.
func (g *Gateway) heard(revision int64) {
	n := &g.news
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.listening {
		return
	}
	if n.from == 0 {
		n.from = revision
	}
	if n.polled > n.from && n.highest < n.polled {
		n.listening = false
		g.cfg.Log().Warn("a change of routes was not announced; the store is asked for changes instead. A pooler that shares connections between transactions can't be listened through",
			zap.Int64("revision", n.polled))
		return
	}
	n.polled = revision
}

// pollInterval is how long to wait for an announcement before the store is asked. While
// the store is down nothing is announced, and an interval of choice may be an hour.
func (g *Gateway) pollInterval() time.Duration {
	up := g.StoreUp()
	switch {
	case g.cfg.PollInterval > 0 && up:
		return g.cfg.PollInterval
	case g.cfg.PollInterval > 0:
		return min(g.cfg.PollInterval, DefaultPollInterval)
	}
	g.news.mu.Lock()
	defer g.news.mu.Unlock()
	if g.news.listening && up {
		return DefaultListeningPollInterval
	}
	return DefaultPollInterval
}
