// Package apply writes the objects of one Kustomization to the cluster as
// Flux's kustomize-controller does: in stages, with server-side apply, as the
// same field manager, honouring the same markers. It does so with the apply
// functions of fluxcd/pkg/ssa; what it adds is what those do differently
// (flux-semantics.md, section 4):
//
//   - all errors of a stage are reported, sorted, not the first to come back
//     (S4.19), and the results are returned also when something fails (S4.47);
//   - nothing at all is written for a stage in which an object fails its dry
//     run: ssa has by then cleaned up and deleted others (S4.18);
//   - objects of one rank of the sort order are written concurrently, ranks one
//     after the other;
//   - an object is deleted and made again only when every error the server
//     names is about a field that cannot change, never if it holds data or
//     other objects, and its end is awaited by a watch (S4.28, S4.29);
//   - an object is written on the condition that it is as it was when it was
//     judged, and judged again if it is not (again.go);
//   - the waits end when the context does.
//
// TestAsFlux holds the rest against Flux itself: whatever others did to the
// objects before, values and owners afterwards are those that Flux leaves.
//
// The package does not know where its client comes from. Given one that
// answers reads and dry runs from a plan, an unchanged object costs no request
// and a changed one costs one write.
//
// The caller's objects are not changed. Apply may be called concurrently, for
// different Kustomizations.
package apply
