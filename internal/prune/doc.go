// Package prune decides what is removed from a cluster, guards against removing too much, and removes it.
//
// The three steps are separate so that the first two can run before anything is written:
//
//   - Candidates is pure: records of earlier runs, what this commit wants and how its Kustomizations fared go in, a Plan comes out.
//   - Check looks at the live objects and says what a guard refuses.
//   - Delete removes, and Plan.After says what each record must hold afterwards.
//
// Contract: an id that any Kustomization of the run owns is never deleted (S5.15). Only objects that carry the owner labels of the
// Kustomization that is pruned are (S5.8), looked at again at the moment of deletion and deleted by uid, so that an object that
// somebody made anew under the same name is not hit. What is not known to be gone or to be left alone on purpose stays in the
// record.
package prune
