// Package plan finds out what a run would do to a cluster before it does
// anything: for every object whether it would be created, changed, made again
// or left alone, and whether the server would accept it.
//
// The server is asked as little as possible: one LIST for each kind brings
// what Flux's owner labels mark as ours, an object that is provably as desired
// costs nothing more (package proof), and each other one costs one server-side
// dry run.
//
// An object whose namespace or kind comes with the same run cannot be dry-run
// where it belongs before something is written. It is judged as far as can be in
// other ways: custom resources by the definition in the run (package
// definition), ConfigMaps, Secrets and ServiceAccounts by the server's few rules
// for them, all else by a dry run in a namespace that stands in for its own, of
// which only such refusals count as would be the same anywhere. What nothing of
// this can judge, and what needs rights that come with the run, is planned as
// [Later]. Each of them is dry-run for real at its turn. So on an empty cluster
// about half of the objects cost a third request; early.go says why that is not
// saved at their turn.
//
// What an object's dry run means is not decided here but by fluxcd/pkg/ssa, as
// at the apply: see package rehearse. And what planning has learned is not
// lost: [Plan.Client] wraps a client so that the apply of a planned object
// reads and dry-runs it from here.
//
// Nothing is written, and the caller's objects are not changed.
package plan
