package etcd

const (
	// nodeBytesMax bounds a page with its overflow: one row of etcd is a request,
	// 1.5 MiB by default, and nobody raises that to a hundred times as much.
	nodeBytesMax = 256 << 20

	// treeDepthMax: with two children a page a tree of 2^32 pages is no deeper.
	treeDepthMax = 32

	// recordBytesMax bounds a record of etcd's log likewise. The length in the file
	// is not believed beyond it.
	recordBytesMax = 256 << 20

	// stateFileBytesMax bounds a .snap file: the store of etcd's second version and
	// a configuration.
	stateFileBytesMax = 1 << 30

	// exportRows go into one transaction of bbolt: enough for its syncs not to
	// count, little enough for memory.
	exportRows  = 5000
	exportBytes = 8 << 20

	// pageBytes of what is written: what etcd takes on every machine it is built for.
	pageBytes = 4 << 10

	// hashBlockBytes are read and hashed at a time.
	hashBlockBytes = 1 << 20
)
