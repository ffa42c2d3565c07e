//go:build !failpoints

package main

import "flag"

const failpointsVersion = ""

// unbuilt names flags that only a build with failpoints has.
var unbuilt = []string{"failpoints-listen"}

// failpoints are none.
type failpoints struct{}

func (failpoints) failpointFlags(*flag.FlagSet) {}

func (options) serveFailpoints() (stop func(), err error) { return func() {}, nil }
