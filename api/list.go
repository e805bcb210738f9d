package api

import (
	"context"
	"encoding/base64"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

type (
	listInput struct {
		Limit   int          `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"The most routes in one answer."`
		Cursor  string       `query:"cursor" doc:"Where to go on: \"next\" of the answer before."`
		Host    string       `query:"host" doc:"Only routes with exactly this host, in any case." example:"api.example.com"`
		Path    string       `query:"path" doc:"Only routes whose path pattern begins with this text." example:"/orders"`
		Method  string       `query:"method" doc:"Only routes that name this method, or all methods. With *: only those for all." example:"GET"`
		Enabled optionalBool `query:"enabled" doc:"Only routes that are enabled, or that are not."`
		Label   []string     `query:"label,explode" nullable:"false" doc:"Only routes with this label: key, or key=value. Can be repeated: all must be there." example:"team=shop"`
		Query   string       `query:"q" doc:"Only routes with this text, in any case, in their name, host, path or target_url."`
	}
	listOutput struct {
		Body routePage
	}
	routePage struct {
		Items []*route `json:"items" doc:"The routes, by id."`
		Next  string   `json:"next,omitempty" doc:"The cursor of the next page. Absent at the end."`
	}
)

// list answers from the table, so that it does not wait for the store.
func (s *server) list(_ context.Context, in *listInput) (*listOutput, error) {
	after, ok := parseCursor(in.Cursor)
	if !ok {
		return nil, badCursor()
	}
	table := s.cfg.Gateway.Table()
	if table == nil {
		return nil, gateway.ErrNotReady
	}
	matches := in.filter()
	page := routePage{Items: make([]*route, 0, in.Limit)}
	last := after
	for compiled := range table.RoutesAfter(after) {
		if !matches(compiled) {
			continue
		}
		if len(page.Items) == in.Limit {
			page.Next = cursor(last)
			break
		}
		page.Items = append(page.Items, newRoute(compiled.Row(), compiled.Problem(), nil))
		last = compiled.ID
	}
	return &listOutput{Body: page}, nil
}

// filter returns whether a route is asked for. It puts together whole rows only if it has to.
func (in *listInput) filter() func(*routing.Route) bool {
	method := strings.ToUpper(in.Method)
	text := strings.ToLower(in.Query)
	return func(r *routing.Route) bool {
		return (in.Host == "" || strings.EqualFold(r.Host(), in.Host)) &&
			(in.Path == "" || strings.HasPrefix(r.Path(), in.Path)) &&
			(!in.Enabled.IsSet || r.Enabled() == in.Enabled.Value) &&
			hasLabels(r.Spec().Labels, in.Label) &&
			(method == "" || namesMethod(r.Row().Method, method)) &&
			(text == "" || hasText(r.Row(), text))
	}
}

// hasText reports whether a row has a text, which is in lower case.
func hasText(row *store.Route, text string) bool {
	return slices.ContainsFunc([]string{row.Name, row.Host, row.Path, row.TargetURL}, func(s string) bool {
		return strings.Contains(strings.ToLower(s), text)
	})
}

// namesMethod reports whether a route's methods include the one asked for. It reads
// the row rather than the compiled route, which broken rows don't have.
func namesMethod(methods, asked string) bool {
	for name := range strings.SplitSeq(methods, ",") {
		if name = strings.ToUpper(strings.TrimSpace(name)); name == asked || name == "*" {
			return true
		}
	}
	return false
}

func hasLabels(labels map[string]string, asked []string) bool {
	for _, a := range asked {
		key, value, withValue := strings.Cut(a, "=")
		if has, ok := labels[key]; !ok || withValue && has != value {
			return false
		}
	}
	return true
}

// Of the cursors of lists by ascending and by descending numbers.
const (
	afterPrefix  = "after:"
	beforePrefix = "before:"
)

// cursor returns the text that stands for all routes beyond an id.
func cursor(id int64) string { return numberCursor(afterPrefix, id) }

// parseCursor is the reverse of cursor. No cursor is the beginning. Ids have 32 bits in
// the store, which can't even be asked for others.
func parseCursor(text string) (after int64, ok bool) {
	after, ok = parseNumberCursor(afterPrefix, text)
	return after, ok && after <= math.MaxInt32
}

func numberCursor(prefix string, number int64) string {
	return base64.RawURLEncoding.EncodeToString([]byte(prefix + strconv.FormatInt(number, 10)))
}

func parseNumberCursor(prefix, text string) (number int64, ok bool) {
	if text == "" {
		return 0, true
	}
	plain, err := base64.RawURLEncoding.DecodeString(text)
	digits, ok := strings.CutPrefix(string(plain), prefix)
	if err != nil || !ok {
		return 0, false
	}
	number, err = strconv.ParseInt(digits, 10, 64)
	return number, err == nil && number > 0
}

// badCursor refuses a cursor that no list has given.
func badCursor() error {
	return invalid([]*huma.ErrorDetail{{Location: "query.cursor", Message: "is not a cursor of this list"}})
}

// optionalBool is a query parameter that may be absent.
type optionalBool struct {
	Value bool
	IsSet bool
}

// Schema implements huma.SchemaProvider.
func (optionalBool) Schema(r huma.Registry) *huma.Schema {
	return huma.SchemaFromType(r, reflect.TypeFor[bool]())
}

// Receiver implements huma.ParamWrapper.
func (o *optionalBool) Receiver() reflect.Value { return reflect.ValueOf(o).Elem().Field(0) }

// OnParamSet implements huma.ParamReactor.
func (o *optionalBool) OnParamSet(isSet bool, _ any) { o.IsSet = isSet }
