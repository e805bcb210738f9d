package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// ReplicaTimeout is how long a replica counts after its last heartbeat, by the
// database's clock.
const ReplicaTimeout = 15 * time.Second

// replicaRetention is how long a row is kept after its replica's last heartbeat.
const replicaRetention = time.Hour

// MaxFailedRoutes bounds the failed routes that a replica tells of.
const MaxFailedRoutes = 100

// Replica is a gateway that serves from the database, and how far it has come.
type Replica struct {
	ID        string        // a UUID, another one at each start
	Address   string        // the machine's name
	PID       int           // of the process, on that machine
	Version   string        // of the program
	Revision  int64         // what it serves
	Failed    []FailedRoute // what it can't serve of that, at most MaxFailedRoutes
	StartedAt time.Time     // by the replica's clock

	// What the store adds, by the database's clock.
	HeartbeatAt time.Time
	Live        bool          // whether the last heartbeat is no older than ReplicaTimeout
	Lag         time.Duration // since the oldest revision that it does not serve, 0 if there is none
}

// FailedRoute is a route that a replica can't serve, and why.
type FailedRoute struct {
	ID    int64  `json:"id"`
	Error string `json:"error"`
}

// Replicas keeps what the gateways on one database know of each other. Nothing of it
// is a revision.
type Replicas interface {
	// ReportReplica writes the replica's row and makes now its last heartbeat.
	ReportReplica(ctx context.Context, r *Replica) error

	// Replicas returns all replicas, those that started first first, and the revision
	// of the last committed change, from one snapshot.
	Replicas(ctx context.Context) (list []*Replica, revision int64, err error)

	// LiveReplicas is Replicas without those that are not live, and without Lag.
	LiveReplicas(ctx context.Context) ([]*Replica, error)

	// ForgetReplica removes the replica's row, and those of others that were not heard
	// of for an hour.
	ForgetReplica(ctx context.Context, id string) error
}

// ReportReplica implements Replicas.
func (s *sqlStore) ReportReplica(ctx context.Context, r *Replica) error {
	failed := r.Failed
	if failed == nil {
		failed = []FailedRoute{}
	}
	document, err := json.Marshal(failed)
	if err != nil {
		return fmt.Errorf("encoding failed routes: %w", err)
	}
	return s.exec(ctx, "reporting a replica", `INSERT INTO replicas
			(id, address, pid, version, applied_revision, failed_routes, started_at, heartbeat_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, `+s.clock+`)
		ON CONFLICT (id) DO UPDATE SET address = excluded.address, pid = excluded.pid, version = excluded.version,
			applied_revision = excluded.applied_revision, failed_routes = excluded.failed_routes,
			started_at = excluded.started_at, heartbeat_at = excluded.heartbeat_at`+s.commitLazily,
		r.ID, r.Address, r.PID, r.Version, r.Revision, string(document), r.StartedAt.UTC().Truncate(time.Microsecond))
}

// ForgetReplica implements Replicas.
func (s *sqlStore) ForgetReplica(ctx context.Context, id string) error {
	return s.exec(ctx, "forgetting replicas",
		"DELETE FROM replicas WHERE id = $1 OR "+s.since("heartbeat_at")+" > $2", id, replicaRetention.Seconds())
}

// Replicas implements Replicas.
func (s *sqlStore) Replicas(ctx context.Context) (list []*Replica, revision int64, err error) {
	err = s.querySnapshot(ctx, "reading replicas", func(ctx context.Context, q querier, tick func()) (err error) {
		if err = q.QueryRowContext(ctx, "SELECT revision FROM revision_counter").Scan(&revision); err != nil {
			return err
		}
		tick()
		// The history numbers what it tells, so the first entry beyond what a replica
		// serves is the oldest that it lacks.
		lag := "CASE WHEN applied_revision < $1 THEN " + s.since(`(SELECT min(created_at) FROM (
				SELECT min(created_at) AS created_at FROM revisions WHERE revision > applied_revision
				UNION ALL SELECT min(created_at) FROM credential_revisions WHERE revision > applied_revision) AS missing)`) + " END"
		list, err = s.readReplicas(ctx, q, lag, "", revision)
		return err
	})
	return list, revision, err
}

// LiveReplicas implements Replicas.
func (s *sqlStore) LiveReplicas(ctx context.Context) (list []*Replica, err error) {
	err = s.query(ctx, "reading live replicas", func(ctx context.Context, q querier) (err error) {
		list, err = s.readReplicas(ctx, q, "NULL", "WHERE "+s.since("heartbeat_at")+" <= $1", ReplicaTimeout.Seconds())
		return err
	})
	return list, err
}

func (s *sqlStore) readReplicas(ctx context.Context, q querier, lag, where string, args ...any) ([]*Replica, error) {
	return readAll(ctx, q, func(scan func(dest ...any) error) (*Replica, error) {
		var (
			r                    Replica
			failed               []byte
			started, heartbeat   timestamp
			sinceHeartbeat       float64
			sinceOldestThatLacks *float64
		)
		err := scan(&r.ID, &r.Address, &r.PID, &r.Version, &r.Revision, &failed, &started, &heartbeat,
			&sinceHeartbeat, &sinceOldestThatLacks)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(failed, &r.Failed); err != nil {
			return nil, fmt.Errorf("decoding failed routes: %w", err)
		}
		r.StartedAt, r.HeartbeatAt = started.Time, heartbeat.Time
		r.Live = sinceHeartbeat <= ReplicaTimeout.Seconds()
		if sinceOldestThatLacks != nil {
			r.Lag = seconds(*sinceOldestThatLacks)
		}
		return &r, nil
	}, `SELECT CAST(id AS text), address, pid, version, applied_revision, failed_routes, started_at, heartbeat_at,
		`+s.since("heartbeat_at")+", "+lag+" FROM replicas "+where+" ORDER BY started_at, id", args...)
}

// exec runs a statement that is no revision.
func (s *sqlStore) exec(ctx context.Context, doing, statement string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, s.queryTimeout)
	defer cancel()
	return s.explain(ctx, doing, s.retryOnce(ctx, func() error {
		_, err := s.writer.ExecContext(ctx, statement, args...)
		return err
	}))
}

// seconds is a duration that a database has computed. Its clock may have been set
// meanwhile.
func seconds(n float64) time.Duration { return max(0, time.Duration(n*float64(time.Second))) }
