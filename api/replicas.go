package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/isekai-gateway/isekai/store"
)

type (
	replica struct {
		ID           string        `json:"id" doc:"A UUID, another one at every start." example:"0190163d-8694-739b-aea5-966c26f8ad91"`
		Address      string        `json:"address" doc:"The machine's name." example:"edge-1"`
		PID          int           `json:"pid" doc:"The process, on that machine."`
		Version      string        `json:"version" doc:"The version of the program." example:"v1.2.3"`
		Revision     int64         `json:"revision" doc:"The revision of the routes that it serves."`
		LagRevisions int64         `json:"lag_revisions" doc:"How many revisions it is behind."`
		LagSeconds   float64       `json:"lag_seconds" doc:"How long ago the oldest of these was made."`
		StartedAt    time.Time     `json:"started_at" doc:"When it was opened, by its own clock. A reload does not change it."`
		HeartbeatAt  time.Time     `json:"heartbeat_at" doc:"When it was last heard of, by the database's clock."`
		Live         bool          `json:"live" doc:"Whether that is no more than 15 seconds ago. Nobody waits for one that is not; it is forgotten after an hour."`
		Self         bool          `json:"self" doc:"Whether it is the one that answers."`
		Failed       []failedRoute `json:"failed_routes" doc:"Routes that it can't serve, at most 100."`
	}
	failedRoute struct {
		ID    int64  `json:"id" doc:"The route's number."`
		Error string `json:"error" doc:"Why it can't be served."`
	}
	replicaList struct {
		Revision int64     `json:"revision" doc:"The revision of the last change in the store."`
		Items    []replica `json:"items" doc:"The replicas, those that started first first."`
	}
	replicasOutput struct{ Body replicaList }
)

func (s *server) registerReplicas(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "list-replicas", Method: http.MethodGet, Path: "/api/replicas", Tags: []string{"status"},
		Summary:     "List the gateways on this store",
		Description: "Shows how far each gateway on the store has come. Each reports every two seconds and as soon as it serves another revision.",
		Errors:      []int{400, 422, 503},
	}, func(ctx context.Context, _ *struct{}) (*replicasOutput, error) {
		rows, revision, err := s.cfg.Gateway.Replicas(ctx)
		if err != nil {
			return nil, err
		}
		out := &replicasOutput{Body: replicaList{Revision: revision, Items: []replica{}}}
		for _, r := range rows {
			out.Body.Items = append(out.Body.Items, s.newReplica(r, revision))
		}
		return out, nil
	})
}

func (s *server) newReplica(r *store.Replica, revision int64) replica {
	shown := replica{
		ID: r.ID, Address: r.Address, PID: r.PID, Version: r.Version, Revision: r.Revision,
		LagRevisions: max(0, revision-r.Revision), LagSeconds: r.Lag.Seconds(),
		StartedAt: r.StartedAt, HeartbeatAt: r.HeartbeatAt,
		Live: r.Live, Self: r.ID == s.cfg.Gateway.ID(), Failed: []failedRoute{},
	}
	for _, f := range r.Failed {
		shown.Failed = append(shown.Failed, failedRoute(f))
	}
	return shown
}
