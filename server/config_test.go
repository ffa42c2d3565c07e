package server

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

func TestWrongConfigurationIsNamedWithItsMend(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(*Config)
		want []string
	}{
		"defaults":            {func(*Config) {}, nil},
		"no port":             {func(c *Config) { c.ListenClientURLs = []string{"http://localhost"} }, []string{"--listen-client-urls", "port"}},
		"scheme":              {func(c *Config) { c.ListenPeerURLs = []string{"ftp://localhost:1"} }, []string{"--listen-peer-urls", "http or https"}},
		"socket":              {func(c *Config) { c.ListenClientURLs = []string{"unix:///run/hold.sock", "unix://localhost:7"} }, nil},
		"socket without path": {func(c *Config) { c.ListenClientURLs = []string{"unix://"} }, []string{"--listen-client-urls", "path of a socket"}},
		"socket for members":  {func(c *Config) { c.ListenPeerURLs = []string{"unix:///run/p.sock"} }, []string{"--listen-peer-urls", "members reach each other"}},
		"unixs without files": {func(c *Config) { c.ListenClientURLs = []string{"unixs:///run/hold.sock"} }, []string{"--cert-file", "unix://"}},
		"timing":              {func(c *Config) { c.HeartbeatInterval = time.Second }, []string{"--election-timeout", "--heartbeat-interval"}},
		"state":               {func(c *Config) { c.InitialClusterState = "old" }, []string{"--initial-cluster-state", `"new"`}},
		"shared URL":          {func(c *Config) { c.InitialCluster = "a=http://h:1,b=http://h:1" }, []string{"--initial-cluster", "two members"}},
		"no name":             {func(c *Config) { c.InitialCluster = "http://h:1" }, []string{"NAME=URL"}},
		"half of TLS":         {func(c *Config) { c.PeerTLS.CertFile = "x" }, []string{"--peer-cert-file", "--peer-key-file"}},
		"https without files": {func(c *Config) { c.ListenClientURLs = []string{"https://h:1"} }, []string{"--cert-file"}},
		"https by itself":     {func(c *Config) { c.ListenClientURLs, c.ClientTLS.Auto = []string{"https://h:1"}, true }, nil},
		"metrics with TLS":    {func(c *Config) { c.ListenMetricsURLs = []string{"https://h:1"} }, []string{"https://h:1", "--auto-tls"}},
		"list without CA":     {func(c *Config) { c.ClientTLS.CRLFile = "f" }, []string{"--client-crl-file", "--trusted-ca-file"}},
		"names without CA":    {func(c *Config) { c.PeerTLS.AllowedNames = []string{"a"} }, []string{"--peer-cert-allowed-cn", "--peer-trusted-ca-file"}},
		"names and hosts":     {func(c *Config) { c.PeerTLS.AllowedNames, c.PeerTLS.AllowedHosts = []string{"a"}, []string{"b"} }, []string{"exclude each other"}},
		"old TLS":             {func(c *Config) { c.TLSMinVersion = "TLS1.1" }, []string{"--tls-min-version", "TLS1.2 or TLS1.3"}},
		"no TLS between":      {func(c *Config) { c.TLSMinVersion, c.TLSMaxVersion = "TLS1.3", "TLS1.2" }, []string{"newer than --tls-max-version"}},
		"suites of 1.3":       {func(c *Config) { c.TLSMinVersion, c.CipherSuites = "TLS1.3", []string{"TLS_RSA_WITH_AES_128_CBC_SHA"} }, []string{"--cipher-suites"}},
		"no such suite":       {func(c *Config) { c.CipherSuites = []string{"ROT13"} }, []string{"--cipher-suites", "ROT13"}},
		"two discoveries":     {func(c *Config) { c.DiscoverySRV, c.InitialCluster = "d", "a=http://h:1" }, []string{"--discovery-srv"}},
		"large requests":      {func(c *Config) { c.RequestBytesMax = 60 << 20 }, nil},
		"too large requests":  {func(c *Config) { c.RequestBytesMax = 70 << 20 }, []string{"--max-request-bytes[73400320]", "at most 65011712"}},
		"negative limits":     {func(c *Config) { c.TxnOpsMax, c.RequestBytesMax, c.LearnersMax = -1, -1, -1 }, []string{"--max-txn-ops is negative", "--max-request-bytes", "--max-learners"}},
		"negative times":      {func(c *Config) { c.CompactHashCheckTime, c.CorruptCheckTime, c.KeepAliveTimeout = -1, -1, -1 }, []string{"--compact-hash-check-time is negative", "--corrupt-check-time", "--grpc-keepalive-timeout"}},
		"small log files":     {func(c *Config) { c.RequestBytesMax, c.WALSegmentBytes = 1<<20, 1<<20 }, []string{"--max-request-bytes[1048576]", "at most 983040"}},
		"retention":           {func(c *Config) { c.AutoCompactionRetention = "soon" }, []string{"--auto-compaction-retention", "duration"}},
		"mode":                {func(c *Config) { c.AutoCompactionMode, c.AutoCompactionRetention = "daily", "1" }, []string{"--auto-compaction-mode"}},
	} {
		cfg := DefaultConfig(hclog.NewNullLogger())
		c.set(&cfg)
		err := cfg.Validate()
		if (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, word := range c.want {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %v does not say %q", name, err, word)
			}
		}
	}
}

func TestAPortIsSharedIfAskedFor(t *testing.T) {
	for _, shared := range []bool{true, false} {
		listen := Config{SocketReusePort: shared}.withDefaults().Listen
		first, err := listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer first.Close()
		second, err := listen("tcp", first.Addr().String())
		if (err == nil) != shared {
			t.Errorf("shared %t: %v", shared, err)
		}
		if err == nil {
			second.Close()
		}
	}
}

// A setting that nothing reads does nothing, whatever the page of flags says. Found
// so: PreVote.
func TestEverySettingIsReadBySomebody(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	read := map[string]bool{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.UnaryExpr: // A default is set by the address of its field.
				_, field := n.X.(*ast.SelectorExpr)
				return n.Op != token.AND || !field
			case *ast.FuncDecl:
				return n.Name.Name != "checkSigns" // It does nothing with what it looks at.
			case *ast.SelectorExpr:
				read[n.Sel.Name] = true
			}
			return true
		})
	}
	for _, settings := range []reflect.Type{reflect.TypeFor[Config](), reflect.TypeFor[TLS]()} {
		for i := range settings.NumField() {
			if name := settings.Field(i).Name; !read[name] {
				t.Errorf("%s.%s is read by nobody", settings.Name(), name)
			}
		}
	}
}
