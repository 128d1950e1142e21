// Package build turns the folder of a Flux Kustomization into objects, as
// Flux's kustomize-controller does: it finds or generates kustomization.yaml
// (S2.1 to S2.13), puts the spec's own fields into it (S2.14 to S2.29), runs
// kustomize on it, and returns the objects before variable substitution.
//
// The tree is read on demand and never written; what Flux would write to disk
// lives in an overlay in memory. Nothing of the machine's disk can be seen by
// a build, except the clones that kustomize itself makes for a remote base
// (S2.34) while that build runs.
//
// Builds may be asked for from many goroutines and run side by side, except
// those that touch what kustomize keeps in global variables: they run alone
// (turns.go; S2.35). While kustomize runs on a file with deprecated fields,
// os.Stderr and the log package's default writer are silenced: kustomize
// prints to both, and what it prints is returned as notices instead. So
// whoever owns the terminal must hold its own *os.File.
package build
