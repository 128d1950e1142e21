// Package gate decides by spec.dependsOn[].readyExpr whether a Kustomization may
// start (S7.7, S7.8).
//
// An expression sees two Kustomizations, self and dep, as Flux's controller would
// see them in the cluster, status included. sluice has no such objects, so the
// package also keeps, for each Kustomization of a run, what Flux would have
// written into its status by then (S9.1 to S9.4).
package gate
