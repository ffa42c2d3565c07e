package build

import (
	"runtime/debug"
	"testing"
)

func TestTheVersionIsThatOfHoldfastWhoeverEmbedsIt(t *testing.T) {
	ours := func(version string) *debug.Module { return &debug.Module{Path: module, Version: version} }
	replaced := ours("v1.2.3")
	replaced.Replace = &debug.Module{Path: "fork", Version: "v1.2.4"}
	local := ours("v1.2.3")
	local.Replace = &debug.Module{Path: "../holdfast"}
	other := debug.Module{Path: "example.com/plane", Version: "v7.0.0"}
	for want, info := range map[string]*debug.BuildInfo{
		"v0.4.0":  {Main: *ours("v0.4.0")},
		"v1.2.3":  {Main: other, Deps: []*debug.Module{{Path: "x"}, local}},
		"v1.2.4":  {Main: other, Deps: []*debug.Module{replaced}},
		"unknown": {Main: other},
	} {
		if got := of(info); got != want {
			t.Errorf("%+v is %s, want %s", info, got, want)
		}
	}
}
