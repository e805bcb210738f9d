package ratelimit

import "github.com/caddyserver/caddy/v2"

// zones holds the counters of every named zone, so that a new config finds
// those of the old one.
var zones = caddy.NewUsagePool()

// zone is a Limiter in the pool. It sweeps from the first reference to the last.
type zone struct{ limiter *Limiter }

// Destruct implements caddy.Destructor.
func (z *zone) Destruct() error {
	z.limiter.Close()
	return nil
}

// acquireZone takes a reference to the counters of a zone; releaseZone gives it
// back and must be called exactly as often.
func acquireZone(name string) (*Limiter, error) {
	value, _, err := zones.LoadOrNew(name, func() (caddy.Destructor, error) {
		z := &zone{limiter: New(Config{})}
		z.limiter.Start()
		return z, nil
	})
	if err != nil {
		return nil, err
	}
	return value.(*zone).limiter, nil
}

func releaseZone(name string) error {
	_, err := zones.Delete(name)
	return err
}
