package differential

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

func TestMethodsThatDoNotExistAreRefusedAlike(t *testing.T) {
	t.Parallel()
	p := newPair(t, options{})
	for _, path := range []string{"/etcdserverpb.KV/Nothing", "/nobody.Nobody/Nothing", "/etcdserverpb.KV", "/"} {
		ours, theirs := both(p, func(side *target) string {
			var out []byte
			return status.Convert(side.conn.Invoke(t.Context(), path, &[]byte{}, &out, grpc.ForceCodec(bytesCodec{}))).String()
		})
		if ours != theirs {
			t.Errorf("%s\n  holdfast %s\n  etcd     %s", path, ours, theirs)
		}
	}
}

func TestHealthIsToldAlike(t *testing.T) {
	t.Parallel()
	p := newPair(t, options{})
	for _, service := range []string{"", "\x0a\x0fetcdserverpb.KV", "\x0a\x04none"} {
		ours, theirs := both(p, func(side *target) string {
			var out []byte
			request := []byte(service)
			err := side.conn.Invoke(t.Context(), "/grpc.health.v1.Health/Check", &request, &out, grpc.ForceCodec(bytesCodec{}))
			return status.Convert(err).String() + string(out)
		})
		if ours != theirs {
			t.Errorf("%q\n  holdfast %q\n  etcd     %q", service, ours, theirs)
		}
	}
}

// gRPC's own client sends no such header, so the frames are made by hand.
func TestAClientVersionThatIsNoTextIsRefusedAlike(t *testing.T) {
	t.Parallel()
	p := newPair(t, options{})
	ours, theirs := both(p, func(side *target) string { return callWithBadVersion(t, side) })
	if ours != theirs || !strings.Contains(ours, "invalid client api version") {
		t.Errorf("\n  holdfast %s\n  etcd     %s", ours, theirs)
	}
	covered.request("Maintenance/Status", &pb.StatusRequest{})
	covered.words("InvalidArgument: etcdserver: invalid client api version")
}

func callWithBadVersion(t *testing.T, side *target) string {
	conn, err := net.Dial("tcp", side.client)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(callTimeout)); err != nil {
		return err.Error()
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return err.Error()
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", methods["Maintenance/Status"].path}, {":authority", side.client},
		{"content-type", "application/grpc"}, {"te", "trailers"}, {"client-api-version", "3.\xff"},
	} {
		_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}) // Into memory.
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for _, err := range []error{
		framer.WriteSettings(),
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}),
		framer.WriteData(1, true, make([]byte, 5)), // An empty message.
	} {
		if err != nil {
			return err.Error()
		}
	}
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			return err.Error()
		}
		if h, isHeaders := f.(*http2.MetaHeadersFrame); isHeaders && h.StreamEnded() {
			var said []string
			for _, field := range h.Fields {
				if strings.HasPrefix(field.Name, "grpc-") {
					said = append(said, field.Name+"="+field.Value)
				}
			}
			return strings.Join(said, " ")
		}
	}
}

// A client that asks too often whether the connection lives is sent away, the
// sooner if it has no call on it.
func TestWhoProbesItsConnectionTooOftenIsSentAwayAlike(t *testing.T) {
	t.Parallel()
	p := newPair(t, options{})
	ours, theirs := both(p, func(side *target) string { return probeTooOften(side) })
	if ours != theirs || !strings.Contains(ours, "too_many_pings") {
		t.Errorf("\n  holdfast %s\n  etcd     %s", ours, theirs)
	}
}

func probeTooOften(side *target) string {
	conn, err := net.Dial("tcp", side.client)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(callTimeout)); err != nil {
		return err.Error()
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return err.Error()
	}
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		return err.Error()
	}
	for sent := 0; ; {
		f, err := framer.ReadFrame()
		if err != nil {
			return err.Error()
		}
		switch f := f.(type) {
		case *http2.GoAwayFrame:
			return fmt.Sprintf("%v after %d pings: %s", f.ErrCode, sent, f.DebugData())
		case *http2.SettingsFrame, *http2.PingFrame: // Its own, and the answers to ours.
			if s, isSettings := f.(*http2.SettingsFrame); isSettings && s.IsAck() {
				continue
			}
			if err := framer.WritePing(false, [8]byte{byte(sent)}); err != nil {
				return err.Error()
			}
			sent++
		}
	}
}
