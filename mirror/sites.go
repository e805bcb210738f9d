package mirror

import "github.com/caddyserver/caddy/v2"

// sites holds the counters that all isekai_mirror handlers of the process share,
// under sitesKey, so that a reload keeps them.
var sites = caddy.NewUsagePool()

const sitesKey = "counters"

type pooledCounters struct{ *counters }

// Destruct implements caddy.Destructor.
func (pooledCounters) Destruct() error { return nil }

// SiteStats returns what became of the copies of all isekai_mirror handlers of the
// process, since there first was one.
func SiteStats() Stats {
	var s Stats
	sites.Range(func(_, value any) bool {
		s = value.(pooledCounters).stats()
		return false
	})
	return s
}

// acquireSiteCounters takes a reference to the counters, which releaseSiteCounters
// gives back.
func acquireSiteCounters() (*counters, error) {
	value, _, err := sites.LoadOrNew(sitesKey, func() (caddy.Destructor, error) {
		return pooledCounters{new(counters)}, nil
	})
	if err != nil {
		return nil, err
	}
	return value.(pooledCounters).counters, nil
}

func releaseSiteCounters() error {
	_, err := sites.Delete(sitesKey)
	return err
}
