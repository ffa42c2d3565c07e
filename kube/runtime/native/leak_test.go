//go:build linux

package native_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/holdfast-db/holdfast/internal/clock"
	"github.com/holdfast-db/holdfast/internal/quick"
	"github.com/holdfast-db/holdfast/kube/network"
	"github.com/holdfast-db/holdfast/kube/network/networktest"
	"github.com/holdfast-db/holdfast/kube/runtime"
	"github.com/holdfast-db/holdfast/kube/runtime/native"
)

var (
	cycles = flag.Int("cycles", 30, "pods that are run and removed while kubelets and supervisors are killed")
	seed   = flag.Uint64("seed", 0, "of that; 0: another each time")
)

// openNetwork opens that of the node in whose namespace this thread is.
func openNetwork(dir, name string) (*network.Network, error) {
	return network.Open(network.Config{
		Node: name, PodCIDR: netip.MustParsePrefix("192.0.2.0/24"), Dir: filepath.Join(dir, "network"), Logger: hclog.NewNullLogger(),
	})
}

// kubeletVariable makes the test below a kubelet.
const kubeletVariable = "HOLDFAST_NATIVE_KUBELET"

// TestKubeletOfTheLeakTest is not a test but a process that the leak test starts, and kills.
func TestKubeletOfTheLeakTest(t *testing.T) {
	args := strings.Split(os.Getenv(kubeletVariable), "|")
	if len(args) != 4 {
		return
	}
	dir, name, layer := args[0], args[1], args[2]
	chance := rand.New(rand.NewPCG(mustParse(args[3]), 1))
	links, err := openNetwork(dir, name)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	e, err := native.New(native.Config{
		Dir: filepath.Join(dir, "engine"), Node: name, Network: links, Logger: hclog.NewNullLogger(), Clock: clock.Real(), Changed: func(string) {},
	})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	n := &node{Engine: e, t: t, name: name, dir: dir, layer: layer}
	ctx := context.Background()
	pods, err := n.List(ctx)
	if err == nil {
		var uids []string
		for _, p := range pods {
			uids = append(uids, p.UID)
		}
		done(links.Retain(ctx, uids))
	}
	for _, p := range pods { // Those of the one before: some go on, most go.
		if chance.IntN(4) > 0 {
			done(n.Close(ctx, p.UID))
		}
	}
	done(err)
	for i := range 3 {
		go func(chance *rand.Rand) {
			for {
				done(n.cycle(ctx, chance))
			}
		}(rand.New(rand.NewPCG(mustParse(args[3]), uint64(i+2))))
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // Until the test ends.
	os.Exit(0)
}

func mustParse(text string) uint64 {
	n, _ := strconv.ParseUint(text, 10, 64)
	return n
}

// done prints what the leak test counts.
func done(err error) {
	if err != nil {
		fmt.Println("error", err)
	}
}

// cycle is the life of a pod.
func (n *node) cycle(ctx context.Context, chance *rand.Rand) error {
	uid := fmt.Sprintf("u%x", chance.Uint64())
	if _, err := n.Open(ctx, n.pod(uid)); err != nil {
		return err
	}
	for i, script := range []string{"sleep 0.01", "trap '' TERM; sleep 60", "sleep 60"}[:1+chance.IntN(3)] {
		spec := n.sh(uid, "c"+strconv.Itoa(i), script)
		spec.Resources.LimitMemoryBytes = 64 << 20
		id, err := n.Start(ctx, spec)
		if err != nil {
			return err
		}
		if chance.IntN(2) == 0 {
			_, _ = n.Exec(ctx, id, &runtime.ExecSpec{Command: []string{"sleep", "0.01"}})
		}
		if chance.IntN(2) == 0 {
			if err := n.Stop(ctx, id, time.Duration(chance.IntN(20))*time.Millisecond); err != nil {
				return err
			}
		}
	}
	if err := n.Close(ctx, uid); err != nil {
		return err
	}
	fmt.Println("cycle")
	return nil
}

func TestNothingIsLeftWhereKubeletsAndSupervisorsAreKilled(t *testing.T) {
	quick.LeaveOut(t)
	n := newNode(t)
	if err := n.Shutdown(); err != nil {
		t.Fatal(err)
	}
	space := networktest.NewSpace(t)
	var links *network.Network
	open := func() (err error) {
		links, err = openNetwork(n.dir, n.name)
		return err
	}
	space.Do(open)
	before := linksIn(space)
	if err := links.Close(); err != nil {
		t.Fatal(err)
	}
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("-seed=%d", *seed)
	chance := rand.New(rand.NewPCG(*seed, 0))
	c := count{failed: map[string]int{}}
	for c.finished < *cycles {
		k := n.kubelet(space, chance.Uint64())
		n.reign(k, chance, &c)
		k.kill()
		c.kubelets++
	}
	t.Logf("%d pods came and went; %d kubelets and %d supervisors were killed", c.finished, c.kubelets, c.supervisors)
	sum := 0
	for _, times := range c.failed {
		sum += times
	}
	t.Logf("%d calls failed: those to supervisors that were killed meanwhile", sum)
	if sum > 4*c.supervisors {
		t.Errorf("more than can have been in flight: %v", c.failed)
	}
	space.Do(open)
	defer links.Close()
	n.network, n.Engine = links, nil
	n.restart()
	pods, err := n.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d pods are there in the end", len(pods))
	for _, p := range pods {
		if err := n.Close(t.Context(), p.UID); err != nil {
			t.Error(err)
		}
	}
	if left := linksIn(space); !slices.Equal(left, before) {
		t.Errorf("interfaces in the end: %v, before: %v", left, before)
	}
	text, err := os.ReadFile(filepath.Join(n.dir, "network", "addresses"))
	if err != nil || !strings.Contains(string(text), `"Addresses":{}`) {
		t.Errorf("addresses that were not given back: %s, %v", text, err)
	}
	// The rest is what each test looks for at its end.
}

// count is what came of kubelets that were killed.
type count struct {
	finished, kubelets, supervisors int
	barren                          int // Reigns, the last ones, in which nothing finished.
	failed                          map[string]int
}

// reign is the time of one kubelet, in which supervisors die. After reigns in which no pod
// came and went it is longer: on a slow machine none else would.
func (n *node) reign(k *kubelet, chance *rand.Rand, c *count) {
	before := c.finished
	defer func() {
		if c.barren++; c.finished > before {
			c.barren = 0
		}
	}()
	end := time.NewTimer(time.Duration((1+c.barren)*(50+chance.IntN(1200))) * time.Millisecond)
	defer end.Stop()
	for {
		next := time.NewTimer(time.Duration(20+chance.IntN(150)) * time.Millisecond)
		select {
		case line := <-k.lines:
			if line == "cycle" {
				c.finished++
			} else {
				c.failed[line]++
			}
		case <-next.C:
			if locks, _ := filepath.Glob(filepath.Join(n.dir, "pods", "*", "engine", "lock")); len(locks) > 0 && chance.IntN(3) == 0 {
				b, _ := os.ReadFile(locks[chance.IntN(len(locks))])
				if pid, err := strconv.Atoi(string(b)); err == nil && isSupervisor(pid) {
					_ = unix.Kill(pid, unix.SIGKILL)
					c.supervisors++
				}
			}
		case <-end.C:
			return
		}
		next.Stop()
	}
}

// isSupervisor guards against a PID that became another's since it was written.
func isSupervisor(pid int) bool {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	return strings.HasPrefix(string(b), "holdfast-supervisor\x00")
}

type kubelet struct {
	cmd   *exec.Cmd
	lines chan string
}

func linksIn(s *networktest.Space) []string {
	var all []string
	s.Netlink(func(h *netlink.Handle) error {
		links, err := h.LinkList()
		for _, l := range links {
			all = append(all, l.Attrs().Name)
		}
		return err
	})
	slices.Sort(all)
	return all
}

func (n *node) kubelet(space *networktest.Space, seed uint64) *kubelet {
	n.t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKubeletOfTheLeakTest$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s|%s|%s|%d", kubeletVariable, n.dir, n.name, n.layer, seed))
	out, err := cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := cmd.StdinPipe(); err != nil {
		n.t.Fatal(err)
	}
	if err := space.In(cmd.Start); err != nil {
		n.t.Fatal(err)
	}
	k := &kubelet{cmd, make(chan string, 1000)}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			select {
			case k.lines <- s.Text():
			default:
			}
		}
	}()
	return k
}

func (k *kubelet) kill() {
	_ = k.cmd.Process.Kill()
	_ = k.cmd.Wait()
}
