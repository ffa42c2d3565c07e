package dns

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/internal/leak"
	"github.com/holdfast-db/holdfast/internal/vfs"
	"github.com/holdfast-db/holdfast/internal/vfs/vfstest"
)

// counting counts how often files are opened.
type counting struct {
	vfs.FS
	opened int
}

func (c *counting) Open(name string) (vfs.File, error) {
	c.opened++
	return c.FS.Open(name)
}

func TestAnotherResolvConfIsSeenAfterAWhile(t *testing.T) {
	const name = "/etc/resolv.conf"
	files, clk := &counting{FS: vfstest.NewMem()}, clocktest.New()
	write := func(name, text string) {
		t.Helper()
		if err := vfs.ReplaceFile(files.FS, name, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"/etc", "/run/systemd/resolve"} {
		if err := files.MkdirAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	f, err := OpenNodeFile(files, name, clk)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct{ text, want string }{
		{"", "[]"},
		{"nameserver 192.0.2.1\n", "[192.0.2.1]"},
		{"nameserver 192.0.2.2\nnameserver 192.0.2.3\n", "[192.0.2.2 192.0.2.3]"},
		{"", "[192.0.2.2 192.0.2.3]"}, // It is being written.
		{"search example.com\n", "[192.0.2.2 192.0.2.3]"},
		{"nameserver 127.0.0.53\n", "[192.0.2.9]"},
		{"nameserver 192.0.2.4\n", "[192.0.2.4]"},
	} {
		before := fmt.Sprint(f.Settings().Servers)
		write(name, c.text)
		write(behindStub, "nameserver 192.0.2.9\n")
		opened := files.opened
		for range 10 { // Nobody reads it for each question.
			if got := fmt.Sprint(f.Settings().Servers); got != before || files.opened != opened {
				t.Errorf("%d: at once %s, and opened %d times", i, got, files.opened-opened)
			}
		}
		clk.Advance(settingsAge)
		if got := fmt.Sprint(f.Settings().Servers); got != c.want {
			t.Errorf("%d: %s, want %s", i, got, c.want)
		}
	}
	if err := files.Remove(name); err != nil {
		t.Fatal(err)
	}
	clk.Advance(settingsAge)
	if got := fmt.Sprint(f.Settings().Servers); got != "[192.0.2.4]" {
		t.Errorf("without a file: %s", got)
	}
}

func TestAQuestionGoesToTheResolversThatThereAreNow(t *testing.T) {
	leak.Check(t)
	one, other := newOutside(t), newOutside(t)
	var now atomic.Pointer[outside]
	now.Store(one)
	s, _ := start(t, newWorld(), func(c *Config) {
		c.Resolvers = func() []netip.AddrPort { return []netip.AddrPort{now.Load().addr()} }
	})
	for i, o := range []*outside{one, other} {
		now.Store(o)
		asking(t, s, fmt.Sprintf("none-%d.example.com.", i), dnsmessage.TypeA)
		if n := o.asked.Load(); n != 1 {
			t.Errorf("resolver %d was asked %d times", i, n)
		}
	}
}
