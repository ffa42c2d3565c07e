package state

import (
	"context"
	"io"
	"reflect"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/holdfast-db/holdfast/kube/api"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/proto/kubepb"
)

// Dial returns a connection of this process, whose calls are those of an identity.
// They go through everything that those of the network go through but the network:
// messages are not encoded, and what they hold is shared. Neither side writes to what
// it was given.
func (s *Service) Dial(id auth.Identity) grpc.ClientConnInterface { return &inside{s, id} }

type inside struct {
	service  *Service
	identity auth.Identity
}

// Decoded implements objects.Sharer: the object that a message of this service tells,
// if it is there decoded. Who follows all pods would have each of them twice.
func (c *inside) Decoded(m *kubepb.Object) api.Object {
	k, err := api.ByName(m.Kind)
	if err != nil || m.Encoding != kubepb.Encoding_PROTOBUF {
		return nil
	}
	e := c.service.cache.entry(k.Key(m.Namespace, m.Name))
	if e == nil {
		return nil
	}
	if is, err := e.message(view{encoding: m.Encoding}); err != nil || is != m {
		return nil // There is another by now, or this is what a node sees of one.
	}
	return e.decoded()
}

// unaryCalls are the methods by their full names.
var unaryCalls = map[string]func(*Service, context.Context, any) (proto.Message, error){
	kubepb.ClusterState_Get_FullMethodName:          unary((*Service).Get),
	kubepb.ClusterState_List_FullMethodName:         unary((*Service).List),
	kubepb.ClusterState_Create_FullMethodName:       unary((*Service).Create),
	kubepb.ClusterState_Update_FullMethodName:       unary((*Service).Update),
	kubepb.ClusterState_UpdateStatus_FullMethodName: unary((*Service).UpdateStatus),
	kubepb.ClusterState_Patch_FullMethodName:        unary((*Service).Patch),
	kubepb.ClusterState_Delete_FullMethodName:       unary((*Service).Delete),
	kubepb.ClusterState_Bind_FullMethodName:         unary((*Service).Bind),
	kubepb.ClusterState_Scale_FullMethodName:        unary((*Service).Scale),
	kubepb.ClusterState_Evict_FullMethodName:        unary((*Service).Evict),
	kubepb.ClusterState_Bootstrap_FullMethodName:    unary((*Service).Bootstrap),
	kubepb.ClusterState_SignRequest_FullMethodName:  unary((*Service).SignRequest),
	kubepb.ClusterState_Explain_FullMethodName:      unary((*Service).Explain),
	kubepb.ClusterState_Sample_FullMethodName:       unary((*Service).Sample),
	kubepb.ClusterState_Usage_FullMethodName:        unary((*Service).Usage),
	kubepb.ClusterState_Inventory_FullMethodName:    unary((*Service).Inventory),
	kubepb.ClusterState_Recovery_FullMethodName:     unary((*Service).Recovery),
	kubepb.ClusterState_Recover_FullMethodName:      unary((*Service).Recover),
}

func unary[Q, R any, M interface {
	*R
	proto.Message
}](f func(*Service, context.Context, *Q) (M, error)) func(*Service, context.Context, any) (proto.Message, error) {
	return func(s *Service, ctx context.Context, request any) (proto.Message, error) {
		q, ok := request.(*Q)
		if !ok {
			return nil, status.Errorf(codes.Internal, "a request is a %T", request)
		}
		answer, err := f(s, ctx, q)
		if err != nil {
			return nil, err
		}
		return answer, nil
	}
}

// Invoke implements grpc.ClientConnInterface.
func (c *inside) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	f := unaryCalls[method]
	if f == nil {
		return status.Errorf(codes.Unimplemented, "there is no method %s", method)
	}
	answer, err := f(c.service, auth.With(ctx, c.identity), args)
	if err != nil {
		return err
	}
	return share(reply, answer)
}

// share gives one message what another holds.
func share(to any, from proto.Message) error {
	m, ok := to.(proto.Message)
	if !ok || reflect.TypeOf(to) != reflect.TypeOf(from) {
		return status.Errorf(codes.Internal, "an answer is a %T, and a %T is wanted", from, to)
	}
	proto.Reset(m)
	into := m.ProtoReflect()
	from.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		into.Set(f, v)
		return true
	})
	return nil
}

// NewStream implements grpc.ClientConnInterface.
func (c *inside) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, cancel := context.WithCancel(auth.With(ctx, c.identity))
	p := &pipe{ctx: ctx, requests: make(chan proto.Message), answers: make(chan proto.Message, 1), closed: make(chan struct{}), done: make(chan struct{})}
	var run func() error
	switch method {
	case kubepb.ClusterState_Watch_FullMethodName:
		run = func() error {
			var r kubepb.WatchRequest
			if err := (serverSide{p}).RecvMsg(&r); err != nil {
				return err
			}
			return c.service.Watch(&r, localWatch{serverSide{p}})
		}
	case kubepb.ClusterState_Heartbeat_FullMethodName:
		run = func() error {
			return c.service.Heartbeat(localStream[kubepb.HeartbeatRequest, kubepb.HeartbeatResponse]{serverSide{p}})
		}
	case kubepb.ClusterState_Tunnel_FullMethodName:
		run = func() error {
			return c.service.Tunnel(localStream[kubepb.TunnelRequest, kubepb.TunnelResponse]{serverSide{p}})
		}
	case kubepb.ClusterState_Session_FullMethodName:
		run = func() error { return c.service.Session(localStream[kubepb.Frame, kubepb.Frame]{serverSide{p}}) }
	case kubepb.ClusterState_Connect_FullMethodName:
		run = func() error { return c.service.Connect(localStream[kubepb.Frame, kubepb.Frame]{serverSide{p}}) }
	default:
		cancel()
		return nil, status.Errorf(codes.Unimplemented, "there is no stream %s", method)
	}
	runs := c.service.tasks.Go("stream inside", func(context.Context) error {
		stop := context.AfterFunc(c.service.tasks.Context(), cancel)
		defer stop()
		p.err = run()
		close(p.done)
		cancel()
		return nil
	})
	if !runs {
		cancel()
		return nil, status.Error(codes.Unavailable, "the service is closed")
	}
	return clientSide{p}, nil
}

// pipe is a stream without a network.
type pipe struct {
	ctx      context.Context
	requests chan proto.Message
	answers  chan proto.Message
	closed   chan struct{} // The client sends no more.
	done     chan struct{} // The server has returned.
	err      error         // Set before done is closed.
}

// clientSide implements grpc.ClientStream. It belongs to one sender and one receiver.
type clientSide struct{ *pipe }

func (c clientSide) Header() (metadata.MD, error) { return nil, nil }
func (c clientSide) Trailer() metadata.MD         { return nil }
func (c clientSide) Context() context.Context     { return c.ctx }
func (c clientSide) CloseSend() error {
	select {
	case <-c.closed:
	default:
		close(c.closed)
	}
	return nil
}

func (c clientSide) SendMsg(m any) error {
	select {
	case c.requests <- m.(proto.Message):
		return nil
	case <-c.done:
		return io.EOF // RecvMsg says more.
	case <-c.ctx.Done():
	}
	select {
	case <-c.done:
		return io.EOF
	default:
		return status.FromContextError(c.ctx.Err()).Err()
	}
}

func (c clientSide) RecvMsg(m any) error {
	select {
	case answer := <-c.answers:
		return share(m, answer)
	case <-c.done:
	}
	select {
	case answer := <-c.answers: // Sent before the end.
		return share(m, answer)
	default:
	}
	if c.err == nil {
		return io.EOF
	}
	return c.err
}

// serverSide implements grpc.ServerStream.
type serverSide struct{ *pipe }

func (s serverSide) SetHeader(metadata.MD) error  { return nil }
func (s serverSide) SendHeader(metadata.MD) error { return nil }
func (s serverSide) SetTrailer(metadata.MD)       {}
func (s serverSide) Context() context.Context     { return s.ctx }

func (s serverSide) SendMsg(m any) error {
	select {
	case s.answers <- m.(proto.Message):
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

func (s serverSide) RecvMsg(m any) error {
	select {
	case r := <-s.requests:
		return share(m, r)
	case <-s.closed:
		select {
		case r := <-s.requests:
			return share(m, r)
		default:
			return io.EOF
		}
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// localWatch is a watch of this process.
type localWatch struct{ serverSide }

// Send implements kubepb.ClusterState_WatchServer.
func (l localWatch) Send(m *kubepb.WatchResponse) error { return l.SendMsg(m) }

// localStream is a stream of this process in which both sides speak.
type localStream[Q, R any] struct{ serverSide }

// Send and Recv implement grpc.BidiStreamingServer.
func (l localStream[Q, R]) Send(m *R) error { return l.SendMsg(m) }
func (l localStream[Q, R]) Recv() (*Q, error) {
	m := new(Q)
	return m, l.RecvMsg(m)
}
