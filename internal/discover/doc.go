// Package discover finds the Flux Kustomizations of a run. Split sorts the
// built objects of a parent into what is run, resolved, left out and applied
// (S16.1, S16.2); the Kustomizations among them are decoded with the checks
// that an API server would make with Flux's definition (S1.1 to S1.5), which is
// part of the package. Candidates finds the folders of a repository that a run
// can start from.
//
// It reads no network and no cluster; trees are read-only. All functions are
// safe for concurrent use.
package discover
