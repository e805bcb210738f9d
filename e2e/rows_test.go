package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// servedWithin is how long a row may take to be served: the poll, generously.
const servedWithin = 20 * time.Second

// waitBody waits until a GET answers 200 with the body.
func (g *gateway) waitBody(target, body string, change ...func(*http.Request)) {
	g.t.Helper()
	eventually(g.t, servedWithin, target+" is served", func() error { return g.checkBody(target, body, change...) })
}

// waitStatus waits until a GET answers with the status.
func (g *gateway) waitStatus(target string, status int) {
	g.t.Helper()
	eventually(g.t, servedWithin, fmt.Sprintf("%s answers %d", target, status), func() error {
		a, err := g.trySend(http.MethodGet, target)
		if err == nil && a.status != status {
			err = fmt.Errorf("it answers %s", a)
		}
		return err
	})
}

func TestRowsAreRoutes(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, dsn string) {
		g := startGateway(t, settings{dsn: dsn})
		db := openSQL(t, dsn)
		one, two := textUpstream(t, "one"), textUpstream(t, "two")

		execSQL(t, db, `INSERT INTO routes (path, target_url) VALUES ('/sql', '`+one+`')`)
		g.waitBody("/sql", "one")
		execSQL(t, db, `UPDATE routes SET target_url = '`+two+`' WHERE path = '/sql'`)
		g.waitBody("/sql", "two")
		execSQL(t, db, `UPDATE routes SET enabled = `+sqlFalse(dsn))
		g.waitStatus("/sql", http.StatusNotFound)
		execSQL(t, db, `UPDATE routes SET enabled = NOT enabled`)
		g.waitBody("/sql", "two")
		execSQL(t, db, `DELETE FROM routes`)
		g.waitStatus("/sql", http.StatusNotFound)

		// The API and SQL change the same rows.
		made := g.create(route{Path: "/api", TargetURL: one})
		execSQL(t, db, `UPDATE routes SET path = '/moved' WHERE path = '/api'`)
		g.waitBody("/moved", "one")
		if got := g.get(made.ID); got.Path != "/moved" || got.Revision <= made.Revision {
			t.Errorf("after an UPDATE the API shows %+v, was %+v", got, made)
		}
		g.remove(made.ID)
		if a := g.send(http.MethodGet, "/moved"); a.status != http.StatusNotFound {
			t.Errorf("a deleted route answers %s", a)
		}
	})
}

func sqlFalse(dsn string) string {
	if strings.HasPrefix(dsn, "sqlite") {
		return "0"
	}
	return "false"
}

func TestOneBadRowAmongMany(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, dsn string) {
		const rows, bad = 10_000, 4321
		g := startGateway(t, settings{dsn: dsn})
		db := openSQL(t, dsn)
		target := textUpstream(t, "many")
		// One statement of one transaction: it becomes visible at once, whole.
		execSQL(t, db, fmt.Sprintf(`
			WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
			INSERT INTO routes (path, target_url)
			SELECT CASE i WHEN %d THEN '/bad/{never' ELSE '/many/' || i END, '%s' FROM n`, rows, bad, target))
		h := g.waitHealth("all rows are loaded", func(status int, h health) bool {
			return h.Status == "degraded" && status == http.StatusOK
		})
		if len(h.Reasons) != 1 || !strings.Contains(h.Reasons[0], "1 route") {
			t.Errorf("the reasons are %q", h.Reasons)
		}

		served := 0
		for _, r := range g.list("") {
			switch {
			case strings.HasPrefix(r.Path, "/many/") && r.Error == "":
				served++
			case r.Path == "/bad/{never" && r.Error != "":
			default:
				t.Errorf("the list has %+v", r)
			}
		}
		if served != rows-1 {
			t.Errorf("%d routes are served, want %d", served, rows-1)
		}
		for _, i := range []int{1, bad - 1, bad + 1, rows / 2, rows} {
			g.wantBody(fmt.Sprintf("/many/%d", i), "many")
		}
		execSQL(t, db, `UPDATE routes SET path = '/good' WHERE path LIKE '/bad/%'`)
		g.waitBody("/good", "many")
		g.waitHealth("the row is mended", func(_ int, h health) bool { return h.Status == "ok" })
	})
}

func TestManyHostsInAnyCase(t *testing.T) {
	t.Parallel()
	eachStore(t, func(t *testing.T, dsn string) {
		g := startGateway(t, settings{dsn: dsn})
		// More than a hundred: Caddy's own matcher once changed its ways there.
		const hosts = 120
		for i := range hosts {
			name := fmt.Sprintf("ShOp%d.Example.COM", i)
			g.create(route{Host: name, Path: "/", TargetURL: textUpstream(t, strings.ToLower(name))})
		}
		for i := range hosts {
			want := fmt.Sprintf("shop%d.example.com", i)
			for _, spelled := range []string{want, strings.ToUpper(want), fmt.Sprintf("sHOP%d.eXample.com:8080", i)} {
				g.wantBody("/", want, host(spelled))
			}
		}
		a := g.send(http.MethodGet, "/", host("shop120.example.com"))
		wantProblem(t, a, http.StatusNotFound)
	})
}
