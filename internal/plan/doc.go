// Package plan finds out what a run would do to a cluster before it does
// anything: for every object whether it would be created, changed, made again
// or left alone, and whether the server would accept it.
//
// The server is asked as little as possible: one LIST for each kind brings
// what Flux's owner labels mark as ours, an object that is provably as desired
// costs nothing more (package proof), and each other one costs one server-side
// dry run. An
// object whose namespace, kind or rights come with the same run cannot be
// judged before its turn; it is planned as [Later].
//
// What an object's dry run means is not decided here but by fluxcd/pkg/ssa, as
// at the apply: see package rehearse. And what planning has learned is not
// lost: [Plan.Client] wraps a client so that the apply of a planned object
// reads and dry-runs it from here.
//
// Nothing is written, and the caller's objects are not changed.
package plan
