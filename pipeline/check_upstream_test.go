package pipeline_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/isekai-gateway/isekai/pipeline"
	"github.com/isekai-gateway/isekai/store"
)

func TestCheckUpstream(t *testing.T) {
	t.Parallel()
	two := `"targets":[{"url":"http://10.0.0.1:80"},{"url":"http://10.0.0.2","weight":3}]`
	even := `"targets":[{"url":"http://10.0.0.1"},{"url":"http://10.0.0.2"}]`
	many := strings.Repeat(`{"url":"http://10.0.0.1"},`, 129)
	tests := []struct {
		name, upstream string
		fields         []string // in order; none: it is accepted
	}{
		{"all at once", `{` + two + `,"policy":"cookie","policy_options":{"name":"sticky","secret":"x","max_age":"1h"},
			"retries":2,"retry":{"methods":["GET","POST"],"statuses":[502,503],"body_max":1000,"backoff":0.5,"budget_percent":10,"budget_min":0},
			"health":{"active":{"path":"/healthz?x=1","method":"HEAD","host":"up:80","headers":{"X-A":"b"},"body":"x","interval":0.5,"timeout":1,"expect_status":204,"expect_body":"^ok","passes":2,"fails":3},
				"passive":{"max_fails":5,"fail_duration":10,"unhealthy_status":[5,429],"unhealthy_latency":2}},
			"circuit_breaker":{"failure_ratio":0.3,"min_requests":5,"window":20,"open_for":3,"probes":1,"statuses":[5],"slow":1.5},
			"timeouts":{"connect":1,"response_header":2,"idle":3}}`, nil},
		{"empty objects", `{"health":{"active":{},"passive":{}},"circuit_breaker":{},"retry":{},"timeouts":{}}`, nil},

		{"another scheme", `{"targets":[{"url":"https://10.0.0.1"}]}`, []string{"upstream.targets[0].url"}},
		{"h2c beside http", `{"targets":[{"url":"h2c://10.0.0.1"}]}`, []string{"upstream.targets[0].url"}},
		{"path", `{"targets":[{"url":"http://10.0.0.1"},{"url":"http://10.0.0.2/a"}]}`, []string{"upstream.targets[1].url"}},
		{"no URL", `{"targets":[{"url":"10.0.0.1"}]}`, []string{"upstream.targets[0].url"}},
		{"placeholder", `{"targets":[{"url":"http://{http.request.host}"}]}`, []string{"upstream.targets[0].url"}},
		{"the same twice", `{"targets":[{"url":"http://10.0.0.1"},{"url":"http://10.0.0.1:80"}]}`, []string{"upstream.targets[1].url"}},
		{"refused address", `{"targets":[{"url":"http://169.254.169.254"}]}`, []string{"upstream.targets[0].url"}},
		{"weights", `{"targets":[{"url":"http://10.0.0.1","weight":-1},{"url":"http://10.0.0.2","weight":1001}]}`, []string{"upstream.targets[0].weight", "upstream.targets[1].weight"}},
		{"no weight", `{"targets":[{"url":"http://10.0.0.1","weight":0}]}`, []string{"upstream.targets"}},
		{"max_requests", `{"targets":[{"url":"http://10.0.0.1","max_requests":-1}]}`, []string{"upstream.targets[0].max_requests"}},
		{"too many targets", `{"targets":[` + many[:len(many)-1] + `]}`, []string{"upstream.targets"}},

		{"unknown policy", `{"policy":"best"}`, []string{"upstream.policy"}},
		{"module's own policy", `{"policy":"isekai_weighted"}`, []string{"upstream.policy"}},
		{"policy that can't weigh", `{` + two + `,"policy":"least_conn"}`, []string{"upstream.policy"}},
		{"policy that can't weigh, even weights", `{` + even + `,"policy":"least_conn"}`, nil},
		{"header", `{"policy":"header","policy_options":{"field":"X-User","fallback":{"policy":"query","key":"user"}}}`, nil},
		{"header without field", `{"policy":"header"}`, []string{"upstream.policy_options.field"}},
		{"header with a placeholder", `{"policy":"header","policy_options":{"field":"{env.X}"}}`, []string{"upstream.policy_options.field", "upstream.policy_options"}},
		{"query without key", `{"policy":"query","policy_options":{}}`, []string{"upstream.policy_options.key"}},
		{"cookie name", `{"policy":"cookie","policy_options":{"name":"a b"}}`, []string{"upstream.policy_options.name"}},
		{"cookie age", `{"policy":"cookie","policy_options":{"max_age":-1}}`, []string{"upstream.policy_options.max_age"}},
		{"choose", `{"policy":"random_choose","policy_options":{"choose":1}}`, []string{"upstream.policy_options.choose"}},
		{"ill-typed option", `{"policy":"random_choose","policy_options":{"choose":"two"}}`, []string{"upstream.policy_options"}},
		{"unknown option", `{"policy":"random","policy_options":{"seed":1}}`, []string{"upstream.policy_options.seed"}},
		{"option of another policy", `{"policy":"first","policy_options":{"field":"X"}}`, []string{"upstream.policy_options.field"}},
		{"no object", `{"policy":"cookie","policy_options":["x"]}`, []string{"upstream.policy_options"}},
		{"unknown fallback", `{"policy":"cookie","policy_options":{"fallback":{"policy":"x"}}}`, []string{"upstream.policy_options.fallback.policy"}},
		{"secret of a fallback", `{"policy":"header","policy_options":{"field":"X","fallback":{"policy":"cookie","secret":"x"}}}`, []string{"upstream.policy_options.fallback.secret"}},
		{"bad fallback", `{"policy":"cookie","policy_options":{"fallback":{"policy":"header"}}}`, []string{"upstream.policy_options.fallback.field"}},
		{"fallback beside weights", `{` + two + `,"policy":"cookie","policy_options":{"fallback":{"policy":"first"}}}`, []string{"upstream.policy_options.fallback"}},
		{"endless fallbacks", `{"policy":"cookie","policy_options":` + strings.Repeat(`{"policy":"cookie","fallback":`, 10) + `{"policy":"first"}` + strings.Repeat("}", 10) + `}`,
			[]string{"upstream.policy_options.policy", "upstream.policy_options.fallback.fallback.fallback.fallback.fallback"}},

		{"retries", `{"retries":11}`, []string{"upstream.retries"}},
		{"retry", `{"retry":{"methods":["get"],"statuses":[503,200],"body_max":-1,"backoff":-1,"budget_percent":101,"budget_min":-1}}`,
			[]string{"upstream.retry.methods[0]", "upstream.retry.statuses[1]", "upstream.retry.body_max", "upstream.retry.backoff", "upstream.retry.budget_percent", "upstream.retry.budget_min"}},
		{"body to keep is too large", `{"retry":{"body_max":1048577}}`, []string{"upstream.retry.body_max"}},

		{"active check", `{"health":{"active":{"path":"healthz","method":"get","host":"a b","headers":{"A B":"x","Host":"x","X-A":"a\nb"},"interval":-1,"timeout":90000,"expect_status":6,"expect_body":"(","passes":-1,"fails":-1}}}`,
			[]string{"upstream.health.active.path", "upstream.health.active.method", "upstream.health.active.host",
				"upstream.health.active.headers.A B", "upstream.health.active.headers.Host", "upstream.health.active.headers.X-A",
				"upstream.health.active.interval", "upstream.health.active.timeout", "upstream.health.active.expect_status", "upstream.health.active.expect_body",
				"upstream.health.active.passes", "upstream.health.active.fails"}},
		{"active check elsewhere", `{"health":{"active":{"path":"//evil/x"}}}`, []string{"upstream.health.active.path"}},
		{"secrets in an active check", `{"health":{"active":{"body":"{env.X}","headers":{"X-A":"{file./etc/passwd}"}}}}`,
			[]string{"upstream.health.active.body", "upstream.health.active.headers.X-A"}},
		{"passive check", `{"health":{"passive":{"max_fails":-1,"fail_duration":-1,"unhealthy_status":[0,600],"unhealthy_latency":-1}}}`,
			[]string{"upstream.health.passive.max_fails", "upstream.health.passive.fail_duration", "upstream.health.passive.unhealthy_latency",
				"upstream.health.passive.unhealthy_status[0]", "upstream.health.passive.unhealthy_status[1]"}},
		{"breaker", `{"circuit_breaker":{"failure_ratio":1.1,"min_requests":-1,"window":-1,"open_for":0.0001,"probes":-1,"statuses":[99],"slow":-1}}`,
			[]string{"upstream.circuit_breaker.failure_ratio", "upstream.circuit_breaker.min_requests", "upstream.circuit_breaker.probes", "upstream.circuit_breaker.window",
				"upstream.circuit_breaker.open_for", "upstream.circuit_breaker.slow", "upstream.circuit_breaker.statuses[0]"}},
		{"timeouts", `{"timeouts":{"connect":-1,"response_header":86401,"idle":-1}}`,
			[]string{"upstream.timeouts.connect", "upstream.timeouts.response_header", "upstream.timeouts.idle"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			row := store.NewRoute("/a", "http://10.0.0.5")
			if err := json.Unmarshal(fmt.Appendf(nil, `{"upstream":%s}`, tt.upstream), row); err != nil {
				t.Fatal(err)
			}
			wantFields(t, pipeline.Check(row, nil, nil, nil), tt.fields)
		})
	}
}
