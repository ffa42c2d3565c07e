package ctl

import (
	"bufio"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// calls are the calls that members have had from ours, by service and method.
var calls struct {
	sync.Mutex
	counts map[string]bool
}

var started = regexp.MustCompile(`^grpc_server_started_total\{.*grpc_method="(\w+)",grpc_service="([\w.]+)".*\} (\d+)$`)

// callsOf adds what a member has counted.
func callsOf(t *testing.T, endpoint string) {
	t.Helper()
	r, err := http.Get("http://" + endpoint + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	calls.Lock()
	defer calls.Unlock()
	if calls.counts == nil {
		calls.counts = map[string]bool{}
	}
	for s := bufio.NewScanner(r.Body); s.Scan(); {
		if m := started.FindStringSubmatch(s.Text()); m != nil {
			name := m[2] + "/" + m[1]
			calls.counts[name] = calls.counts[name] || m[3] != "0"
		}
	}
}

// notCalled are calls for which no tool of etcd's has a verb.
var notCalled = map[string]string{
	"etcdserverpb.Maintenance/Hash": "of the database file, for tests of etcd's own",
}

// ownServices are the parts of the protocol that etcdctl does by keys itself,
// and what is not etcd's.
var ownServices = regexp.MustCompile(`^(v3lockpb|v3electionpb|grpc\.health|holdfastpb|grpc\.reflection)`)

// everything reports verbs and calls that no command has reached.
func everything() (code int) {
	complain := func(format string, args ...any) {
		fmt.Printf(format+"\n", args...)
		code = 1
	}
	if len(calls.counts) < 30 {
		complain("only %d calls are counted by members", len(calls.counts))
	}
	for _, name := range slices.Sorted(maps.Keys(calls.counts)) {
		why := notCalled[name]
		if reached := calls.counts[name]; !reached && why == "" && !ownServices.MatchString(name) {
			complain("no command has called %s", name)
		} else if reached && why != "" {
			complain("%s is called: the row of notCalled can go", name)
		}
	}
	for _, tool := range []string{"etcdctl", "etcdutl"} {
		tree, err := treeOf(filepath.Join(reference.dir, tool))
		if err != nil {
			complain("%v", err)
		}
		for path := range tree {
			parent := slices.ContainsFunc(slices.Collect(maps.Keys(tree)), func(p string) bool { return strings.HasPrefix(p, path+" ") })
			if path != "" && !parent && !slices.ContainsFunc(seen.lines, func(line string) bool { return strings.Contains(" "+line+" ", " "+path+" ") }) {
				complain("no test gives %s %s", tool, path)
			}
		}
	}
	return code
}

var (
	commandLine = regexp.MustCompile(`^  (\S+) +\S`)
	flagLine    = regexp.MustCompile(`^ +(?:-(\w), )?--(\S+)(?: (\w+))?(?:   .*)?$`)
	preset      = regexp.MustCompile(`\(default (.*)\)$`)
)

// treeOf asks a program for all commands and their flags: letter, name, type and
// default.
func treeOf(program string) (map[string][]string, error) {
	tree := map[string][]string{}
	var visit func(path []string) error
	visit = func(path []string) error {
		out, err := exec.Command(program, append(slices.Clone(path), "--help")...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s %q: %w\n%s", program, path, err, out)
		}
		name := strings.Join(path, " ")
		tree[name] = []string{}
		section := ""
		var below []string
		for line := range strings.Lines(string(out)) {
			line = strings.TrimRight(line, "\n")
			if line != "" && line[0] != ' ' {
				section = line
				continue
			}
			if m := commandLine.FindStringSubmatch(line); m != nil && (strings.HasSuffix(section, "ommands") || section == "Available Commands:" || section == "Commands for files") && m[1] != "help" {
				below = append(below, m[1])
			}
			if m := flagLine.FindStringSubmatch(line); m != nil && section == "Flags:" && m[2] != "help" {
				def := ""
				if d := preset.FindStringSubmatch(line); d != nil {
					def = d[1]
				}
				tree[name] = append(tree[name], fmt.Sprintf("-%s --%s %s (%s)", m[1], m[2], m[3], def))
			}
		}
		for _, b := range below {
			if err := visit(append(slices.Clone(path), b)); err != nil {
				return err
			}
		}
		return nil
	}
	return tree, visit(nil)
}

func TestTheTreeOfCommandsAndFlagsIsThatOfTheTools(t *testing.T) {
	t.Parallel()
	for tool, least := range map[string]int{"etcdctl": 60, "etcdutl": 8} {
		want, err := treeOf(etcdTool(t, tool))
		if err != nil {
			t.Fatal(err)
		}
		got, err := treeOf(ours(t, tool))
		if err != nil {
			t.Fatal(err)
		}
		if len(want) < least {
			t.Errorf("%s has only %d commands?", tool, len(want))
		}
		for path, flags := range want {
			if !slices.Equal(got[path], flags) {
				t.Errorf("%s %s\n  ours   %q\n  theirs %q", tool, path, got[path], flags)
			}
		}
		for path := range got {
			if want[path] == nil {
				t.Errorf("%s has no command %q", tool, path)
			}
		}
	}
}

// The global flags are in the answer of a command of their own.
func TestTheGlobalFlagsAreThoseOfEtcdctl(t *testing.T) {
	t.Parallel()
	flags := func(program string) (list []string) {
		out, err := exec.Command(program, "options").Output()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			if m := flagLine.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
				def := ""
				if d := preset.FindStringSubmatch(strings.TrimSpace(line)); d != nil {
					def = d[1]
				}
				list = append(list, fmt.Sprintf("-%s --%s %s (%s)", m[1], m[2], m[3], def))
			}
		}
		return list
	}
	want, got := flags(etcdTool(t, "etcdctl")), flags(ours(t, "etcdctl"))
	if len(want) < 20 || !slices.Equal(got, want) {
		t.Errorf("ours   %q\ntheirs %q", got, want)
	}
}

// shells complete a word by the script that they are given; zsh outside of its line
// editor, with words in place of what would show them.
var shells = map[string]string{
	"fish": `set -x PATH %[1]s $PATH; %[2]s completion fish | source; complete -C "%[3]s comp"`,
	"zsh": `PATH=%[1]s:$PATH; compdef() { : }
		_describe() { for a in "$@"; do [[ ${(Pt)a} == array* ]] && print -l -- "${(@P)a}"; done }
		source <(%[2]s completion zsh); words=(%[3]s comp); CURRENT=2; _%[3]s`,
}

// A shell that reads the script completes the name that it was made for.
func TestCompletionWorks(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"etcdctl", "etcdutl", "holdfastctl"} {
		program := ours(t, tool)
		for shell, sign := range map[string]string{"bash": "complete -o default", "zsh": "#compdef " + tool, "fish": "complete -c " + tool, "powershell": "Register-ArgumentCompleter"} {
			out, err := exec.Command(program, "completion", shell).Output()
			if err != nil || !strings.Contains(string(out), sign) {
				t.Errorf("%s completion %s: %v\n%.300s", tool, shell, err, out)
			}
		}
		script := fmt.Sprintf("source <(%[1]s completion bash) && complete -p %[2]s", program, tool)
		out, err := exec.Command("bash", "-c", script).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "__start_"+tool+" "+tool) {
			t.Errorf("bash knows nothing of %s: %v\n%s", tool, err, out)
		}
		out, err = exec.Command(program, "__complete", "comp").Output()
		if err != nil || !strings.Contains(string(out), "completion") {
			t.Errorf("%s does not complete a command: %v\n%s", tool, err, out)
		}
		for shell, script := range shells {
			if _, err := exec.LookPath(shell); err != nil && os.Getenv("HOLDFAST_REQUIRE_ALL") != "1" {
				t.Logf("%s is not installed: its completion is not tried", shell)
				continue
			}
			out, err := exec.Command(shell, "-c", fmt.Sprintf(script, filepath.Dir(program), program, tool)).Output()
			if err != nil || !strings.Contains(string(out), "completion") {
				t.Errorf("%s does not complete 'comp' of %s: %v\n%s", shell, tool, err, out)
			}
		}
	}
}
