package api

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

const schemaPrefix = "#/components/schemas/"

const apiDescription = "Manages the routes of an Isekai gateway. Every error is application/problem+json (RFC 9457); a 422 names each field that is wrong. " +
	"Every route has an ETag, which If-Match makes a change conditional on."

// newHuma returns huma without what it adds on its own: no documentation page from
// somewhere else, no $schema in bodies, no formats that other packages register.
func newHuma(mux *http.ServeMux, version string) huma.API {
	return humago.New(mux, huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title:       "Isekai admin API",
				Version:     version,
				Description: apiDescription,
				License:     &huma.License{Name: "MIT", Identifier: "MIT"},
			},
			Components: &huma.Components{Schemas: huma.NewMapRegistry(schemaPrefix, schemaName)},
		},
		Formats:       map[string]huma.Format{mediaJSON: huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat: mediaJSON,
	})
}

// schemaName names the component of a type.
func schemaName(t reflect.Type, hint string) string {
	switch name := huma.DefaultSchemaNamer(t, hint); name {
	case "ErrorModel":
		return "Problem"
	case "ErrorDetail":
		return "ProblemDetail"
	default:
		return name
	}
}

type openAPIOutput struct {
	ContentType string `header:"Content-Type" hidden:"true"`
	Body        []byte
}

func (s *server) registerOpenAPI(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "openapi", Method: http.MethodGet, Path: "/api/openapi.json", Tags: []string{"status"},
		Summary: "Read this document",
		Errors:  []int{400, 422},
		Responses: map[string]*huma.Response{"200": {
			Description: "An OpenAPI 3.1 document",
			Content:     map[string]*huma.MediaType{mediaJSON: {Schema: &huma.Schema{Type: huma.TypeObject}}},
		}},
	}, func(context.Context, *struct{}) (*openAPIOutput, error) {
		return &openAPIOutput{ContentType: mediaJSON, Body: s.openapi}, nil
	})
}

// completeOpenAPI adds to the document what huma can't derive, and marshals it. The
// checkers use the same schemas, so the document can't promise anything else.
func (s *server) completeOpenAPI(doc *huma.OpenAPI) {
	schemas := doc.Components.Schemas
	whole := schemas.Schema(reflect.TypeFor[route](), true, "")
	conflict := schemas.Schema(reflect.TypeFor[conflictProblem](), true, "")
	for _, schema := range schemas.Map() {
		neverNull(schema)
	}
	patch := patchOf(schemas, whole)
	patch.Description = "A JSON merge patch for a Route. null resets a field to its default, or removes it from a map."
	schemas.Map()["RoutePatch"] = patch
	s.route = checker{schemas: schemas, schema: schemas.SchemaFromRef(whole.Ref)}
	s.patch = checker{schemas: schemas, schema: patch}

	notApplied := schemas.Schema(reflect.TypeFor[notAppliedProblem](), true, "")
	neverNull(schemas.SchemaFromRef(notApplied.Ref))
	for _, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Post, item.Put, item.Patch, item.Delete} {
			if op != nil && op.Responses["504"] != nil {
				op.Responses["504"] = &huma.Response{
					Description: "The change is committed, but not served by every live replica within the timeout. Do not repeat it.",
					Content:     map[string]*huma.MediaType{"application/problem+json": {Schema: notApplied}},
				}
			}
		}
	}

	s.completeConsumers(doc)
	s.completeBulk(doc, whole)

	many, one := doc.Paths["/api/routes"], doc.Paths["/api/routes/{id}"]
	many.Post.RequestBody = body(whole, mediaJSON)
	one.Put.RequestBody = body(whole, mediaJSON)
	one.Patch.RequestBody = body(&huma.Schema{Ref: schemaPrefix + "RoutePatch"}, mediaMerge, mediaJSON)
	for _, op := range []*huma.Operation{many.Post, one.Put, one.Patch} {
		op.Responses["409"] = &huma.Response{
			Description: "Another route matches exactly the same requests, or another writer has changed the route meanwhile",
			Content:     map[string]*huma.MediaType{"application/problem+json": {Schema: conflict}},
		}
	}
	one.Get.Responses["304"] = &huma.Response{Description: "The client has this version", Headers: one.Get.Responses["200"].Headers}

	var err error
	if s.openapi, err = json.Marshal(doc); err != nil {
		// The document is made of constants and types: this is a bug, which every
		// test of this package would show.
		panic(fmt.Errorf("encoding OpenAPI document: %w", err))
	}
}

// completeConsumers is completeOpenAPI for consumers, keys and tokens.
func (s *server) completeConsumers(doc *huma.OpenAPI) {
	schemas := doc.Components.Schemas
	checkerOf := func(t reflect.Type) (whole, patch checker) {
		ref := schemas.Schema(t, true, "")
		schema := schemas.SchemaFromRef(ref.Ref)
		neverNull(schema)
		changes := patchOf(schemas, schema)
		return checker{schemas, schema}, checker{schemas, changes}
	}
	s.consumer, s.consumerPatch = checkerOf(reflect.TypeFor[consumer]())
	s.key, s.keyPatch = checkerOf(reflect.TypeFor[keyRequest]())
	s.token, _ = checkerOf(reflect.TypeFor[tokenRequest]())
	for name, patch := range map[string]checker{"Consumer": s.consumerPatch, "Key": s.keyPatch} {
		patch.schema.Description = "A JSON merge patch. null resets a field to its default."
		schemas.Map()[name+"Patch"] = patch.schema
	}

	ref := func(name string) *huma.Schema { return &huma.Schema{Ref: schemaPrefix + name} }
	one := doc.Paths[consumerPath]
	doc.Paths[consumersPath].Post.RequestBody = body(ref("Consumer"), mediaJSON)
	one.Put.RequestBody = body(ref("Consumer"), mediaJSON)
	one.Patch.RequestBody = body(ref("ConsumerPatch"), mediaMerge, mediaJSON)
	one.Get.Responses["304"] = &huma.Response{Description: "The client has this version", Headers: one.Get.Responses["200"].Headers}
	keys := doc.Paths[consumerPath+"/keys"]
	keys.Post.RequestBody = body(ref("KeyRequest"), mediaJSON)
	keys.Post.RequestBody.Required = false
	doc.Paths[consumerPath+"/keys/{key}"].Patch.RequestBody = body(ref("KeyPatch"), mediaMerge, mediaJSON)
	doc.Paths[tokensPath].Post.RequestBody = body(ref("TokenRequest"), mediaJSON)
}

// completeBulk is completeOpenAPI for batches and whole documents.
func (s *server) completeBulk(doc *huma.OpenAPI, route *huma.Schema) {
	schemas := doc.Components.Schemas
	batch := schemas.Schema(reflect.TypeFor[batchRequest](), true, "")
	s.batches = checker{schemas: schemas, schema: schemas.SchemaFromRef(batch.Ref)}
	neverNull(s.batches.schema)
	inDocument := *schemas.SchemaFromRef(route.Ref)
	inDocument.Description = "A Route without what only the server writes."
	inDocument.Properties = maps.Clone(inDocument.Properties)
	maps.DeleteFunc(inDocument.Properties, func(_ string, field *huma.Schema) bool { return field.ReadOnly })
	inDocument.Required = slices.DeleteFunc(slices.Clone(inDocument.Required), func(name string) bool { return inDocument.Properties[name] == nil })
	schemas.Map()["ConfigRoute"] = &inDocument
	schemas.Map()["Config"] = &huma.Schema{
		Type: huma.TypeObject, Description: "All routes.",
		Properties: map[string]*huma.Schema{"routes": {
			Type: huma.TypeArray, Items: &huma.Schema{Ref: schemaPrefix + "ConfigRoute"}, Description: "The routes, by host, path, method, priority, predicates and name.",
		}},
		Required: []string{"routes"}, AdditionalProperties: false,
	}
	whole := &huma.Schema{Ref: schemaPrefix + "Config"}
	doc.Paths["/api/routes/batch"].Post.RequestBody = body(batch, mediaJSON)
	config := doc.Paths["/api/config"]
	config.Put.RequestBody = body(whole, mediaJSON, mediaYAML)
	config.Get.Responses["304"] = &huma.Response{Description: "The client has this version", Headers: config.Get.Responses["200"].Headers}
	doc.Paths["/api/routes/{id}/restore"].Post.Responses["409"] = &huma.Response{
		Description: "The route is not deleted, or another one has its place",
		Content: map[string]*huma.MediaType{"application/problem+json": {
			Schema: schemas.Schema(reflect.TypeFor[conflictProblem](), true, ""),
		}},
	}
}

func body(schema *huma.Schema, mediaTypes ...string) *huma.RequestBody {
	content := make(map[string]*huma.MediaType, len(mediaTypes))
	for _, media := range mediaTypes {
		content[media] = &huma.MediaType{Schema: schema}
	}
	return &huma.RequestBody{Required: true, Content: content}
}

// neverNull takes back that arrays may be null, which huma assumes unless a global
// variable of its is changed. Ours are empty or absent.
func neverNull(s *huma.Schema) {
	if s.Type == huma.TypeArray {
		s.Nullable = false
		neverNull(s.Items)
	}
	for _, field := range s.Properties {
		neverNull(field)
	}
}

// patchOf returns the schema of a merge patch for s: the fields that a client may
// write, none of them required and each of them nullable, at any depth.
func patchOf(schemas huma.Registry, s *huma.Schema) *huma.Schema {
	for s.Ref != "" {
		s = schemas.SchemaFromRef(s.Ref)
	}
	patch := *s
	patch.Required, patch.Default, patch.Examples = nil, nil, nil
	patch.Properties = maps.Clone(s.Properties)
	for name, field := range s.Properties {
		if field.ReadOnly {
			continue
		}
		nullable := patchOf(schemas, field)
		nullable.Nullable = nullable.Type != ""
		if nullable.Enum != nil {
			nullable.Enum = append(slices.Clip(nullable.Enum), nil)
		}
		if field.Description != "" {
			nullable.Description = field.Description
		}
		patch.Properties[name] = nullable
	}
	if values, ok := s.AdditionalProperties.(*huma.Schema); ok {
		nullable := *values
		nullable.Nullable = true
		patch.AdditionalProperties = &nullable
	}
	return &patch
}
