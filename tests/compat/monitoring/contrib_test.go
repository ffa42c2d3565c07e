package monitoring

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/holdfast-db/holdfast/tests/compat/member"
)

func contrib(name ...string) string {
	return filepath.Join(append([]string{member.Root(), "contrib"}, name...)...)
}

// expressions of the dashboard, by panel.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(contrib("grafana", "holdfast.json"))
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, p := range board.Panels {
		for i, target := range p.Targets {
			all[fmt.Sprintf("%s %d", p.Title, i)] = strings.NewReplacer("$__rate_interval", "5m", "$job", "etcd").Replace(target.Expr)
		}
	}
	if len(all) < 20 {
		t.Fatalf("the dashboard has only %d expressions", len(all))
	}
	return all
}

// alerts are the expressions of the rules.
func alerts(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(contrib("prometheus", "rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(text, &rules); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			all[r.Alert] = r.Expr
		}
	}
	if len(all) == 0 {
		t.Fatal("there are no rules")
	}
	return all
}

var metricName = regexp.MustCompile(`\b(?:etcd|holdfast|grpc|process|go|os|promhttp)_\w+\b`)

func TestEveryMetricThatIsShippedIsThere(t *testing.T) {
	c := member.StartCluster(t, 3, "--archive-url=file://"+t.TempDir())
	h := &http.Client{Transport: &http.Transport{TLSClientConfig: c.Certs.TLS(t)}}
	for deadline := time.Now().Add(time.Minute); ; { // Round trips are measured now and then.
		missing := missingOf(t, h, "https://"+c.Members[0].Client+"/metrics")
		if len(missing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no member tells what is asked for:\n%s", strings.Join(missing, "\n"))
		}
		<-time.After(100 * time.Millisecond)
	}
}

// missingOf are the metrics that contrib asks for and a page does not have.
func missingOf(t *testing.T, h *http.Client, page string) (missing []string) {
	t.Helper()
	resp, err := h.Get(page)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	known := metricName.FindAllString(string(text), -1)
	// An alarm is a metric only while it is on; the others are labels.
	known = append(known, "etcd_debugging_server_alarms", "grpc_type", "grpc_method", "grpc_code")
	for _, shipped := range []map[string]string{expressions(t), alerts(t)} {
		for where, expr := range shipped {
			for _, name := range metricName.FindAllString(expr, -1) {
				if !slices.Contains(known, name) {
					missing = append(missing, where+": "+name)
				}
			}
		}
	}
	return missing
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed: apt-get install prometheus")
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = contrib("prometheus")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestTheRulesHold(t *testing.T) {
	promtool(t, "check", "rules", "rules.yaml")
	promtool(t, "test", "rules", "rules_test.yaml")
}

// TestTheDashboardIsWritten lets promtool read its expressions as rules.
func TestTheDashboardIsWritten(t *testing.T) {
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var rules []rule
	for _, expr := range expressions(t) {
		rules = append(rules, rule{fmt.Sprintf("board:%d", len(rules)), expr})
	}
	text, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "board", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "board.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", path)
}
