package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/kube/auth"
	"github.com/holdfast-db/holdfast/kube/authority"
	"github.com/holdfast-db/holdfast/kube/controller"
	"github.com/holdfast-db/holdfast/kube/controller/nodelife"
	"github.com/holdfast-db/holdfast/kube/leader"
	"github.com/holdfast-db/holdfast/kube/objects"
	"github.com/holdfast-db/holdfast/kube/scheduler"
	"github.com/holdfast-db/holdfast/kube/state"
	"github.com/holdfast-db/holdfast/kube/token"
	"github.com/holdfast-db/holdfast/pki"
	"github.com/holdfast-db/holdfast/proto/kubepb"
	"github.com/holdfast-db/holdfast/server"
)

// planeConfig is one control plane.
type planeConfig struct {
	Member       server.Config
	ListenAPI    string
	AdvertiseAPI string    // host:port where others reach the API. Empty: there are no others. Port 0: that listened on.
	API          pki.Files // Of the API: its listener shows them, and it itself to other control planes.
	AuthorityDir string
	ServiceRange netip.Prefix
	PodRange     netip.Prefix
	Profile      string
	Nodes        nodeProfile
	Logger       hclog.Logger
}

// nodeProfile is how soon a silent node counts as dead, and its pods are replaced. Its
// zero value: after the defaults of the parts.
type nodeProfile struct {
	ttl       int64 // Of heartbeats, in seconds.
	tolerance time.Duration
}

// nodeProfiles are those that have a name. The fast one sends three times as many
// heartbeats, and takes a network that stands still for three seconds for a death.
var nodeProfiles = map[string]nodeProfile{"default": {}, "fast": {ttl: 3, tolerance: 2 * time.Second}}

// plane is a control plane that runs.
type plane struct {
	cfg     *planeConfig
	log     hclog.Logger
	metrics *metrics
	member  *member
	store   *client.Client
	service *state.Service
	api     *grpc.Server
	address net.Addr // Of the API.
	claim   leader.Claim
	tls     *pki.Reloader // Of the API.

	sched       *scheduler.Scheduler
	controllers *controller.Manager
}

// stopMax is how long calls under way may take when the process ends. Watches never
// end by themselves.
const stopMax = 2 * time.Second

// runPlane runs a control plane until ctx ends or a part of it fails. Beside it runs
// also, if it is not nil, once the API is served.
func runPlane(ctx context.Context, cfg *planeConfig, also func(context.Context, *plane) error) error {
	p := &plane{cfg: cfg, log: cfg.Logger}
	p.metrics = newMetrics(p.certificateEnd)
	if err := cfg.Member.Validate(); err != nil {
		return err
	}
	l, creds, err := p.listen()
	if err != nil {
		return err
	}
	p.address = l.Addr()
	p.claim = leader.Claim{Name: cfg.Member.Name, Address: reachedAt(cfg.AdvertiseAPI, l.Addr())}
	p.member = newMember(cfg.Member, p.metrics)
	// The parts end before the store does: they give up what they lead.
	base := task.New(context.WithoutCancel(ctx))
	base.Go("store member", p.member.run)
	parts := task.New(ctx)
	parts.Go("control plane", func(ctx context.Context) error { return p.run(ctx, l, creds, also) })
	parts.Go("store member watch", func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-base.Context().Done():
			return errors.New("the store's member has ended")
		}
	})
	err = parts.Wait()
	if ctx.Err() != nil {
		p.log.Info("stopping, as the process was told to")
	}
	l.Close()
	base.Stop()
	if failure := base.Wait(); failure != nil {
		err = failure
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// listen opens the API's address. Certificates that are wrong are found here.
func (p *plane) listen() (net.Listener, credentials.TransportCredentials, error) {
	var err error
	if _, err = vfs.OS().Stat(filepath.Join(p.cfg.AuthorityDir, "ca.pem")); err != nil { // Else it is found when the member has joined.
		return nil, nil, fmt.Errorf("--authority-dir, or --certs-dir where that is left out: %w: name a folder that can be read, with the ca.pem that 'holdfastctl certs set' makes", err)
	}
	p.tls, err = pki.AwaitReloader(pki.Config{FS: vfs.OS(), Clock: clock.Real(), Logger: p.log, Files: p.cfg.API})
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: make a set with 'holdfastctl certs set'", err)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("certificate of the API: %w", err)
	}
	config, err := p.tls.ServerConfig(pki.ServerOptions{ClientAuth: true, Optional: true, ShowAuthority: true})
	if err != nil {
		return nil, nil, err
	}
	l, err := net.Listen("tcp", p.cfg.ListenAPI)
	if err != nil {
		return nil, nil, fmt.Errorf("--listen-api: %w", err)
	}
	return l, credentials.NewTLS(config), nil
}

// certificateEnd is when the certificate that the API shows ends.
func (p *plane) certificateEnd() float64 { return float64(p.tls.Certificate().Leaf.NotAfter.Unix()) }

// run is everything over the store.
func (p *plane) run(ctx context.Context, l net.Listener, creds credentials.TransportCredentials, also func(context.Context, *plane) error) error {
	if err := p.member.ready(ctx); err != nil {
		return err
	}
	var err error
	if p.store, err = p.member.client(p.log.Named("client")); err != nil {
		return err
	}
	defer p.store.Close()
	if err := p.assemble(); err != nil {
		return err
	}
	defer p.service.Close()
	look := p.standing
	p.metrics.standing.Store(&look)
	if err := p.service.Ready(ctx); err != nil {
		return err
	}
	if err := p.makeNamespace(ctx); err != nil {
		return err
	}
	p.api = state.NewServer(p.service, creds, grpc.UnaryInterceptor(p.metrics.unary), grpc.StreamInterceptor(p.metrics.stream))
	g := task.New(ctx)
	g.Go("api", func(context.Context) error { return p.api.Serve(l) })
	g.Go("api end", func(ctx context.Context) error {
		<-ctx.Done()
		late := clock.Real().AfterFunc(stopMax, p.api.Stop)
		defer late.Stop()
		p.api.GracefulStop()
		return nil
	})
	p.lead(g)
	p.log.Info("ready to serve the API", "address", l.Addr().String(), "name", p.cfg.Member.Name)
	if also != nil {
		g.Go("beside", func(ctx context.Context) error { return also(ctx, p) })
	}
	return g.Wait()
}

// standing is what metrics tell of nodes, evictions and a restore.
func (p *plane) standing() (standing, error) {
	is, err := p.service.Overview()
	return standing{is, p.controllers.Brake().Until}, err
}

// assemble makes the parts. None of them does anything yet but fill the cache.
func (p *plane) assemble() error {
	tokens := token.New(token.Config{Client: p.store, Clock: clock.Real()})
	signer, err := authority.New(authority.Config{
		FS: vfs.OS(), Clock: clock.Real(), Logger: p.log.Named("authority"), Dir: p.cfg.AuthorityDir, Tokens: tokens,
	})
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	explain := &explainer{}
	service := state.Config{
		Store: p.store, Logger: p.log.Named("state"), Authority: signer, Explainer: explain, Timeline: p.member.timeline,
		ServiceRange: p.cfg.ServiceRange, PodRange: p.cfg.PodRange, Address: p.claim.Address,
		HeartbeatTTL: p.cfg.Nodes.ttl,
	}
	if p.claim.Address != "" {
		service.Peer = p.peer
	}
	p.service, err = state.New(service)
	if err != nil {
		return err
	}
	p.sched, err = scheduler.New(scheduler.Config{
		Client: objects.New(p.service.Dial(auth.Scheduler()), "scheduler"), Profile: p.cfg.Profile, Bound: p.metrics.podBound, Logger: p.log.Named("scheduler"),
	})
	if err != nil {
		return errors.Join(err, p.service.Close())
	}
	explain.scheduler = p.sched
	p.controllers, err = controller.New(controller.Config{
		Client: objects.New(p.service.Dial(auth.Controllers()), "controllers"), Store: p.store, Signer: signer, Logger: p.log.Named("controllers"),
		Nodes: nodelife.Limits{Tolerance: p.cfg.Nodes.tolerance},
	})
	if err != nil {
		return errors.Join(err, p.service.Close())
	}
	return nil
}

// explainer is the scheduler, which is made after the service that asks it.
type explainer struct{ scheduler *scheduler.Scheduler }

// Explain implements state.Explainer.
func (e *explainer) Explain(ctx context.Context, pod *kubepb.Ref) (*kubepb.ExplainResponse, error) {
	return e.scheduler.Explain(ctx, pod)
}

// makeNamespace makes the namespace that things are in which name none.
func (p *plane) makeNamespace(ctx context.Context) error {
	admin := objects.New(p.service.Dial(auth.Admin("controlplane")), "controlplane")
	for {
		ns := &corev1.Namespace{}
		ns.Name = corev1.NamespaceDefault
		_, err := objects.Create(ctx, admin, ns)
		if err == nil || errors.Is(err, objects.ErrExists) {
			return nil
		}
		p.log.Warn("namespace default is not made yet", "error", err)
		select {
		case <-clock.Real().After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// leaderSeconds is the lease of who leads. A store that lost its own leader with ours
// takes as long again, and the election: together less than 15 s.
const leaderSeconds = 7

// lead campaigns for what one control plane does at a time.
func (p *plane) lead(g *task.Group) {
	campaign := func(name string, run func(context.Context, *kubepb.Fence) error) {
		g.Go("campaign for "+name, func(ctx context.Context) error {
			// Whoever led under this name has ended: the data directory is locked by us.
			if err := leader.Forget(ctx, p.store, name, p.claim); err != nil {
				p.log.Warn("the claim of this process' predecessor is left to run out", "error", err)
			}
			return leader.Run(ctx, leader.Config{Client: p.store, Name: name, Value: p.claim.String(), TTL: leaderSeconds, Logger: p.log.Named("leader")},
				func(ctx context.Context, fence *kubepb.Fence) error {
					defer p.metrics.leads(name)()
					return run(ctx, fence)
				})
		})
	}
	campaign("scheduler", p.sched.Run)
	campaign("controllers", p.controllers.Run)
	g.Go("quorum watch", p.controllers.Observe)
}
