package clients

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

// ownWords are errors of ours that no client of etcd knows.
var ownWords = map[string]string{
	"etcdserver: name is not valid UTF-8":         "etcd takes such names, and can not write them down afterwards",
	"etcdserver: state of this member is damaged": "etcd would serve it",
	"etcdserver: unknown action for an alarm":     "etcd does nothing, and has no answer",
	"etcdserver: unknown method":                  "as etcd's server says it; its client has no value for it",
}

// unmatched are declared beside those that a client matches by text.
var unmatched = []error{rpctypes.ErrGRPCInvalidClientAPIVersion, rpctypes.ErrGRPCPermissionNotGiven, rpctypes.ErrGRPCWatchCanceled}

// Some errors are sent without their code, by etcd too, and clients give them
// one by their text.
var sentAsUnknown = map[string]bool{
	"etcdserver: re-configuration failed due to not enough started members": true,
	"etcdserver: too many requests":                                         true,
}

// TestErrorsHaveTheCodesThatClientsKnow compares the table of errors of the
// server with the one that etcd's client matches by text, also for those that a
// test can hardly bring about.
func TestErrorsHaveTheCodesThatClientsKnow(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(member.Root(), "server", "errors.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) != 2 {
			return true
		}
		code, isCode := call.Args[0].(*ast.SelectorExpr)
		literal, isText := call.Args[1].(*ast.BasicLit)
		if !isCode || !isText {
			return true
		}
		text, err := strconv.Unquote(literal.Value)
		if err != nil || !strings.HasPrefix(text, "etcdserver: ") {
			return true
		}
		seen++
		want, ok := codeIn(text)
		switch {
		case !ok && ownWords[text] == "":
			t.Errorf("%q is not known to etcd's client", text)
		case ok && ownWords[text] != "":
			t.Errorf("%q is known to etcd's client: %v", text, want)
		case ok && code.Sel.Name != want.String():
			t.Errorf("%q has code %s, etcd's client wants %v", text, code.Sel.Name, want)
		}
		return true
	})
	if seen < 50 {
		t.Errorf("only %d errors were found", seen)
	}
}

// codeIn etcd of an error.
func codeIn(text string) (code codes.Code, known bool) {
	for _, err := range unmatched {
		if s := status.Convert(err); s.Message() == text {
			return s.Code(), true
		}
	}
	e, known := rpctypes.Error(status.Error(codes.Unknown, text)).(rpctypes.EtcdError)
	if sentAsUnknown[text] {
		return codes.Unknown, known
	}
	return e.Code(), known
}
