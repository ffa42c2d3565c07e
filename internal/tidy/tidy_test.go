package tidy

import (
	"fmt"
	"strings"
	"testing"
)

func TestTheTreeIsTidy(t *testing.T) {
	tree, err := Load("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range tree.Check() {
		t.Error(f)
	}
}

// at is the source of a small package; its comment is in order.
func at(p, body string) map[string]string {
	name := p[:strings.LastIndex(p, "/")]
	name = name[strings.LastIndex(name, "/")+1:]
	return map[string]string{p: fmt.Sprintf("// Package %s is a fixture.\npackage %s\n\n%s\n", name, name, body)}
}

func imports(p string, paths ...string) map[string]string {
	var b strings.Builder
	for _, x := range paths {
		fmt.Fprintf(&b, "import _ %q\n", x)
	}
	return at(p, b.String())
}

func ours(p string) string { return modulePath + "/" + p }

// fixtures are small trees and what the rules say of them.
var fixtures = map[string]struct {
	tree map[string]string
	want []string // "line rule", in order.
}{
	"an import upwards": {imports("mvcc/a.go", ours("mvcc/backend"), ours("internal/ident"), ours("server")), []string{"6 import"}},
	"siblings":          {imports("mvcc/backend/a.go", ours("mvcc/history"), ours("proto/mvccpb")), []string{"4 import"}},
	"the state machine and its parts": {
		imports("statemachine/a.go", ours("statemachine/lease"), ours("mvcc/history"), ours("mvcc/backend")), []string{"6 import"}},
	"a part and another":    {imports("statemachine/lease/a.go", ours("mvcc/backend"), ours("statemachine/auth")), []string{"5 import"}},
	"the server":            {imports("server/a.go", ours("raftnode/wal"), ours("snapshot/archive"), ours("kube/api")), []string{"6 import"}},
	"kube":                  {imports("kube/proxy/a.go", ours("client"), ours("kube/api"), ours("mvcc")), []string{"6 import"}},
	"a folder nobody knows": {imports("cache/a.go"), []string{"1 import"}},
	"tests import anything": {imports("tests/sim/a.go", ours("server"), ours("mvcc"), "go.etcd.io/raft/v3"), nil},
	"cmd from above":        {imports("cmd/holdfast/a.go", ours("server"), ours("tests/sim")), []string{"5 import"}},
	"cmd from below":        {imports("server/a.go", ours("cmd/holdfast")), []string{"4 import"}},
	"a fake in a test": {
		imports("mvcc/a_test.go", ours("mvcc/backend/backendtest"), ours("internal/vfs/vfstest"), ours("raftnode/rafttest")), []string{"6 import"}},
	"a fake in a program": {imports("mvcc/a.go", ours("internal/vfs/vfstest"), "testing"), []string{"4 fakes", "5 fakes"}},
	"a fake's own row":    {imports("mvcc/mvcctest/a.go", ours("mvcc"), ours("mvcc/backend"), ours("server")), []string{"6 import"}},
	"bbolt":               {imports("mvcc/a.go", "go.etcd.io/bbolt"), []string{"4 bbolt"}},
	"bbolt at home":       {imports("mvcc/backend/a.go", "go.etcd.io/bbolt", "go.etcd.io/bbolt/errors"), nil},
	"grpc":                {imports("raftnode/a.go", "google.golang.org/grpc/codes"), []string{"4 grpc"}},
	"grpc at home":        {imports("server/a.go", "google.golang.org/grpc"), nil},
	"a clock in the state machine": {
		imports("statemachine/a.go", ours("internal/clock"), "net", "sort"), []string{"4 deterministic", "5 deterministic"}},
	"util":               {at("internal/util/a.go", ""), []string{"1 noun"}},
	"a package comment":  {map[string]string{"mvcc/a.go": "package mvcc\n"}, []string{"1 comment"}},
	"a command's":        {map[string]string{"cmd/holdfast/a.go": "// Package main is wrong here.\npackage main\n"}, []string{"2 comment"}},
	"any file's comment": {map[string]string{"mvcc/a.go": "package mvcc\n", "mvcc/b.go": "// Package mvcc is.\npackage mvcc\n"}, nil},
	"a long file":        {at("mvcc/a.go", strings.Repeat("//\n", 600)), []string{"1 lines"}},
	"a full file":        {at("mvcc/a.go", strings.Repeat("//\n", 595)), nil},
	"a long function":    {at("mvcc/a.go", "func f() {\n"+strings.Repeat("\n", 69)+"}"), []string{"4 function"}},
	"a full function":    {at("mvcc/a.go", "func f() {\n"+strings.Repeat("\n", 68)+"}"), nil},
	"sixteen ways": {at("mvcc/a.go", "func f(a, b bool, c chan int) {\n"+
		"if a && b || a {}\nfor range 3 {}\nfor a {}\nswitch {\ncase a:\ncase b:\ndefault:\n}\nselect {\ncase <-c:\ndefault:\n}\n"+
		"g := func() { if a {}; if a {}; if a {}; if a {}; if a {}; if a {}; if a {} }\ng()\n}"), []string{"4 complexity"}},
	"fifteen ways":   {at("mvcc/a.go", "func f(a bool) {\n"+strings.Repeat("if a {}\n", 14)+"}"), nil},
	"time":           {at("mvcc/a.go", "import t \"time\"\nvar a = t.Now()\nvar b = t.Second\nvar c = t.NewTicker"), []string{"5 time", "7 time"}},
	"time in a test": {at("mvcc/a_test.go", "import \"time\"\nvar a = time.Now()\nfunc f() { time.Sleep(1) }"), []string{"6 sleep"}},
	"time at home":   {at("internal/clock/a.go", "import \"time\"\nvar a = time.Now()"), nil},
	"left out of quick": {at("mvcc/a_test.go", "import \""+ours("internal/quick")+"\"\nfunc TestA(t *testing.T) {\nquick.LeaveOut(t)\nquick.LeaveOut(t)\n}\n"+
		"func helper(t *testing.T) {\nquick.LeaveOut(t)\n}"), []string{"7 quick", "10 quick"}},
	"files":           {at("pki/a.go", "import \"os\"\nvar a, _ = os.ReadFile(\"x\")\nvar b = os.Getpid()"), []string{"5 files"}},
	"files in a test": {at("pki/a_test.go", "import \"os\"\nvar a, _ = os.ReadFile(\"x\")"), nil},
	"old files":       {imports("pki/a.go", "io/ioutil"), []string{"4 files"}},
	"chance":          {imports("raftnode/a.go", "math/rand/v2", "math/rand"), []string{"4 random", "5 random"}},
	"go":              {at("server/a.go", "func f() {\n\tgo f()\n}"), []string{"5 go"}},
	"errgroup":        {imports("server/a.go", "golang.org/x/sync/errgroup"), []string{"4 go"}},
	"go at home":      {at("internal/task/a.go", "func f() { go f() }"), nil},
	"panic":           {at("server/a.go", "func f() { panic(1) }"), []string{"4 panic"}},
	"init":            {at("server/a.go", "func init() {}\n\ntype t int\n\nfunc (t) init() {}"), []string{"4 init"}},
	"the order of a map": {at("mvcc/a.go", "type m map[int]int\nfunc f(a m, b []int) {\n"+
		"for range a {}\nfor range b {}\nfor range map[string]bool{} {}\n}"), []string{"6 ordered", "8 ordered"}},
	"an iterator over a map": {at("raftnode/a.go", "import \"maps\"\nfunc f(a map[int]int) {\nfor range maps.Keys(a) {}\n}"), []string{"6 ordered"}},
	"maps elsewhere":         {at("server/a.go", "func f(a map[int]int) {\nfor range a {}\n}"), nil},
	"maps in tests":          {at("mvcc/a_test.go", "func f(a map[int]int) {\nfor range a {}\n}"), nil},
	"an excuse above":        {at("mvcc/a.go", "func f(a map[int]int) {\n//tidy:ordered only counts\nfor range a {}\n}"), nil},
	"an excuse beside":       {at("server/a.go", "func f() { panic(1) } //tidy:panic cannot be"), nil},
	"an excuse of a function": {at("server/a.go", "// f is long.\n//\n//tidy:function one line a case\nfunc f() {\n"+
		strings.Repeat("\n", 69)+"}"), nil},
	"another rule's excuse": {at("server/a.go", "func f() { panic(1) } //tidy:go why not"), []string{"4 panic", "4 excuse"}},
	"an excuse of nothing":  {at("server/a.go", "//tidy:panic why not"), []string{"4 excuse"}},
	"no reason":             {at("server/a.go", "func f() { panic(1) } //tidy:panic"), []string{"4 panic", "4 excuse"}},
	"generated":             {map[string]string{"server/a.go": "// Code generated by x. DO NOT EDIT.\npackage server\nfunc init() { panic(1) }\n"}, nil},
	"a module of its own": {map[string]string{"tools/go.mod": "module x\n",
		"tools/x/a.go": "// Command x is.\npackage main\nimport _ \"os\"\nfunc main() { go main(); panic(1) }\n"}, nil},
	"a dependency nobody weighed": {map[string]string{
		"go.mod":                         "module x\n\nrequire (\n\tgithub.com/a/b v1.0.0\n\tgithub.com/c/d v1.0.0\n\tgithub.com/e/f v1.0.0 // indirect\n)\n",
		"docs/decisions/dependencies.md": "| github.com/a/b |\n"}, []string{"5 dependency"}},
	"text":  {map[string]string{"README.md": "x\nsee ../" + "shared/x\nls /ro" + "ot/go\ncurl proxy.golang" + ".org\n"}, []string{"2 text", "3 text", "4 text"}},
	"prose": {map[string]string{"README.md": "a/root/of, work/home, ../sharedx, golang.org\n"}, nil},
	"a witness that is gone": {map[string]string{"mvcc/a_test.go": "package mvcc\n\nfunc TestIt(t *testing.T) {}\n",
		"docs/a.md": "`TestIt` shows it.\nSo does `FuzzIt`.\n"}, []string{"2 witness"}},
	"links": {map[string]string{"docs/a.md": "# It\n[here](#it)\n[b](sub/b.md#what-is-it)\n[folder](sub/)\n[out](https://x.org/y#z)\n",
		"docs/sub/b.md": "[up](../a.md)\n\n## What is `it`?\n", "docs/sub/c.yaml": "see docs/a.md\n"}, nil},
	"links that are dead": {map[string]string{"docs/a.md": "# It\n[here](#that)\n[b](sub/c.md)\n```\n# Code\n```\n[code](#code) and [again](#it-1)\n",
		"contrib/c.yaml": "see docs/gone.md\n"}, []string{"1 link", "2 link", "3 link", "7 link", "7 link"}},
	"half a format": {at("mvcc/history/format.go", "// See docs/format/history.md."),
		[]string{"1 format", "1 format", "4 link"}},
	"a format nobody wrote about": {map[string]string{"mvcc/history/format.go": "// Package history is.\npackage history\n",
		"mvcc/history/testdata/v1/x": ""}, []string{"1 format"}},
	"a whole format": {map[string]string{"mvcc/history/format.go": "// Package history is. See docs/format/history.md.\npackage history\n",
		"mvcc/history/testdata/v1/x": "", "docs/format/history.md": "x"}, nil},
}

func TestEachRuleFiresWhereItShouldAndNowhereElse(t *testing.T) {
	for name, c := range fixtures {
		t.Run(name, func(t *testing.T) {
			tree, err := newTree(c.tree, nil)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range tree.Check() {
				got = append(got, fmt.Sprintf("%d %s", f.Line, f.Rule))
				if f.Reason == "" || f.Detail == "" {
					t.Errorf("says too little: %v", f)
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("got %q, want %q\n%v", got, c.want, tree.Check())
			}
		})
	}
}

func TestEveryRuleHasBeenSeenFiring(t *testing.T) {
	fired := map[string]bool{}
	for _, c := range fixtures {
		for _, want := range c.want {
			_, rule, _ := strings.Cut(want, " ")
			fired[rule] = true
		}
	}
	for _, r := range rules() {
		if !fired[r.name] {
			t.Errorf("no fixture breaks %s", r.name)
		}
	}
}
