package node_test

import (
	"strings"
	"testing"

	"github.com/holdfast-db/holdfast/kube/node"
)

func TestANodeHasAnIPv4Address(t *testing.T) {
	for address, says := range map[string]string{"192.0.2.1": "", "": "give --node-ip", "fd00::1": "give an IPv4 address with --node-ip"} {
		err := (&node.Config{Kind: node.Process, Address: address}).Validate()
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%q: %v", address, err)
		}
	}
}
