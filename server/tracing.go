package server

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
)

// Tracing says whether and where traces of calls are sent.
type Tracing struct {
	Enabled bool
	Address string // Of a collector that speaks OTLP over gRPC. Default localhost:4317.
	Service string // Default "etcd".
	// Instance tells members apart. Default: nothing does.
	Instance string
	// PerMillion calls begin a trace here. Calls of clients that trace are traced in
	// any case. Default 0.
	PerMillion int
}

// tracingStopMax bounds what the last traces may hold up the end of a member.
const tracingStopMax = 300 * time.Millisecond

func (t Tracing) check() error {
	if t.Enabled && (t.PerMillion < 0 || t.PerMillion > 1_000_000) {
		return fmt.Errorf("--distributed-tracing-sampling-rate is %d of a million calls: use 0 to 1000000", t.PerMillion)
	}
	return nil
}

// startTracing makes what sends traces, in the background and in batches. A
// collector that does not answer costs nothing but its traces.
func (s *Server) startTracing(ctx context.Context) error {
	t := s.cfg.Tracing
	if !t.Enabled {
		return nil
	}
	exporter, err := otlptracegrpc.New(ctx, otlptracegrpc.WithInsecure(), otlptracegrpc.WithEndpoint(t.Address))
	if err != nil {
		return fmt.Errorf("--distributed-tracing-address %s: %w", t.Address, err)
	}
	who := []attribute.KeyValue{attribute.String("service.name", t.Service)}
	if t.Instance != "" {
		who = append(who, attribute.String("service.instance.id", t.Instance))
	}
	begins := trace.NeverSample()
	if t.PerMillion > 0 {
		begins = trace.TraceIDRatioBased(float64(t.PerMillion) / 1e6)
	}
	s.tracer = trace.NewTracerProvider(
		trace.WithBatcher(exporter),
		trace.WithResource(resource.NewSchemaless(who...)),
		trace.WithSampler(trace.ParentBased(begins)),
	)
	s.log.Info("sending traces", "address", t.Address, "service", t.Service, "per-million", t.PerMillion)
	return nil
}

// traced is the option that has gRPC make a span for each call; none where
// tracing is off.
func (s *Server) traced() []grpc.ServerOption {
	if s.tracer == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.StatsHandler(otelgrpc.NewServerHandler(
		otelgrpc.WithTracerProvider(s.tracer),
		otelgrpc.WithPropagators(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})),
	))}
}

// stopTracing sends what has not been sent.
func (s *Server) stopTracing() {
	if s.tracer == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), tracingStopMax)
	defer cancel()
	if err := s.tracer.Shutdown(ctx); err != nil {
		s.log.Warn("the last traces could not be sent", "error", err)
	}
}
