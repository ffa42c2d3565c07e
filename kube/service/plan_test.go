package service_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/yaml"

	"github.com/holdfast-db/holdfast/internal/golden"
	"github.com/holdfast-db/holdfast/kube/service"
)

func TestPlans(t *testing.T) {
	golden.Script(t, "testdata/plan.txt", func(c golden.Command) string {
		parts := strings.Split(c.Input, "---\n")
		s := &corev1.Service{}
		if err := yaml.UnmarshalStrict([]byte(parts[0]), s); err != nil {
			t.Fatal(err)
		}
		var all []*discoveryv1.EndpointSlice
		for _, text := range parts[1:] {
			one := &discoveryv1.EndpointSlice{}
			if err := yaml.UnmarshalStrict([]byte(text), one); err != nil {
				t.Fatal(err)
			}
			all = append(all, one)
		}
		plan := service.Make(s, all)
		if len(plan) == 0 {
			return "nothing"
		}
		return plan.String()
	})
}

func endpoint(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)}), 80)
}

func tally(slots []netip.AddrPort) map[netip.AddrPort]int {
	counts := map[netip.AddrPort]int{}
	for _, e := range slots {
		counts[e]++
	}
	return counts
}

func TestSlotsMoveNoFurtherThanTheyMust(t *testing.T) {
	var before []netip.AddrPort
	golden.Script(t, "testdata/slots.txt", func(c golden.Command) string {
		var endpoints []netip.AddrPort
		names := map[netip.AddrPort]string{}
		for _, a := range c.Args {
			e := endpoint(int(a.Key[0]))
			endpoints, names[e] = append(endpoints, e), a.Key
		}
		slots := service.Assign(before, endpoints)
		moved := 0
		for i := range slots {
			if i >= len(before) || before[i] != slots[i] {
				moved++
			}
		}
		before = slots
		var b strings.Builder
		fmt.Fprintf(&b, "%d slots, %d moved:", len(slots), moved)
		counts := tally(slots)
		for _, e := range endpoints {
			fmt.Fprintf(&b, " %s %d", names[e], counts[e])
		}
		if len(slots) == 64 {
			b.WriteString("\n")
			for _, e := range slots {
				b.WriteString(names[e])
			}
		}
		return b.String()
	})
}

func TestSlotsStayEvenWhateverComesAndGoes(t *testing.T) {
	seed := rand.Uint64()
	x := rand.New(rand.NewPCG(seed, 0))
	there := map[int]bool{1: true}
	var slots []netip.AddrPort
	for step := range 120 {
		had := tally(slots)
		size := 1 + x.IntN(1+step*17%300) // Grows beyond what fits in 64 slots, and shrinks again.
		for len(there) < size {
			there[x.IntN(400)] = true
		}
		for len(there) > size {
			delete(there, slices.Sorted(maps.Keys(there))[x.IntN(len(there))])
		}
		var endpoints []netip.AddrPort
		for _, i := range slices.Sorted(maps.Keys(there)) {
			endpoints = append(endpoints, endpoint(i))
		}
		next := service.Assign(slots, endpoints)
		counts := tally(next)
		least, most := len(next), 0
		for _, e := range endpoints {
			least, most = min(least, counts[e]), max(most, counts[e])
		}
		if most-least > 1 || least < 4 || len(counts) != len(endpoints) {
			t.Fatalf("seed %d, step %d: %d endpoints have %d to %d of %d slots", seed, step, len(endpoints), least, most, len(next))
		}
		if len(next) == len(slots) {
			for i := range next {
				// A slot moves only if its endpoint went, or had more than its share.
				if e := slots[i]; next[i] != e && counts[e] > 0 && had[e] <= least {
					t.Fatalf("seed %d, step %d: slot %d moved from %v, which has %d and had %d", seed, step, i, e, counts[e], had[e])
				}
			}
			if again := service.Assign(next, endpoints); !slices.Equal(again, next) {
				t.Fatalf("seed %d, step %d: slots move although nothing changed", seed, step)
			}
		}
		slots = next
	}
}

func TestTwoNodesAgreeOnSlotsThatNeitherHadBefore(t *testing.T) {
	var endpoints []netip.AddrPort
	for i := range 7 {
		endpoints = append(endpoints, endpoint(i))
	}
	if !slices.Equal(service.Assign(nil, endpoints), service.Assign(nil, slices.Clone(endpoints))) {
		t.Error("they do not")
	}
}

// How long does it take to spread endpoints over slots?
func BenchmarkAssign(b *testing.B) {
	for _, n := range []int{3, 16, 250} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			var endpoints []netip.AddrPort
			for i := range n {
				endpoints = append(endpoints, endpoint(i))
			}
			slots := service.Assign(nil, endpoints)
			for b.Loop() {
				fewer := service.Assign(slots, endpoints[1:])
				slots = service.Assign(fewer, endpoints)
			}
		})
	}
}
