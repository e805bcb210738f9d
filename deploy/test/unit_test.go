package deploytest

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/promqltest"
	"go.yaml.in/yaml/v2"
)

// unitTests is the part of the format of `promtool test rules` that alerts_test.yml
// uses. promtool itself is no library, and would have to be compiled with all its clouds.
type unitTests struct {
	RuleFiles          []string       `yaml:"rule_files"`
	EvaluationInterval model.Duration `yaml:"evaluation_interval"`
	Tests              []struct {
		Name        string         `yaml:"name"`
		Interval    model.Duration `yaml:"interval"`
		InputSeries []struct {
			Series string `yaml:"series"`
			Values string `yaml:"values"`
		} `yaml:"input_series"`
		AlertRuleTest []struct {
			EvalTime  model.Duration  `yaml:"eval_time"`
			Alertname string          `yaml:"alertname"`
			ExpAlerts []expectedAlert `yaml:"exp_alerts"`
		} `yaml:"alert_rule_test"`
	} `yaml:"tests"`
}

type expectedAlert struct {
	Labels      map[string]string `yaml:"exp_labels"`
	Annotations map[string]string `yaml:"exp_annotations"`
}

// TestUnits runs alerts_test.yml as promtool does.
func TestUnits(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "prometheus", "alerts_test.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var units unitTests
	if err := yaml.UnmarshalStrict(text, &units); err != nil {
		t.Fatal(err)
	}
	every := time.Duration(units.EvaluationInterval)
	if every != evaluateEvery || !slices.Equal(units.RuleFiles, []string{filepath.Base(alertsFile)}) || len(units.Tests) == 0 {
		t.Fatalf("it tests %q every %s, %d times", units.RuleFiles, every, len(units.Tests))
	}
	for _, unit := range units.Tests {
		t.Run(unit.Name, func(t *testing.T) {
			load := "load " + unit.Interval.String() + "\n"
			for _, s := range unit.InputSeries {
				load += "  " + s.Series + " " + s.Values + "\n"
			}
			loader, err := promqltest.NewLazyLoader(load, promqltest.LazyLoaderOpts{EnableAtModifier: true, EnableNegativeOffset: true})
			if err != nil {
				t.Fatal(err)
			}
			defer loader.Close()
			var last time.Duration
			for _, check := range unit.AlertRuleTest {
				if time.Duration(check.EvalTime)%every != 0 {
					t.Fatalf("nothing is evaluated after %s", check.EvalTime)
				}
				last = max(last, time.Duration(check.EvalTime))
			}
			r := newRuler(t, loader.Storage(), loader.QueryEngine())
			for after := time.Duration(0); after <= last; after += every {
				at := time.Unix(0, 0).UTC().Add(after)
				loader.WithSamplesTill(at, func(err error) {
					if err != nil {
						t.Fatal(err)
					}
				})
				r.evaluate(at)
				for _, check := range unit.AlertRuleTest {
					if time.Duration(check.EvalTime) != after {
						continue
					}
					var got []expectedAlert
					for _, a := range r.firing()[check.Alertname] {
						l := a.Labels.Map()
						delete(l, labels.AlertName)
						got = append(got, expectedAlert{Labels: l, Annotations: a.Annotations.Map()})
					}
					slices.SortFunc(got, func(a, b expectedAlert) int {
						return strings.Compare(strings.Join(slices.Sorted(maps.Values(a.Labels)), " "), strings.Join(slices.Sorted(maps.Values(b.Labels)), " "))
					})
					if diff := cmp.Diff(check.ExpAlerts, got); diff != "" {
						t.Errorf("%s after %s (-want +got):\n%s", check.Alertname, check.EvalTime, diff)
					}
				}
			}
		})
	}
}
