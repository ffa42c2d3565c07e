// Command peer is etcd, built from its own packages, to be measured beside
// holdfast.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
