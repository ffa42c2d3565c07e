package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/internal/clock/clocktest"
	"github.com/holdfast-db/holdfast/server"
)

func TestADamagedMemberIsStartedAgainUnlessItEndsAtOnce(t *testing.T) {
	damaged, other := fmt.Errorf("page 7: %w", server.ErrDamaged), errors.New("no such flag")
	type run struct {
		took time.Duration
		err  error
	}
	for _, test := range []struct {
		what string
		runs []run
	}{
		{"told to end", []run{{time.Hour, nil}}},
		{"another error", []run{{time.Hour, other}}},
		{"damaged, then told to end", []run{{repairedMin, damaged}, {time.Second, nil}}},
		{"damaged again and again, but not at once", []run{{time.Hour, damaged}, {repairedMin, damaged}, {time.Hour, nil}}},
		{"damaged at once", []run{{repairedMin - 1, damaged}}},
		{"damaged at once the second time", []run{{time.Hour, damaged}, {0, damaged}}},
	} {
		c, n := clocktest.New(), 0
		err := repeat(c, hclog.NewNullLogger(), func() error {
			c.Advance(test.runs[n].took)
			n++
			return test.runs[n-1].err
		})
		if want := test.runs[len(test.runs)-1].err; n != len(test.runs) || err != want {
			t.Errorf("%s: %d runs, %v", test.what, n, err)
		}
	}
}

func TestDevTakesOtherClustersOutOfTheWay(t *testing.T) {
	for environ, want := range map[string]string{
		"PATH=/bin HOLDFASTCTL_CONFIG=x":                   "",
		"ETCDCTL_ENDPOINTS=a HOLDFASTCTL_ENDPOINTS_X=a":    "",
		"HOLDFASTCTL_CERT=c HOLDFASTCTL_ENDPOINTS=a HOME=": "unset HOLDFASTCTL_ENDPOINTS HOLDFASTCTL_CERT\n",
	} {
		if got := otherCluster(strings.Fields(environ)); !strings.HasSuffix(got, want) || (got == "") != (want == "") {
			t.Errorf("with %s: %q", environ, got)
		}
	}
}

func TestDevRefusesAFolderOfAnotherKindAndPortsThatAreTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := &devCluster{members: 1, ports: l.Addr().(*net.TCPAddr).Port}
	if err := taken.checkPorts(); err == nil || !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(err.Error(), "--port") {
		t.Errorf("port %d is taken: %v", taken.ports, err)
	}
	three := &devCluster{dir: filepath.Join(t.TempDir(), "new"), members: 3}
	for range 2 {
		if err := three.checkFolder(); err != nil {
			t.Errorf("the same number again: %v", err)
		}
	}
	one := &devCluster{dir: three.dir, members: 1}
	if err := one.checkFolder(); err == nil || !strings.Contains(err.Error(), "give --members 3") {
		t.Errorf("one member where three were: %v", err)
	}
	if err := os.Mkdir(filepath.Join(three.dir, "store"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := three.checkFolder(); err == nil || !strings.Contains(err.Error(), "'controlplane dev'") {
		t.Errorf("a folder of controlplane: %v", err)
	}
}

func TestHelpOfDevIsAnAnswerAndAWrongFlagIsNot(t *testing.T) {
	for _, c := range []struct {
		flag     string
		code     int
		out, err string
	}{{"--help", 0, "number of members", ""}, {"--nonsense", exitUsage, "", "number of members"}} {
		var out, stderr strings.Builder
		if code := runDev([]string{c.flag}, &out, &stderr); code != c.code || !strings.Contains(out.String(), c.out) || !strings.Contains(stderr.String(), c.err) ||
			(out.Len() > 0) == (stderr.Len() > 0) {
			t.Errorf("dev %s: exit code %d, %q, %q", c.flag, code, &out, &stderr)
		}
	}
}
