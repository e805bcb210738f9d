package api

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"github.com/isekai-gateway/isekai/store"
)

// DefaultActor is the actor of a change that nobody has signed, see WithAuthor.
const DefaultActor = "admin"

type authorKey struct{}

// WithAuthor returns a context whose requests change routes in the name of by. An
// authentication layer around the handler calls it. Without it, the author is
// DefaultActor from the client's address.
func WithAuthor(ctx context.Context, by store.Author) context.Context {
	return context.WithValue(ctx, authorKey{}, by)
}

// author returns who makes the change; guard has seen to it that there is one.
func author(ctx context.Context) store.Author {
	by, _ := ctx.Value(authorKey{}).(store.Author)
	return by
}

// guard is around all of the API: it sets the header fields that all answers have,
// names the author, and turns a panic into an answer.
func (s *server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w := &trackingWriter{ResponseWriter: rw}
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		ctx := r.Context()
		if _, ok := ctx.Value(authorKey{}).(store.Author); !ok {
			ctx = WithAuthor(ctx, store.Author{Actor: DefaultActor, Source: clientAddress(r)})
		}
		defer func() {
			if p := recover(); p != nil {
				s.recovered(w, r, p)
			}
		}()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// recovered ends a request whose handler has panicked. Huma panics too when the
// client has left before it has read the whole answer; that is not worth a line.
func (s *server) recovered(w *trackingWriter, r *http.Request, p any) {
	if p != http.ErrAbortHandler && r.Context().Err() == nil {
		s.cfg.Log().Error("admin API panicked", zap.String("method", r.Method),
			zap.String("path", r.URL.Path), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
	}
	if w.wrote {
		// Half an answer must not look like a whole one.
		panic(http.ErrAbortHandler)
	}
	writeProblem(w, http.StatusInternalServerError, "")
}

// trackingWriter remembers whether the answer has begun.
type trackingWriter struct {
	http.ResponseWriter
	wrote bool
}

func (w *trackingWriter) WriteHeader(status int) {
	w.wrote = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *trackingWriter) Write(p []byte) (int, error) {
	w.wrote = true
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *trackingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// clientAddress returns the client's address without the port, or nothing if the
// request came through a unix socket.
func clientAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return host
}

// strictQuery refuses a query string that the operation would not understand in
// full: a misspelt filter must not list everything, and an option that does not
// exist must not be taken for done.
func strictQuery(api huma.API) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		u := ctx.URL()
		query, err := url.ParseQuery(u.RawQuery)
		if err != nil {
			_ = huma.WriteErr(api, ctx, http.StatusBadRequest, "the query string is malformed")
			return
		}
		if errs := checkQuery(query, ctx.Operation().Parameters); len(errs) > 0 {
			_ = huma.WriteErr(api, ctx, http.StatusUnprocessableEntity, detailInvalid, errs...)
			return
		}
		next(ctx)
	}
}

func checkQuery(query url.Values, params []*huma.Param) []error {
	known := make(map[string]*huma.Param)
	for _, p := range params {
		if p.In == "query" {
			known[p.Name] = p
		}
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(query)) {
		message := ""
		switch p := known[name]; {
		case p == nil && len(known) == 0:
			message = "unknown query parameter; this operation takes none"
		case p == nil:
			message = fmt.Sprintf("unknown query parameter; there are %s", strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		case slices.Contains(query[name], ""):
			message = "must not be empty"
		case len(query[name]) > 1 && !*p.Explode:
			message = "must not be given more than once"
		default:
			continue
		}
		if len(errs) < maxDetails {
			errs = append(errs, &huma.ErrorDetail{Location: (&location{name: "query"}).field(name).String(), Message: message})
		}
	}
	return errs
}

// handleTheRest answers what no operation does: 405 for the paths in doc, else 404.
func handleTheRest(mux *http.ServeMux, doc *huma.OpenAPI) {
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, http.StatusNotFound, "there is nothing at this path; see /api/openapi.json for what there is")
	})
	for path, item := range doc.Paths {
		methods := methodsOf(item)
		allow := strings.Join(methods, ", ")
		refuse := func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", allow)
			writeProblem(w, http.StatusMethodNotAllowed, "this path takes "+allow)
		}
		if !besideParameter(path, doc) {
			mux.HandleFunc(path, refuse)
			continue
		}
		// The mux takes no pattern for all methods here; those of the path with the
		// parameter are what matters.
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			if !slices.Contains(methods, method) {
				mux.HandleFunc(method+" "+path, refuse)
			}
		}
	}
}

// besideParameter reports whether another path of doc has a parameter where this one
// has a word.
func besideParameter(path string, doc *huma.OpenAPI) bool {
	segments := strings.Split(path, "/")
	for other := range doc.Paths {
		same := slices.EqualFunc(segments, strings.Split(other, "/"), func(a, b string) bool {
			return a == b || strings.HasPrefix(b, "{")
		})
		if same && other != path {
			return true
		}
	}
	return false
}

// methodsOf returns the methods of a path in the order of the operations.
func methodsOf(item *huma.PathItem) []string {
	var methods []string
	for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
		if op == nil {
			continue
		}
		methods = append(methods, op.Method)
		if op.Method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
	}
	return methods
}
