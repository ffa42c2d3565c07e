// Package auth says who calls and what that one may do.
//
// Who: the subject of the client certificate, its organizations are groups. What:
// table.go, one row for each (who, verbs, kinds, condition). What no row permits is
// denied. Conditions look at the object before and after, and ask Facts for what
// only the objects of the cluster tell: which node a pod is bound to, and what the
// pods of a node name.
//
// Nothing is kept here; the service calls Authorize in each request, for a write
// with the very object that the transaction compares.
package auth
