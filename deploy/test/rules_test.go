package deploytest

import (
	"context"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
)

const evaluateEvery = 30 * time.Second

var alertsFile = filepath.Join("..", "prometheus", "alerts.yml")

func readRules(t testing.TB) *rulefmt.RuleGroups {
	t.Helper()
	text, err := os.ReadFile(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	groups, problems := rulefmt.Parse(text, false, model.LegacyValidation, promqlParser, slog.New(slog.DiscardHandler))
	if len(problems) > 0 {
		t.Fatalf("alerts.yml: %v", problems)
	}
	return groups
}

// ruler evaluates the rules on a database.
type ruler struct {
	t      testing.TB
	groups []*rules.Group // in the order of the file
}

// newRuler takes a storage, or something that shows a storage as it was at some time.
func newRuler(t testing.TB, store interface {
	storage.Queryable
	storage.AppendableV2
}, engine promql.QueryEngine,
) *ruler {
	t.Helper()
	m := rules.NewManager(&rules.ManagerOptions{
		QueryFunc: rules.EngineQueryFunc(engine, store), Queryable: store, AppendableV2: store,
		NotifyFunc: func(context.Context, string, ...*rules.Alert) {}, ExternalURL: &url.URL{}, Context: context.Background(),
		Logger: slog.New(slog.DiscardHandler), Parser: promqlParser,
	})
	loaded, problems := m.LoadGroups(evaluateEvery, labels.EmptyLabels(), "", nil, false, alertsFile)
	if len(problems) > 0 {
		t.Fatalf("loading alerts.yml: %v", problems)
	}
	r := &ruler{t: t}
	for _, g := range readRules(t).Groups {
		r.groups = append(r.groups, loaded[rules.GroupKey(alertsFile, g.Name)])
	}
	return r
}

// evaluate evaluates all rules at a time, none of which may fail.
func (r *ruler) evaluate(at time.Time) {
	r.t.Helper()
	for _, g := range r.groups {
		g.Eval(context.Background(), at)
		for _, rule := range g.Rules() {
			if err := rule.LastError(); err != nil {
				r.t.Fatalf("%s at %s: %v", rule.Name(), at, err)
			}
		}
	}
}

// firing returns the alerts that fire, by name.
func (r *ruler) firing() map[string][]*rules.Alert {
	found := make(map[string][]*rules.Alert)
	for _, g := range r.groups {
		for _, rule := range g.AlertingRules() {
			for _, a := range rule.ActiveAlerts() {
				if a.State == rules.StateFiring {
					found[rule.Name()] = append(found[rule.Name()], a)
				}
			}
		}
	}
	return found
}

// checkTexts looks for places of templates that were not filled.
func checkTexts(t *testing.T, a *rules.Alert) {
	t.Helper()
	for _, name := range []string{"summary", "description", "runbook"} {
		text := a.Annotations.Get(name)
		for _, bad := range []string{"<no value>", "<error", "{{", "  ", `""`, "NaN", "Inf"} {
			if text == "" || strings.Contains(text, bad) {
				t.Errorf("the %s of %s is %q", name, a.Labels, text)
				break
			}
		}
	}
	if s := a.Labels.Get("severity"); s != "critical" && s != "warning" {
		t.Errorf("%s has no severity", a.Labels)
	}
}

func TestRulesAreTidy(t *testing.T) {
	t.Parallel()
	f := scrapedFleet(t)
	known := labelsByName(f.last())
	groups := readRules(t).Groups
	for _, g := range groups {
		for _, r := range g.Rules {
			if r.Record != "" {
				parsed, err := promqlParser.ParseExpr(r.Expr)
				if err != nil {
					t.Fatal(err)
				}
				known[r.Record] = map[string]bool{model.MetricNameLabel: true}
				for _, l := range labelsOf(parsed, known) {
					known[r.Record][l] = true
				}
			}
		}
	}
	seen := make(map[string]bool)
	for _, g := range groups {
		for _, r := range g.Rules {
			checkNames(t, r.Expr, known)
			if r.Alert == "" {
				continue
			}
			if seen[r.Alert] || !strings.HasPrefix(r.Alert, "Isekai") {
				t.Errorf("an alert is called %q", r.Alert)
			}
			seen[r.Alert] = true
			for _, name := range []string{"summary", "description", "runbook"} {
				if text := r.Annotations[name]; !strings.HasSuffix(text, ".") {
					t.Errorf("the %s of %s is %q", name, r.Alert, text)
				}
			}
		}
	}
	for _, c := range alertCases {
		if !seen[c.alert] {
			t.Errorf("there is no alert %s", c.alert)
		}
		delete(seen, c.alert)
	}
	if len(seen) > 0 {
		t.Errorf("no test has these fire: %v", seen)
	}
}

// TestAlertsOfTraffic has the alerts say what was wrong while the scrapes were made.
func TestAlertsOfTraffic(t *testing.T) {
	t.Parallel()
	f := scrapedFleet(t)
	db := newDatabase(t)
	r := newRuler(t, db.storage, db.engine)
	for i, samples := range f.scrapes {
		at := began.Add(time.Duration(i) * scrapeEvery)
		db.add(at, samples)
		r.evaluate(at)
	}
	firing := r.firing()
	for _, alert := range []string{"IsekaiErrorsHigh", "IsekaiRouteErrorsHigh", "IsekaiShedding", "IsekaiPoolDown", "IsekaiTargetDown", "IsekaiRetriesDenied"} {
		if len(firing[alert]) == 0 {
			t.Errorf("%s does not fire", alert)
		}
		for _, a := range firing[alert] {
			checkTexts(t, a)
		}
	}
	var names []string
	for _, a := range firing["IsekaiRouteErrorsHigh"] {
		names = append(names, a.Labels.Get("name"))
	}
	slices.Sort(names)
	if want := []string{"breaking", "busy", "denied", "refused"}; !slices.Equal(names, want) {
		t.Errorf("the routes with errors are %q, want %q", names, want)
	}
	for _, alert := range []string{
		"IsekaiDown", "IsekaiNotReady", "IsekaiStoreDown", "IsekaiStoreErrors", "IsekaiTableStale", "IsekaiRevisionBehind", "IsekaiRoutesBroken",
		"IsekaiRateLimitBackendDown", "IsekaiRouteSetupFails", "IsekaiRequestLogFills", "IsekaiRequestLogDrops",
	} {
		if len(firing[alert]) > 0 {
			t.Errorf("%s fires: %v", alert, firing[alert][0])
		}
	}
}
