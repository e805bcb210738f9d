package deploytest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

// checkNames fails the test for each metric of the expression that is not in known, and
// each label that none of the expression's metrics has.
func checkNames(t *testing.T, expr string, known map[string]map[string]bool) {
	t.Helper()
	parsed, err := promqlParser.ParseExpr(expr)
	if err != nil {
		t.Errorf("%s: %v", expr, err)
		return
	}
	for _, problem := range unknownNames(parsed, known) {
		t.Errorf("%s: %s", expr, problem)
	}
}

func unknownNames(expr parser.Node, known map[string]map[string]bool) (problems []string) {
	has := func(n parser.Node, label string) bool { return slices.Contains(labelsOf(n, known), label) }
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			if known[n.Name] == nil {
				problems = append(problems, fmt.Sprintf("there is no metric %q", n.Name))
				return nil
			}
			for _, m := range n.LabelMatchers {
				if !known[n.Name][m.Name] {
					problems = append(problems, fmt.Sprintf("%s has no label %q", n.Name, m.Name))
				}
			}
		case *parser.AggregateExpr:
			for _, label := range n.Grouping {
				if !has(n.Expr, label) {
					problems = append(problems, fmt.Sprintf("%s has no label %q", n.Expr, label))
				}
			}
		case *parser.BinaryExpr:
			if n.VectorMatching == nil {
				return nil
			}
			for _, side := range []parser.Expr{n.LHS, n.RHS} {
				for _, label := range n.VectorMatching.MatchingLabels {
					if !has(side, label) {
						problems = append(problems, fmt.Sprintf("%s has no label %q", side, label))
					}
				}
			}
			for _, label := range n.VectorMatching.Include {
				if !has(n.RHS, label) {
					problems = append(problems, fmt.Sprintf("%s has no label %q", n.RHS, label))
				}
			}
		}
		return nil
	})
	return problems
}

// labelsOf returns the labels that a node's series can have.
func labelsOf(node parser.Node, known map[string]map[string]bool) []string {
	var found []string
	switch n := node.(type) {
	case *parser.VectorSelector:
		for label := range known[n.Name] {
			found = append(found, label)
		}
		return found
	case *parser.AggregateExpr:
		if n.Op == parser.TOPK || n.Op == parser.BOTTOMK {
			return labelsOf(n.Expr, known)
		}
		if !n.Without {
			return n.Grouping
		}
	case *parser.Call:
		if n.Func.Name == "label_replace" {
			if dst, ok := n.Args[1].(*parser.StringLiteral); ok {
				found = append(found, dst.Val)
			}
		}
	}
	for _, child := range parser.Children(node) {
		found = append(found, labelsOf(child, known)...)
	}
	return slices.DeleteFunc(found, func(l string) bool { return l == model.MetricNameLabel })
}

// TestUnknownNames makes sure that the check finds what it is for.
func TestUnknownNames(t *testing.T) {
	t.Parallel()
	known := map[string]map[string]bool{
		"requests": {"__name__": true, "route": true, "code": true}, "info": {"__name__": true, "route": true, "name": true},
	}
	for expr, want := range map[string]int{
		`sum by (route) (rate(requests{code=~"5.."}[5m]))`:                         0,
		`sum by (class) (label_replace(requests, "class", "$1", "code", "(.).."))`: 0,
		`sum by (route) (requests) * on (route) group_left (name) info`:            0,
		`rate(request[5m])`:                                              1,
		`rate(requests{status="500"}[5m])`:                               1,
		`sum by (instance) (requests)`:                                   1,
		`sum by (code) (sum by (route) (requests))`:                      1,
		`sum by (route) (requests) * on (route, code) info`:              2,
		`sum by (route) (requests) * on (route) group_left (title) info`: 1,
	} {
		parsed, err := promqlParser.ParseExpr(expr)
		if err != nil {
			t.Fatal(err)
		}
		if got := unknownNames(parsed, known); len(got) != want {
			t.Errorf("%s: %q", expr, got)
		}
	}
}
