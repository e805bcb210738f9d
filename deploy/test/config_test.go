package deploytest

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/config"
)

// TestConfig has Prometheus read its example, which must keep what the dashboard and the
// alerts read.
func TestConfig(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "prometheus", "prometheus.yml"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(string(text), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.RuleFiles, []string{filepath.Base(alertsFile)}) {
		t.Errorf("its rules are %q", c.RuleFiles)
	}
	scrapes, err := c.GetScrapeConfigs()
	if err != nil {
		t.Fatal(err)
	}
	if len(scrapes) != 1 || scrapes[0].JobName != job {
		t.Fatalf("it scrapes %v", scrapes)
	}
	s := scrapes[0]
	if !s.ScrapeNativeHistogramsEnabled() || !s.AlwaysScrapeClassicHistogramsEnabled() {
		t.Error("it does not take both kinds of histograms")
	}
	if s.MetricsPath != "/metrics" || s.Scheme != "http" {
		t.Errorf("it asks for %s by %s", s.MetricsPath, s.Scheme)
	}
}

// TestScrapeHasBothHistograms makes sure that gateways offer what prometheus.yml asks for.
func TestScrapeHasBothHistograms(t *testing.T) {
	t.Parallel()
	natives, classics := make(map[string]bool), labelsByName(scrapedFleet(t).last())
	for _, s := range scrapedFleet(t).last() {
		if s.native != nil {
			natives[s.name()] = true
		}
	}
	for _, name := range []string{"isekai_request_duration_seconds", "isekai_upstream_duration_seconds", "isekai_store_duration_seconds"} {
		if !natives[name] || !classics[name+"_bucket"]["le"] {
			t.Errorf("%s is native: %t, and classic: %v", name, natives[name], classics[name+"_bucket"])
		}
	}
}
