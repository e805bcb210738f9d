package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/isekai-gateway/isekai/gateway"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

const mediaYAML = "application/yaml"

// configMedia are the media types of a document. The old names of YAML are understood
// and never sent.
var configMedia = []string{mediaJSON, mediaYAML, "application/x-yaml", "text/yaml"}

type (
	// config is the whole document.
	config struct {
		Routes []configRoute `json:"routes" doc:"All routes, by host, path, method, priority, predicates and name."`
	}
	// configRoute is a route in it: what a client may write, in a fixed order.
	configRoute struct {
		Name      string `json:"name,omitempty"`
		Host      string `json:"host,omitempty"`
		Path      string `json:"path"`
		Method    string `json:"method"`
		TargetURL string `json:"target_url"`
		Enabled   bool   `json:"enabled"`
		RateLimit int    `json:"rate_limit"`
		Timeout   int    `json:"timeout"`
		Priority  int    `json:"priority"`
		store.Spec
	}
	getConfigInput struct {
		Revision    int64  `query:"revision" minimum:"1" doc:"The routes as they were at this revision. Default: as they are." example:"42"`
		Format      string `query:"format" enum:"json,yaml" doc:"How to write the document. Default: yaml if Accept names it, else json."`
		Accept      string `header:"Accept" doc:"application/yaml for YAML."`
		IfNoneMatch string `header:"If-None-Match" doc:"Entity tags that the client has. If one is the document's, the answer is 304."`
	}
	getConfigOutput struct {
		Status      int
		ContentType string `header:"Content-Type" hidden:"true"`
		ETag        string `header:"ETag" doc:"The revision, for If-Match and If-None-Match."`
		Vary        string `header:"Vary" doc:"Accept."`
		Body        []byte
	}
	putConfigInput struct {
		DryRun  bool    `query:"dry_run" doc:"Only check, and tell what would be done."`
		Prune   bool    `query:"prune" default:"true" doc:"Whether routes that the document does not have are deleted."`
		IfMatch ifMatch `header:"If-Match" doc:"Entity tags of the document that may be replaced, or * for any. If it is another: 412."`
		Content requestBody
	}
	configChangeset struct {
		Changeset
		Unchanged int `json:"unchanged" doc:"How many routes of the document are there already as they should be."`
	}
	putConfigOutput struct {
		ETag string `header:"ETag" doc:"The present revision, for If-Match."`
		Body configChangeset
	}
)

func (s *server) registerConfig(api huma.API) {
	const path = "/api/config"
	tags := []string{"config"}
	document := map[string]*huma.MediaType{
		mediaJSON: {Schema: &huma.Schema{Ref: schemaPrefix + "Config"}},
		mediaYAML: {Schema: &huma.Schema{Ref: schemaPrefix + "Config"}},
	}
	register(s, api, huma.Operation{
		OperationID: "get-config", Method: http.MethodGet, Path: path, Tags: tags,
		Summary: "Read all routes as one document",
		Description: "Writes all routes in a stable order, without numbers, times and revisions, so that two documents can be compared line by line. Secrets are ***. " +
			"PUT of it changes nothing. Routes that can't be read, since plain SQL has spoiled them, are left out.",
		Errors:    []int{400, 404, 422, 503},
		Responses: map[string]*huma.Response{"200": {Description: "The document", Content: document}},
	}, s.getConfig)
	registerWrite(s, api, huma.Operation{
		OperationID: "put-config", Method: http.MethodPut, Path: path, Tags: tags,
		Summary: "Put one document in the place of all routes",
		Description: "Makes the routes what the document says, as one revision, or changes nothing and tells all that is wrong. Routes keep their numbers if they are recognized: by name and what they match, by a name that is there once, else by what they match. " +
			"A secret that is *** stays what it is. A document that is there already makes no revision.",
		Errors: []int{400, 408, 409, 412, 413, 415, 422, 503},
	}, s.putConfig)
}

func (s *server) getConfig(ctx context.Context, in *getConfigInput) (*getConfigOutput, error) {
	rows, revision, err := s.rowsAt(ctx, in.Revision)
	if err != nil {
		return nil, err
	}
	out := &getConfigOutput{Status: http.StatusOK, ETag: configTag(revision), Vary: "Accept"}
	if notModified(in.IfNoneMatch, out.ETag) {
		out.Status = http.StatusNotModified
		return out, nil
	}
	out.ContentType = mediaJSON
	if out.Body, err = configDocument(rows); err != nil {
		return nil, err
	}
	if in.Format == "yaml" || in.Format == "" && wantsYAML(in.Accept) {
		out.ContentType = mediaYAML
		if out.Body, err = yamlOf(out.Body); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// rowsAt returns the rows of a revision, 0 for those that are served now.
func (s *server) rowsAt(ctx context.Context, revision int64) ([]*store.Route, int64, error) {
	if revision != 0 {
		rows, err := s.cfg.Gateway.RoutesAt(ctx, revision)
		return rows, revision, err
	}
	table := s.cfg.Gateway.Table()
	if table == nil {
		return nil, 0, gateway.ErrNotReady
	}
	rows := make([]*store.Route, 0, table.Len())
	for row := range table.All() {
		rows = append(rows, row)
	}
	return rows, table.Revision(), nil
}

// configTag is the entity tag of the document at a revision.
func configTag(revision int64) string { return `"` + strconv.FormatInt(revision, 10) + `"` }

// wantsYAML reports whether an Accept names YAML before JSON.
func wantsYAML(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		media, _, err := mime.ParseMediaType(part)
		switch {
		case err != nil:
		case media == mediaJSON:
			return false
		case slices.Contains(configMedia, media):
			return true
		}
	}
	return false
}

// configDocument writes rows as JSON, in a stable order.
func configDocument(rows []*store.Route) ([]byte, error) {
	doc := config{Routes: []configRoute{}}
	rows = slices.DeleteFunc(slices.Clone(rows), func(r *store.Route) bool { return r.DecodeError != "" })
	slices.SortFunc(rows, func(a, b *store.Route) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Method, b.Method),
			cmp.Compare(b.Priority, a.Priority), cmp.Compare(predicates(a), predicates(b)),
			cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	for _, row := range rows {
		row, err := canonicalRow(row.Redacted())
		if err != nil {
			return nil, fmt.Errorf("writing route %d: %w", row.ID, err)
		}
		doc.Routes = append(doc.Routes, configRoute{
			Name: row.Name, Host: row.Host, Path: row.Path, Method: row.Method, TargetURL: row.TargetURL,
			Enabled: row.Enabled, RateLimit: row.RateLimit, Timeout: row.Timeout, Priority: row.Priority, Spec: row.Spec,
		})
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(doc); err != nil {
		return nil, fmt.Errorf("writing the document: %w", err)
	}
	return text.Bytes(), nil
}

// canonicalRow returns the row with what it holds of free JSON in one form, so that
// documents of equal routes are equal.
func canonicalRow(row *store.Route) (*store.Route, error) {
	shown := *row
	var err error
	shown.Plugins = slices.Clone(row.Plugins)
	for i, plugin := range shown.Plugins {
		if shown.Plugins[i], err = gateway.CanonicalJSON(plugin); err != nil {
			return row, err
		}
	}
	if u := row.Upstream; u != nil && len(u.PolicyOptions) > 0 {
		upstream := *u
		if upstream.PolicyOptions, err = gateway.CanonicalJSON(u.PolicyOptions); err != nil {
			return row, err
		}
		shown.Upstream = &upstream
	}
	return &shown, nil
}

func (s *server) putConfig(ctx context.Context, in *putConfigInput) (*putConfigOutput, error) {
	if err := checkMediaType(in.Content.r.Header, configMedia); err != nil {
		return nil, err
	}
	ctx, text, done, err := s.bulkBody(ctx, &in.Content)
	if err != nil {
		return nil, err
	}
	defer done()
	wanted, err := s.readConfig(text, in.Content.r.Header)
	if err != nil {
		return nil, err
	}
	var (
		found     bulkProblems
		unchanged int
		matched   map[int64]int // the routes of the document by the ids of those they are
	)
	rewritten, err := s.cfg.Gateway.Rewrite(ctx, gateway.Rewrite{DryRun: in.DryRun, Plan: func(ctx context.Context, table *routing.Table) (*gateway.Plan, error) {
		if !in.IfMatch.holds(configTag(table.Revision())) {
			return nil, errPrecondition
		}
		plan := new(gateway.Plan)
		found, unchanged, matched = bulkProblems{}, 0, make(map[int64]int)
		olds, others := matchRoutes(table, wanted)
		for i, w := range wanted {
			old := olds[i]
			if old != nil {
				matched[old.ID] = i
			}
			row, err := s.settle(ctx, w, old)
			switch {
			case err != nil:
				if err := found.add(atConfigRoute(i), err); err != nil {
					return nil, err
				}
			case row == nil:
				unchanged++
			default:
				plan.Edits = append(plan.Edits, gateway.Edit{Ref: i, Before: old, After: row})
			}
		}
		if in.Prune {
			for _, row := range others {
				plan.Edits = append(plan.Edits, gateway.Edit{Ref: -1, Before: row})
			}
		}
		plan.Invalid = found.status != 0
		return plan, nil
	}}, author(ctx))
	if err != nil {
		return nil, s.refusedConfig(err, &found, matched)
	}
	set, err := newChangeset(rewritten, in.DryRun)
	if err != nil {
		return nil, err
	}
	return &putConfigOutput{ETag: configTag(set.Revision), Body: configChangeset{Changeset: *set, Unchanged: unchanged}}, nil
}

func atConfigRoute(i int) string { return fmt.Sprintf("body.routes[%d]", i) }

// refusedConfig is refused for a document: a conflict with a route that stands in it
// names that, and all that is wrong with a document is a 422.
func (s *server) refusedConfig(err error, found *bulkProblems, matched map[int64]int) error {
	var refused *gateway.RefusedError
	if !errors.As(err, &refused) {
		return err
	}
	for i, problem := range refused.Problems {
		var conflict *store.ConflictError
		if errors.As(problem.Err, &conflict) && !problem.HasWith {
			if with, ok := matched[conflict.ID]; ok {
				refused.Problems[i].With, refused.Problems[i].HasWith = with, true
			}
		}
	}
	err = s.refused(err, found, atConfigRoute)
	if model, ok := errors.AsType[*huma.ErrorModel](err); ok {
		model.Status, model.Title = http.StatusUnprocessableEntity, http.StatusText(http.StatusUnprocessableEntity)
	}
	return err
}

// readConfig parses a document and compares it with the schema.
func (s *server) readConfig(text []byte, header http.Header) ([]*wantedRoute, error) {
	media, _, _ := mime.ParseMediaType(header.Get("Content-Type")) // which was checked
	parse := parseYAML
	if media == mediaJSON {
		parse = parseJSON
	}
	value, err := parsed(parse(text))
	if err != nil {
		return nil, err
	}
	doc, ok := value.(map[string]any)
	if !ok {
		return nil, invalid([]*huma.ErrorDetail{{Location: "body", Message: "must be an object with the field routes"}})
	}
	var details []*huma.ErrorDetail
	items, isList := doc["routes"].([]any)
	_, there := doc["routes"]
	switch {
	case !there:
		details = append(details, &huma.ErrorDetail{Location: "body.routes", Message: "is required; for no routes at all write an empty list"})
	case !isList:
		details = append(details, &huma.ErrorDetail{Location: "body.routes", Message: "must be an array"})
	}
	for name := range doc {
		if name != "routes" && len(details) < maxDetails {
			details = append(details, &huma.ErrorDetail{Location: (&location{name: "body"}).field(name).String(), Message: "unknown field"})
		}
	}
	if len(details) > 0 {
		return nil, invalid(details)
	}
	wanted := make([]*wantedRoute, len(items))
	for i, item := range items {
		doc, ok := item.(map[string]any)
		if !ok {
			wanted[i] = &wantedRoute{rough: store.NewRoute("", ""), details: []*huma.ErrorDetail{{Location: "body", Message: "must be an object"}}}
			continue
		}
		if wanted[i], err = s.newWantedRoute(doc); err != nil {
			return nil, err
		}
	}
	return wanted, nil
}
