package api

import (
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/isekai-gateway/isekai/ratelimit"
)

var consumerFields = map[string]field{
	"id":         {doc: "The consumer's number, assigned by the store and never used again.", example: int64(1), required: true, readOnly: true},
	"name":       {doc: "A unique name, which logs and upstreams see: 1 to 100 letters, digits or any of _-.@:", example: "shop", required: true, maxLength: 100},
	"enabled":    {doc: "Whether the consumer's keys are accepted. Default: true.", byDefault: true},
	"labels":     {doc: "Labels for people. Default: none.", example: map[string]string{"tier": "gold"}, maxLength: 200, maxCount: 64},
	"groups":     {doc: "The groups that the consumer is in, which a route's auth.groups names; the same characters as a name. Default: none.", example: []string{"mobile"}, maxLength: 100, maxCount: 64},
	"rate_limit": {doc: "Requests admitted per window over all routes together, beside the routes' own limits; 0 for no limit. Default: 0.", byDefault: 0, example: 1000, max: ratelimit.MaxLimit},
	"window":     {doc: "The window of rate_limit in seconds. Default: 60.", byDefault: 60, min: 1, max: float64(ratelimit.MaxWindow / time.Second)},
	"revision":   {doc: "The number of the last change to this consumer.", example: int64(1), required: true, readOnly: true},
	"created_at": {doc: "When the consumer was made, in UTC.", required: true, readOnly: true},
	"updated_at": {doc: "When the consumer was last changed, in UTC.", required: true, readOnly: true},
	"error":      {doc: "Why none of the consumer's keys is accepted, after it was written by SQL. Absent if all is well.", readOnly: true},
}

// TransformSchema implements huma.SchemaTransformer.
func (consumer) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	describe(s, consumerFields)
	return s
}
