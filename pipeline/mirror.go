package pipeline

import (
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/isekai-gateway/isekai/mirror"
	"github.com/isekai-gateway/isekai/proxy"
	"github.com/isekai-gateway/isekai/store"
)

// mirrored is a route's mirror. The zero value is none.
type mirrored struct {
	*mirror.Mirror
	release func() error
}

// begin copies a request that is about to be forwarded. What it returns must be
// called after that.
func (m mirrored) begin(r *http.Request) (end func()) {
	if m.Mirror == nil {
		return func() {}
	}
	return m.Begin(r)
}

// dispose gives back what the mirror uses.
func (m mirrored) dispose() error {
	if m.Mirror == nil {
		return nil
	}
	return m.release()
}

// mirrorSettings are those of a row that has a mirror.
func mirrorSettings(row *store.Route) mirror.Settings {
	return mirror.Settings{
		Sample:       row.Mirror.Sample,
		BodyMax:      row.Mirror.BodyMax,
		Timeout:      time.Duration(row.Mirror.Timeout) * time.Second,
		PreserveHost: row.PreserveHost,
	}
}

func validateMirror(errs *store.FieldErrors, row *store.Route, policy *proxy.Policy) error {
	if row.Mirror == nil {
		return nil
	}
	if _, err := mirror.ParseTarget(row.Mirror.TargetURL, policy); err != nil {
		errs.Add("mirror.target_url", err.Error())
	}
	fields, err := collect(nil, mirrorSettings(row).Validate())
	for _, field := range fields {
		errs.Add("mirror."+field.Field, field.Message)
	}
	return err
}

// acquireMirror returns the mirror of a checked row. Routes that mirror to the same
// server share its connections and its part of the queue.
func (c *compiler) acquireMirror(row *store.Route) (mirrored, error) {
	if row.Mirror == nil {
		return mirrored{}, nil
	}
	target, err := mirror.ParseTarget(row.Mirror.TargetURL, c.policy)
	if err != nil {
		return mirrored{}, fmt.Errorf("mirror.target_url: %w", err)
	}
	key := mirror.Key(target)
	value, _, err := c.mirrors.LoadOrNew(key, func() (caddy.Destructor, error) {
		return mirror.NewDestination(c.copies, mirror.DefaultShare(), target, c.policy), nil
	})
	if err != nil {
		return mirrored{}, err
	}
	return mirrored{
		Mirror: mirror.New(value.(*mirror.Destination), target, mirrorSettings(row)),
		release: func() error {
			_, err := c.mirrors.Delete(key)
			return err
		},
	}, nil
}
