package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// routesChannel is where isekai_next_revision announces every revision.
const routesChannel = "isekai_routes"

// serverQuery names what revisions are numbers of. A database that took another's place
// may have its tables' oids, and tables that were restored their database's.
const serverQuery = `SELECT concat_ws(' ', pg_postmaster_start_time(), 'revision_counter'::regclass::oid,
	(SELECT oid FROM pg_database WHERE datname = current_database()))`

// listenerSuffix tells the listener's connection from the pool's in pg_stat_activity.
const listenerSuffix = "-listener"

// Listener hears of revisions, see Store.Listen. Its functions must not block.
type Listener struct {
	// Ready is called once, when no later revision can be missed. What was committed
	// before has to be read. server names the run of the database server and its
	// database: after a restart, a failover or the restore of a dump it is another, and
	// then the same numbers may stand for other changes.
	Ready func(server string)

	// Revision is called with the number of a revision that was committed.
	Revision func(revision int64)
}

// ErrNotListening says that the server knows of no LISTEN of the connection: there is
// something in between that can't be listened through.
var ErrNotListening = errors.New("the server does not know that this connection listens; a pooler that shares connections between transactions can't be listened through")

// Listen implements Store.
func (s *sqlStore) Listen(ctx context.Context, heartbeat time.Duration, on Listener) error {
	if s.listen == nil {
		return fmt.Errorf("listening for revisions: %w", errors.ErrUnsupported)
	}
	if err := s.listen(ctx, heartbeat, on); err != nil {
		return fmt.Errorf("listening for revisions: %w", err)
	}
	return nil
}

// listenPostgres listens on a connection of its own: one of the pool's would be given
// back, and its place is needed for queries.
func listenPostgres(ctx context.Context, config *pgx.ConnConfig, heartbeat time.Duration, on Listener) error {
	config = config.Copy()
	config.RuntimeParams["application_name"] += listenerSuffix
	// So that the server's side of the network, too, sees that the connection is in use,
	// and this side sees a host that is gone.
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3,
	}}
	config.DialFunc = dialer.DialContext
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing) // it may be broken, which is why it is given up
	}()

	beginning, cancel := context.WithTimeout(ctx, config.ConnectTimeout)
	defer cancel()
	if _, err := conn.Exec(beginning, "LISTEN "+routesChannel); err != nil {
		return err
	}
	var server string
	if err := conn.QueryRow(beginning, serverQuery, pgx.QueryExecModeSimpleProtocol).Scan(&server); err != nil {
		return err
	}
	on.Ready(server)
	for {
		if err := awaitRevision(ctx, conn, heartbeat, on); err != nil {
			return err
		}
	}
}

// awaitRevision passes the next announcement on. If there is none for the time of a
// heartbeat it asks the server for a sign of life, for as long at most: a connection
// that a firewall has forgotten would be silent for ever.
func awaitRevision(ctx context.Context, conn *pgx.Conn, heartbeat time.Duration, on Listener) error {
	quiet, cancel := context.WithTimeout(ctx, heartbeat)
	defer cancel()
	notification, err := conn.WaitForNotification(quiet)
	switch {
	case err == nil:
		// Anybody may notify, with any text.
		if revision, err := strconv.ParseInt(notification.Payload, 10, 64); err == nil {
			on.Revision(revision)
		}
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case quiet.Err() == nil:
		return err
	}
	asking, cancel := context.WithTimeout(ctx, heartbeat)
	defer cancel()
	var listens bool
	err = conn.QueryRow(asking, "SELECT EXISTS (SELECT 1 FROM pg_listening_channels() AS c WHERE c = '"+routesChannel+"')",
		pgx.QueryExecModeSimpleProtocol).Scan(&listens)
	switch {
	case err != nil:
		return err
	case !listens:
		return ErrNotListening
	}
	return nil
}
