package e2e_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/isekai-gateway/isekai/internal/certtest"
)

// panicLogger makes the interop cases, which end the process when they fail,
// panic instead.
type panicLogger struct{ grpclog.LoggerV2 }

func (panicLogger) Fatal(args ...any)                 { panic(fmt.Sprint(args...)) }
func (panicLogger) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (panicLogger) Fatalln(args ...any)               { panic(fmt.Sprintln(args...)) }

func init() {
	grpclog.SetLoggerV2(panicLogger{grpclog.NewLoggerV2(nullWriter{}, nullWriter{}, os.Stderr)})
}

type nullWriter struct{}

func (nullWriter) Write(p []byte) (int, error) { return len(p), nil }

// TestGRPC runs gRPC's interoperability cases from a client with TLS to an
// upstream without.
func TestGRPC(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{sites: tlsSite})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	second, three := 1, 3
	g.create(route{Path: "/*", Method: "POST", TargetURL: "h2c://" + l.Addr().String()})
	g.create(route{Path: "/down.Service/*", Method: "POST", TargetURL: fmt.Sprintf("h2c://127.0.0.1:%d", freePort(t))})
	g.create(route{Path: "/silent.Service/*", Method: "POST", TargetURL: "h2c://" + rawUpstream(t, silence), Timeout: &second})
	g.waitCertificate("localhost")

	conn, err := grpc.NewClient("passthrough:///"+g.https, grpc.WithTransportCredentials(credentials.NewTLS(g.trust("localhost"))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	client := testgrpc.NewTestServiceClient(conn)
	unimplemented := testgrpc.NewUnimplementedServiceClient(conn)
	// Not among them is the timeout of one millisecond: the server resets the
	// stream at the same moment as the client gives up, and either may win.
	for name, run := range map[string]func(context.Context){
		"empty unary":                 func(ctx context.Context) { interop.DoEmptyUnaryCall(ctx, client) },
		"large unary":                 func(ctx context.Context) { interop.DoLargeUnaryCall(ctx, client) },
		"client streaming":            func(ctx context.Context) { interop.DoClientStreaming(ctx, client) },
		"server streaming":            func(ctx context.Context) { interop.DoServerStreaming(ctx, client) },
		"ping pong":                   func(ctx context.Context) { interop.DoPingPong(ctx, client) },
		"empty stream":                func(ctx context.Context) { interop.DoEmptyStream(ctx, client) },
		"cancel after begin":          func(ctx context.Context) { interop.DoCancelAfterBegin(ctx, client) },
		"cancel after first response": func(ctx context.Context) { interop.DoCancelAfterFirstResponse(ctx, client) },
		"custom metadata":             func(ctx context.Context) { interop.DoCustomMetadata(ctx, client) },
		"status code and message":     func(ctx context.Context) { interop.DoStatusCodeAndMessage(ctx, client) },
		"special status message":      func(ctx context.Context) { interop.DoSpecialStatusMessage(ctx, client) },
		"unimplemented method":        func(ctx context.Context) { interop.DoUnimplementedMethod(ctx, conn) },
		"unimplemented service":       func(ctx context.Context) { interop.DoUnimplementedService(ctx, unimplemented) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Lost trailers of failed calls would show in some of the rounds.
			for round := range 10 {
				func() {
					defer func() {
						if p := recover(); p != nil {
							t.Errorf("round %d: %v", round, p)
						}
					}()
					ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
					defer cancel()
					run(ctx)
				}()
			}
		})
	}
	for path, want := range map[string]codes.Code{"/down.Service/Do": codes.Unavailable, "/silent.Service/Do": codes.Unavailable} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
			defer cancel()
			err := conn.Invoke(ctx, path, new(testgrpc.Empty), new(testgrpc.Empty))
			if status.Code(err) != want {
				t.Errorf("the call ended with %v, want %v", err, want)
			}
		})
	}
	t.Run("a stream outlives the timeout", func(t *testing.T) {
		t.Parallel()
		// The other cases call the same method, and have more patience.
		r := g.create(route{
			Path: "/grpc.testing.TestService/FullDuplexCall", Method: "POST", Headers: map[string]string{"X-Hasty": "yes"},
			TargetURL: "h2c://" + l.Addr().String(), Timeout: &three,
		})
		defer g.remove(r.ID)
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), "x-hasty", "yes"), startTimeout)
		defer cancel()
		stream, err := client.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for range 15 {
			if err := stream.Send(&testgrpc.StreamingOutputCallRequest{ResponseParameters: []*testgrpc.ResponseParameters{{Size: 10}}}); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(300 * time.Millisecond)
		}
		if err := stream.CloseSend(); err != nil {
			t.Error(err)
		}
	})
	if a := g.send(http.MethodGet, "/grpc.testing.TestService/EmptyCall"); a.status != http.StatusMethodNotAllowed {
		t.Errorf("a GET is answered %s", a)
	}
}

// TestGRPCErrorsKeepTheirTrailers has unary calls fail, whose answers are nothing
// but a status and trailers.
func TestGRPCErrorsKeepTheirTrailers(t *testing.T) {
	t.Parallel()
	g := startGateway(t, settings{sites: tlsSite})
	servers := certtest.NewAuthority(t, "servers")
	serve := func(options ...grpc.ServerOption) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer(options...)
		testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
		go func() { _ = server.Serve(l) }()
		t.Cleanup(server.Stop)
		return l.Addr().String()
	}
	// The two upstreams are told apart by a header field.
	g.create(route{Path: "/*", Method: "POST", Headers: map[string]string{"X-To": "h2c"}, TargetURL: "h2c://" + serve()})
	certificate := servers.Valid("orders.test").TLS(t)
	g.create(route{
		Path: "/*", Method: "POST", Headers: map[string]string{"X-To": "tls"},
		TargetURL: "https://" + serve(grpc.Creds(credentials.NewServerTLSFromCert(&certificate))),
		Upstream:  &upstreamSettings{TLS: &tlsSettings{CA: servers.PEM, ServerName: "orders.test"}},
	})
	g.waitCertificate("localhost")
	conn, err := grpc.NewClient("passthrough:///"+g.https, grpc.WithTransportCredentials(credentials.NewTLS(g.trust("localhost"))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	client := testgrpc.NewTestServiceClient(conn)
	for _, upstream := range []string{"h2c", "tls"} {
		t.Run(upstream, func(t *testing.T) {
			t.Parallel()
			for round := range 200 {
				ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
				sent := fmt.Sprint("round ", round)
				ctx = metadata.AppendToOutgoingContext(ctx, "x-to", upstream, "x-grpc-test-echo-initial", sent, "x-grpc-test-echo-trailing-bin", sent)
				var header, trailer metadata.MD
				_, err := client.UnaryCall(ctx, &testgrpc.SimpleRequest{
					ResponseStatus: &testgrpc.EchoStatus{Code: int32(codes.FailedPrecondition), Message: "as asked \u2620"},
				}, grpc.Header(&header), grpc.Trailer(&trailer))
				cancel()
				if s := status.Convert(err); s.Code() != codes.FailedPrecondition || s.Message() != "as asked \u2620" {
					t.Errorf("round %d: the call ended with %v", round, err)
				}
				if got := trailer.Get("x-grpc-test-echo-trailing-bin"); !slices.Equal(got, []string{sent}) {
					t.Errorf("round %d: the trailers are %v, the header %v", round, trailer, header)
				}
			}
		})
	}
}
