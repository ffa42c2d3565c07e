// Command holdfast runs a member of a cluster.
//
//	holdfast --name a --data-dir /var/lib/holdfast …   one member, flags as etcd's
//	holdfast dev                                       three members on this machine, to try things
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/grpclog"

	"github.com/holdfast-db/holdfast/internal/build"
	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/logs"
	"github.com/holdfast-db/holdfast/internal/task"
	"github.com/holdfast-db/holdfast/server"
)

// Exit codes: a wrong flag is told apart from a member that failed.
const (
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "dev" {
		os.Exit(runDev(os.Args[2:], os.Stdout, os.Stderr))
	}
	os.Exit(run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

func run(args, environ []string, stdout, stderr io.Writer) int {
	o, err := parse(args, environ, stdout)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(stderr, "holdfast: %v\n", err)
		if errors.As(err, new(settingError)) {
			return exitFailed
		}
		return exitUsage
	}
	if o.showVersion {
		fmt.Fprintf(stdout, "etcd Version: %s\nholdfast Version: %s\nGo Version: %s\nGo OS/Arch: %s/%s\n",
			server.ProtocolVersion, version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return 0
	}
	var log *logs.Log
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)) // It writes of clients that left to the terminal, past our log.
	out, err := o.logOutput(stdout, stderr)
	if err == nil {
		log, err = logs.New(out, o.logLevel, o.logFormat, clock.Real())
	}
	if err != nil {
		fmt.Fprintf(stderr, "holdfast: %v\n", err)
		return exitFailed
	}
	o.cfg.Logger, o.discovery.log = log, log
	defer switchLevel(context.Background(), log)()
	for _, w := range o.warnings {
		o.cfg.Logger.Warn(w.text, w.args...)
	}
	if o.lockMemory {
		if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE); err != nil {
			fmt.Fprintf(stderr, "holdfast: --memory-mlock: %v: raise the limit of locked memory (LimitMEMLOCK), or leave the flag out\n", err)
			return exitFailed
		}
	}
	if err := o.discovery.check(); err != nil {
		fmt.Fprintf(stderr, "holdfast: %v\n", err)
		return exitFailed
	}
	stop, err := o.serveFailpoints()
	if err == nil {
		defer stop()
		if o.forceNew {
			err = forceNewCluster(o.cfg)
		}
	}
	if err == nil {
		err = serve(o.cfg)
	}
	if err != nil {
		fmt.Fprintf(stderr, "holdfast: %v\n", err)
		return exitFailed
	}
	return 0
}

// serve runs a member until it ends or the process is told to.
func serve(cfg server.Config) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return repeat(clock.Real(), cfg.Logger, func() error { return serveOnce(ctx, cfg) })
}

// repeat starts a member that found its state damaged again at once: it gets
// another from its peers. When that does not last, somebody has to look.
func repeat(c clock.Clock, log hclog.Logger, once func() error) error {
	for {
		began := c.Mono()
		err := once()
		if !errors.Is(err, server.ErrDamaged) || c.Mono()-began < repairedMin {
			return err
		}
		log.Warn("starting again with a state from a peer", "error", err)
	}
}

// repairedMin is how long a member must have run to be started again because of
// damage: a disk that damages a fresh state at once is not worth another try.
const repairedMin = 10 * time.Second

func serveOnce(ctx context.Context, cfg server.Config) error {
	s, err := server.Start(ctx, cfg)
	if err != nil {
		return err
	}
	notify := task.New(ctx)
	notify.Go("notify supervisor", func(context.Context) error { notifyReady(s, cfg.Logger); return nil })
	select {
	case <-ctx.Done():
		cfg.Logger.Info("stopping, as the process was told to")
		return s.Close()
	case <-s.Done():
		return s.Err()
	}
}

// notifyReady tells a supervisor with Type=notify that clients are served.
func notifyReady(s *server.Server, log hclog.Logger) {
	select {
	case <-s.Ready():
	case <-s.Done():
		return
	}
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err == nil {
		defer conn.Close()
		_, err = conn.Write([]byte("READY=1"))
	}
	if err != nil {
		log.Warn("could not tell the supervisor that this member is ready", "socket", socket, "error", err)
	}
}

// version of this build: the module's, or the commit's.
func version() string { return build.Version() + failpointsVersion }
