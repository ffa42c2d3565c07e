// Package conformance is one table of cases that every engine passes: what a node
// relies on when it hands pods to a runtime.Engine.
//
// A case is a sentence. Those that need containers to be more than plain processes are
// run the other way round on engines that do not isolate: what they demand must be
// refused with runtime.ErrUnsupported. What an engine cannot do although it isolates is
// listed with the reason by whoever runs the suite (Setup.Except).
//
// Containers run one static program (package inside) out of an image that holds nothing
// else, so no package, registry or network is needed. Each case has pods of its own with
// random UIDs; when they are closed nothing may be left of them: processes, mounts and
// cgroups of the machine are compared with those of before.
package conformance
