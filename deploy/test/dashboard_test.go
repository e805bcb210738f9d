package deploytest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// dashboard is what the tests read of a Grafana dashboard.
type dashboard struct {
	UID           string  `json:"uid"`
	Title         string  `json:"title"`
	SchemaVersion int     `json:"schemaVersion"`
	Panels        []panel `json:"panels"`
	Templating    struct {
		List []struct {
			Name       string `json:"name"`
			Type       string `json:"type"`
			Definition string `json:"definition"`
			AllValue   string `json:"allValue"`
		} `json:"list"`
	} `json:"templating"`
	Annotations struct {
		List []struct {
			Name string `json:"name"`
			Expr string `json:"expr"`
		} `json:"list"`
	} `json:"annotations"`
}

type panel struct {
	ID          int        `json:"id"`
	Type        string     `json:"type"`
	Title       string     `json:"title"`
	Description string     `json:"description"`
	Datasource  datasource `json:"datasource"`
	GridPos     struct {
		X, Y, W, H int
	} `json:"gridPos"`
	FieldConfig struct {
		Defaults struct {
			Unit string `json:"unit"`
		} `json:"defaults"`
	} `json:"fieldConfig"`
	Targets []target `json:"targets"`
	Panels  []panel  `json:"panels"`
}

type target struct {
	RefID        string     `json:"refId"`
	Datasource   datasource `json:"datasource"`
	Expr         string     `json:"expr"`
	LegendFormat string     `json:"legendFormat"`
	Instant      bool       `json:"instant"`
	Range        bool       `json:"range"`
	Format       string     `json:"format"`
}

type datasource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "grafana", "isekai.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// units are those that the panels use, by the names that Grafana knows.
var units = []string{"reqps", "ops", "Bps", "s", "percentunit", "none", "short"}

func TestDashboardIsTidy(t *testing.T) {
	t.Parallel()
	d := readDashboard(t)
	if d.UID == "" || d.Title == "" || d.SchemaVersion < 39 {
		t.Errorf("the dashboard is %q %q, schema %d", d.UID, d.Title, d.SchemaVersion)
	}
	ids, titles := make(map[int]string), make(map[string]int)
	queries := 0
	for i, p := range d.Panels {
		if before, ok := ids[p.ID]; ok {
			t.Errorf("%q and %q have the id %d", before, p.Title, p.ID)
		}
		ids[p.ID] = p.Title
		if p.Title == "" || p.GridPos.W < 1 || p.GridPos.H < 1 || p.GridPos.X < 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d %q is at %+v", p.ID, p.Title, p.GridPos)
		}
		for _, other := range d.Panels[:i] {
			a, b := p.GridPos, other.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("%q at %+v overlaps %q at %+v", p.Title, a, other.Title, b)
			}
		}
		if p.Type == "row" {
			if len(p.Panels) > 0 {
				t.Errorf("the row %q hides panels from these tests", p.Title)
			}
			continue
		}
		titles[p.Type+p.Title]++
		if titles[p.Type+p.Title] > 1 {
			t.Errorf("two panels are called %q", p.Title)
		}
		if !strings.HasSuffix(p.Description, ".") {
			t.Errorf("%q is described as %q", p.Title, p.Description)
		}
		if !slices.Contains(units, p.FieldConfig.Defaults.Unit) {
			t.Errorf("%q has the unit %q", p.Title, p.FieldConfig.Defaults.Unit)
		}
		if p.Datasource != (datasource{"prometheus", "${datasource}"}) {
			t.Errorf("%q reads %+v", p.Title, p.Datasource)
		}
		if len(p.Targets) == 0 {
			t.Errorf("%q has no query", p.Title)
		}
		refs := make(map[string]bool)
		for _, q := range p.Targets {
			queries++
			if q.Datasource != p.Datasource || refs[q.RefID] || q.Instant == q.Range || (q.LegendFormat == "") == (q.Format != "table") {
				t.Errorf("a query of %q is %+v", p.Title, q)
			}
			refs[q.RefID] = true
			if !strings.Contains(q.Expr, `instance=~"$instance"`) {
				t.Errorf("%q does not look at the variable instance: %s", p.Title, q.Expr)
			}
		}
	}
	if queries < 50 {
		t.Errorf("there are %d queries", queries)
	}
}

// filled is an expression with its variables replaced, as Grafana does.
func filled(expr, instance, route string) string {
	return strings.NewReplacer("$__rate_interval", "2m", "$__range", "20m", "$instance", instance, "$route", route).Replace(expr)
}

var legendLabel = regexp.MustCompile(`{{\s*(\w+)\s*}}`)

// mayBeEmpty are the labels of legends that some series lack, and why.
var mayBeEmpty = map[string]string{
	"name": "_none and _other are no routes, and routes need no name",
}

// TestDashboardShowsTraffic evaluates every query on what was scraped.
func TestDashboardShowsTraffic(t *testing.T) {
	t.Parallel()
	f := scrapedFleet(t)
	known := labelsByName(f.last())
	db := newDatabase(t)
	db.addFleet(f)
	one := regexp.QuoteMeta(f.instances[0])
	one = strings.ReplaceAll(one, `\`, `\\`) // as Grafana does within quotes
	shown := make(map[string][]series)
	for _, p := range readDashboard(t).Panels {
		for _, q := range p.Targets {
			expr := filled(q.Expr, ".*", ".*")
			checkNames(t, expr, known)
			got, err := db.query(expr, f.end(), q.Instant)
			if err != nil {
				t.Errorf("%q: %s: %v", p.Title, expr, err)
				continue
			}
			shown[p.Type+"/"+p.Title+"/"+q.RefID] = got
			if len(got) == 0 {
				t.Errorf("%q shows nothing: %s", p.Title, expr)
			}
			lines := make(map[string]bool)
			for _, s := range got {
				line := legendLabel.ReplaceAllStringFunc(q.LegendFormat, func(m string) string {
					label := legendLabel.FindStringSubmatch(m)[1]
					if s.labels[label] == "" && mayBeEmpty[label] == "" {
						t.Errorf("%q has a line without %s: %v", p.Title, label, s.labels)
					}
					return s.labels[label]
				})
				if q.LegendFormat != "" && lines[line] {
					t.Errorf("%q has two lines %q", p.Title, line)
				}
				lines[line] = true
				for _, point := range s.points {
					// A part may be counted a moment after its whole, but is no percentage.
					if unit := p.FieldConfig.Defaults.Unit; point.F < 0 || unit == "percentunit" && point.F > 2 {
						t.Errorf("%q shows %v %s", p.Title, point.F, unit)
						break
					}
				}
			}
			// Of one gateway and one route there may be nothing to show, but no error.
			some, err := db.query(filled(q.Expr, one, "1"), f.end(), q.Instant)
			if err != nil {
				t.Errorf("%q of one gateway: %v", p.Title, err)
			}
			for _, s := range some {
				if i := s.labels["instance"]; i != "" && i != f.instances[0] {
					t.Errorf("%q shows %s, though another gateway is chosen", p.Title, i)
				}
				if r := s.labels["route"]; r != "" && r != "1" {
					t.Errorf("%q shows route %s, though another is chosen", p.Title, r)
				}
			}
		}
	}
	checkShown(t, shown)
	dump(t, shown)
}

// checkShown looks at numbers that the traffic determines.
func checkShown(t *testing.T, shown map[string][]series) {
	t.Helper()
	find := func(key, label, value string) series {
		t.Helper()
		for _, s := range shown[key] {
			if s.labels[label] == value {
				return s
			}
		}
		t.Errorf("%s has no %s %q, but %v", key, label, value, shown[key])
		return series{}
	}
	for _, tt := range []struct {
		key, label, value string
		want              float64
	}{
		{"stat/Gateways/A", "", "", 2},
		{"stat/In flight/A", "", "", 2}, // those that are held
		{"stat/Store/A", "", "", 1},
		{"timeseries/Routes/A", "state", "served", 9},
		{"timeseries/Routes/A", "state", "disabled", 1},
		{"timeseries/In flight/A", "instance", "gateway-2:9180", 1},
		{"timeseries/Shed/A", "instance", "gateway-1:9180", 1. / 30},
		{"timeseries/Requests by status/A", "class", "5xx", 2 * 4. / 30}, // refused, breaking, denied, busy
		{"timeseries/Top routes by errors/A", "name", "refused", 1},
		{"timeseries/Top routes by rate/A", "route", "_none", 2 * 2. / 30}, // nowhere, off
		{"timeseries/Decisions/A", "decision", "dry_run", 2. / 30},
	} {
		s := find(tt.key, tt.label, tt.value)
		if got := s.median(); got < tt.want*0.99 || got > tt.want*1.01 {
			t.Errorf("%s, %s %q: %v, want %v", tt.key, tt.label, tt.value, got, tt.want)
		}
	}
	orders := find("table/All routes/A", "name", "orders")
	if orders.labels["path"] != "/orders" {
		t.Errorf("the table says %v", orders.labels)
	}
	for _, q := range []string{"B", "C", "D", "E", "F"} {
		for _, s := range shown["table/All routes/"+q] {
			if len(s.labels) != 1 {
				t.Errorf("column %s of the table can't be joined by route: %v", q, s.labels)
			}
		}
	}
	for _, title := range []string{"Latency", "Latency of upstreams", "Propagation"} {
		key := "timeseries/" + title + "/"
		p50, p90, p99 := shown[key+"A"], shown[key+"B"], shown[key+"C"]
		if len(p50) != 1 || len(p90) != 1 || len(p99) != 1 || p50[0].median() > p90[0].median() || p90[0].median() > p99[0].median() {
			t.Errorf("%s is %v, %v, %v", title, p50, p90, p99)
		}
	}
}

// dump writes what the panels show to the file that ISEKAI_DASHBOARD_DUMP names, for
// whoever wants to draw them.
func dump(t *testing.T, shown map[string][]series) {
	t.Helper()
	file := os.Getenv("ISEKAI_DASHBOARD_DUMP")
	if file == "" {
		return
	}
	type line struct {
		Labels map[string]string `json:"labels"`
		Points [][2]float64      `json:"points"`
	}
	lines := make(map[string][]line)
	for key, all := range shown {
		for _, s := range all {
			l := line{Labels: s.labels}
			for _, p := range s.points {
				l.Points = append(l.Points, [2]float64{float64(p.T) / 1000, p.F})
			}
			lines[key] = append(lines[key], l)
		}
	}
	text, err := json.Marshal(lines)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

var labelValues = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)

func TestDashboardVariables(t *testing.T) {
	t.Parallel()
	f := scrapedFleet(t)
	known := labelsByName(f.last())
	db := newDatabase(t)
	db.addFleet(f)
	d := readDashboard(t)
	var names []string
	for _, v := range d.Templating.List {
		names = append(names, v.Name)
		if v.Type != "query" {
			continue
		}
		parts := labelValues.FindStringSubmatch(v.Definition)
		if parts == nil || v.AllValue != ".*" {
			t.Errorf("the variable %s is %+v", v.Name, v)
			continue
		}
		expr := filled(parts[1], ".*", ".*")
		checkNames(t, expr, known)
		got, err := db.query(expr, f.end(), true)
		if err != nil || len(got) == 0 || got[0].labels[parts[2]] == "" {
			t.Errorf("the variable %s has the values %v (%v)", v.Name, got, err)
		}
	}
	if want := []string{"datasource", "instance", "route"}; !slices.Equal(names, want) {
		t.Errorf("the variables are %q, want %q", names, want)
	}
	for _, a := range d.Annotations.List {
		if a.Expr == "" {
			continue
		}
		expr := filled(a.Expr, ".*", ".*")
		checkNames(t, expr, known)
		if got, err := db.query(expr, f.end(), false); err != nil || len(got) == 0 {
			t.Errorf("the annotation %q shows %v (%v)", a.Name, got, err)
		}
	}
}
