package service_test

import (
	"fmt"
	"net/netip"
	goruntime "runtime"
	"testing"

	"github.com/google/nftables"

	"github.com/holdfast-db/holdfast/kube/network/networktest"
)

// A node's memory is for its pods: what is written for the kernel is there once, and the
// kernel gets all of it.
func TestAThousandServicesAreWrittenInLittleMemory(t *testing.T) {
	networktest.Root(t)
	const services, endpoints, slots, writtenMax = 1000, 3, 64, 16 << 20
	n := &node{Space: networktest.NewSpace(t), t: t, name: "little", cidr: netip.MustParsePrefix("10.244.1.0/24")}
	n.openTable()
	plan := many(services, endpoints)
	var before, after goruntime.MemStats
	goruntime.ReadMemStats(&before)
	n.replace(plan)
	goruntime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > writtenMax {
		t.Errorf("%d bytes are allocated, want %d at most", took, writtenMax)
	}
	counted := map[string]int{}
	n.Do(func() error {
		nft, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := nft.ListTables()
		if err != nil || len(tables) != 1 {
			return fmt.Errorf("%d tables, %w", len(tables), err)
		}
		sets, err := nft.GetSets(tables[0])
		if err != nil {
			return err
		}
		for _, s := range sets {
			all, err := nft.GetSetElements(s)
			if err != nil {
				return err
			}
			counted[s.Name] = len(all)
		}
		return nil
	})
	if counted["services"] != services {
		t.Errorf("the kernel has %d services of %d", counted["services"], services)
	}
	for name := range plan {
		if counted["s/"+name+"/slots"] != slots {
			t.Errorf("%s has %d slots of %d", name, counted["s/"+name+"/slots"], slots)
		}
	}
}
