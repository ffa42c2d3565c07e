package server_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/holdfast-db/holdfast/client"
	"github.com/holdfast-db/holdfast/server"
	"github.com/holdfast-db/holdfast/server/servertest"
)

func TestClientsAreServedOnASocketThatAKilledProcessLeft(t *testing.T) {
	folder, err := os.MkdirTemp("", "hf") // Short: the path of a socket has a limit.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	socket := filepath.Join(folder, "s")
	left, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	left.Close()
	servertest.New(t, 1, func(_ int, c *server.Config) {
		c.ListenClientURLs = append(c.ListenClientURLs, "unix://"+socket)
	})
	conn, err := client.New(client.Config{Endpoints: []string{"unix://" + socket}, Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Put(t.Context(), client.Put{Key: "a", Value: []byte("1")}); err != nil {
		t.Fatal(err)
	}
}

func TestASocketInUseAndOtherFilesAreLeftAlone(t *testing.T) {
	folder, err := os.MkdirTemp("", "hf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	socket, file := filepath.Join(folder, "s"), filepath.Join(folder, "f")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{socket: "another process listens", file: "no socket"} {
		cfg := server.DefaultConfig(hclog.NewNullLogger())
		cfg.DataDir = filepath.Join(t.TempDir(), "data")
		cfg.ListenPeerURLs, cfg.ListenClientURLs = []string{"http://127.0.0.1:0"}, []string{"unix://" + path}
		if s, err := server.Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("listen on %s: %v, want %q", path, err, want)
			if err == nil {
				s.Close()
			}
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Fatalf("the file holds %q, %v", b, err)
	}
	if conn, err := net.Dial("unix", socket); err != nil {
		t.Fatal(err)
	} else {
		conn.Close()
	}
}

func TestASocketMayBeUnderTLS(t *testing.T) {
	t.Parallel() // It mostly waits.
	folder, err := os.MkdirTemp("", "hf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	a := newAuthority(t)
	a.revoke()
	socket := "unixs://" + filepath.Join(folder, "s")
	servertest.New(t, 1, func(_ int, c *server.Config) {
		c.ClientTLS = a.tls()
		c.ListenClientURLs = append(c.ListenClientURLs, socket)
	})
	if err := a.put("bob", socket); err != nil {
		t.Errorf("with a certificate: %v", err)
	}
	if err := a.plainPut("unix" + strings.TrimPrefix(socket, "unixs")); err == nil {
		t.Error("a client without TLS is served")
	}
}
