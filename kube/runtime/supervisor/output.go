//go:build linux

package supervisor

import (
	"errors"
	"os"
	"sync"
	"time"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/task/plain"
	"github.com/holdfast-db/holdfast/kube/runtime/logfile"
)

const (
	pumpBuffer = 8 << 10 // Two of them for each container.
	// drainMax is how long output may go on after the end of a container: somebody
	// else holds its pipe then.
	drainMax = 2 * time.Second
)

var (
	streamNames  = [2]string{logfile.Stdout, logfile.Stderr}
	streamFrames = [2]byte{FrameStdout, FrameStderr}
)

// output takes what a container writes to its log, and to those who are attached.
type output struct {
	log   *logfile.Writer
	clock clock.Clock
	pumps sync.WaitGroup

	mu struct {
		sync.Mutex
		sinks map[*sink]bool
	}
}

func newOutput(path string, c clock.Clock) (*output, error) {
	w, err := logfile.Create(logfile.Config{Path: path, Clock: c})
	if err != nil {
		return nil, err
	}
	o := &output{log: w, clock: c}
	o.mu.sinks = map[*sink]bool{}
	return o, nil
}

// follow begins to read the streams of a process.
func (o *output) follow(p *process) {
	if p.tty != nil {
		o.pump(p.tty, 0)
		return
	}
	for i, f := range p.output {
		o.pump(f, i)
	}
}

func (o *output) pump(f *os.File, stream int) {
	o.pumps.Add(1)
	lines := o.log.Stream(streamNames[stream])
	plain.Go("pump", func() {
		defer o.pumps.Done()
		defer lines.Close()
		buffer := make([]byte, pumpBuffer)
		for {
			n, err := f.Read(buffer)
			if n > 0 {
				_, _ = lines.Write(buffer[:n]) // It tells of losses in the log itself.
				o.share(streamFrames[stream], buffer[:n])
			}
			if err != nil { // EIO is how a terminal ends.
				return
			}
		}
	})
}

// share gives bytes to all who are attached.
func (o *output) share(frame byte, b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.mu.sinks) == 0 {
		return
	}
	text := EncodeFrame(frame, b)
	var slow []*sink
	for k := range o.mu.sinks {
		if !k.offer(text) {
			slow = append(slow, k)
		}
	}
	for _, k := range slow { // When all others have it.
		if !k.give(text) {
			delete(o.mu.sinks, k)
			close(k.queue)
		}
	}
}

// attach has all that comes from now on written to a connection.
func (o *output) attach(c *conn) *sink {
	k := newSink(c, o.clock)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mu.sinks[k] = true
	return k
}

// detach returns when nothing more is written to the connection.
func (o *output) detach(k *sink) {
	o.mu.Lock()
	if o.mu.sinks[k] {
		delete(o.mu.sinks, k)
		close(k.queue)
	}
	o.mu.Unlock()
	<-k.done
}

// drain waits for the end of the streams of a process that has ended.
func (o *output) drain(p *process) {
	drained := make(chan struct{})
	plain.Go("drain", func() {
		o.pumps.Wait()
		close(drained)
	})
	select {
	case <-drained:
	case <-o.clock.After(drainMax):
	}
	p.close()
	<-drained // Closing ends the reads.
}

var errDetached = errors.New("the other side is gone")
