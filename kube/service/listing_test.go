package service_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-db/holdfast/kube/network/networktest"
	"github.com/holdfast-db/holdfast/kube/service"
)

// What others on the machine list their tables with reads ours too: it ends at a rule
// that it does not understand.
func TestPeopleCanReadTheTable(t *testing.T) {
	networktest.Root(t)
	if _, err := exec.LookPath("nft"); err != nil {
		if os.Getenv("HOLDFAST_REQUIRE_ALL") == "1" {
			t.Fatal(err)
		}
		t.Skip("the program nft is not installed: ", err)
	}
	_, nodes := cluster(t, 1)
	a := nodes[0].pod("a")
	plain, sticky := web(service.TCP, []service.Front{{Port: 30080}}, a), web(service.UDP, []service.Front{{Port: 30081}}, a)
	sticky.Sticky = time.Hour
	nodes[0].replace(planOf(plain, sticky))
	var listed []byte
	nodes[0].Do(func() (err error) {
		listed, err = exec.Command("nft", "list", "ruleset").CombinedOutput()
		return err
	})
	for _, want := range []string{
		"10.96.0.10 . tcp . 80 : goto s/default/web/tcp/80",
		"dnat ip to numgen random mod 64 map @s/default/web/tcp/80/slots",
		"dnat ip to ip saddr map @s/default/web/udp/80/sticky",
		"update @s/default/web/udp/80/sticky { ip saddr timeout 1h : ip daddr . th dport }",
		"ip saddr . ip daddr @hairpins masquerade",
		"ct state invalid drop",
	} {
		if !strings.Contains(string(listed), want) {
			t.Errorf("the table does not have %q:\n%s", want, listed)
		}
	}
}
