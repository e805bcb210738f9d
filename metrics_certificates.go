package isekai

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isekai-gateway/isekai/ondemand"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/stats"
)

// The metrics of the certificates of routes' hosts, as /api/hosts has them.
var (
	certificateNotBefore = prometheus.NewDesc("isekai_certificate_not_before_timestamp_seconds",
		"When the validity of the certificate began that is served for a host.", []string{"host"}, nil)
	certificateNotAfter = prometheus.NewDesc("isekai_certificate_not_after_timestamp_seconds",
		"When the certificate expires that is served for a host.", []string{"host"}, nil)
	certificateFailing = prometheus.NewDesc("isekai_certificate_failing_hosts",
		"Hosts whose certificate could not be obtained or renewed when this node tried last.", nil, nil)
)

var certificateMetrics = []*prometheus.Desc{certificateNotBefore, certificateNotAfter, certificateFailing}

// certificateSurveyAge is for how long one look at all hosts serves, so that a scraper
// can't make it often.
const certificateSurveyAge = 10 * time.Second

// certificateSurvey is what the certificates of all hosts are like. It is safe for
// concurrent use.
type certificateSurvey struct {
	table    func() *routing.Table
	failures *ondemand.Failures
	served   func(host string) []ondemand.Certificate // the one that is valid longest first
	most     int                                      // hosts with series of their own: those that expire first

	mu      sync.Mutex
	taken   time.Time
	hosts   []hostCertificate
	failing int
}

type hostCertificate struct {
	host                string
	notBefore, notAfter time.Time
}

// newCertificateSurvey returns the survey of what this configuration serves.
func (a *App) newCertificateSurvey() *certificateSurvey {
	return &certificateSurvey{
		table: a.gateway.Table, failures: a.failures, served: certificates,
		most: cmp.Or(a.MaxSeries, stats.DefaultMaxSeries),
	}
}

func (s *certificateSurvey) collect(ch chan<- prometheus.Metric) {
	hosts, failing := s.get()
	for _, h := range hosts {
		gauge(ch, certificateNotBefore, float64(h.notBefore.Unix()), h.host)
		gauge(ch, certificateNotAfter, float64(h.notAfter.Unix()), h.host)
	}
	gauge(ch, certificateFailing, float64(failing))
}

func (s *certificateSurvey) get() (hosts []hostCertificate, failing int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.taken) < certificateSurveyAge {
		return s.hosts, s.failing
	}
	s.hosts, s.failing = nil, 0
	if table := s.table(); table != nil {
		for _, h := range table.Hosts("", math.MaxInt, func(string) bool { return true }) {
			if certs := s.served(h.Host); len(certs) > 0 {
				s.hosts = append(s.hosts, hostCertificate{h.Host, certs[0].NotBefore, certs[0].NotAfter})
			}
			if _, failed := s.failures.Get(h.Host); failed {
				s.failing++
			}
		}
	}
	slices.SortStableFunc(s.hosts, func(a, b hostCertificate) int { return a.notAfter.Compare(b.notAfter) })
	s.hosts = s.hosts[:min(len(s.hosts), s.most)]
	s.taken = time.Now()
	return s.hosts, s.failing
}
