package ports

import (
	"net"
	"testing"
)

func TestNoPortIsGivenTwice(t *testing.T) {
	seen := map[string]bool{}
	for range 20 {
		addrs, err := Free(50)
		if err != nil {
			t.Fatal(err)
		}
		for _, addr := range addrs {
			if seen[addr] {
				t.Fatalf("%s was given before", addr)
			}
			seen[addr] = true
		}
		l, err := net.Listen("tcp", addrs[0])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
}
