package mvcc

import "github.com/holdfast-db/holdfast/mvcc/backend"

// Table names the kind of a small row. Callers above this package know the
// tables by these names, and nothing of base.
type Table = backend.Table

// The small tables.
const (
	TableLease  = backend.TableLease
	TableUser   = backend.TableUser
	TableRole   = backend.TableRole
	TableMember = backend.TableMember
	TableAlarm  = backend.TableAlarm
	TableMeta   = backend.TableMeta
)
